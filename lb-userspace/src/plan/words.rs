//! Addresses, ports and prefixes between Rust's types and the maps' bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use lb_common::abi::FrontendKey;
use lb_common::family::{Address, MAPPED_WORD, V4Addr, V6Addr};

use crate::model::desired::{Family, Protocol};

/// An IPv4 address as it lies in maps.
pub fn v4_word(addr: Ipv4Addr) -> V4Addr {
    u32::from_ne_bytes(addr.octets())
}

/// An IPv6 address as it lies in maps.
pub fn v6_words(addr: Ipv6Addr) -> V6Addr {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(addr.octets().chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// The address in a map's word.
pub fn v4(word: V4Addr) -> Ipv4Addr {
    Ipv4Addr::from(word.to_ne_bytes())
}

/// The address in a map's words.
pub fn v6(words: V6Addr) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets)
}

/// How classes, source ranges and affinity hold an address: IPv4 in the mapped form.
pub fn wide(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(addr) => v4_word(addr).widen(),
        IpAddr::V6(addr) => v6_words(addr),
    }
}

/// The inverse of [`wide`].
pub fn narrow(words: [u32; 4]) -> IpAddr {
    if words[0] == 0 && words[1] == 0 && words[2] == MAPPED_WORD {
        IpAddr::V4(v4(words[3]))
    } else {
        IpAddr::V6(v6(words))
    }
}

/// How backends hold an address: IPv4 in the first word.
pub fn backend_words(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(addr) => [v4_word(addr), 0, 0, 0],
        IpAddr::V6(addr) => v6_words(addr),
    }
}

/// A prefix as the longest-prefix tables hold it: words and significant bits, IPv4 counted from 96.
pub fn wide_prefix(net: IpNet) -> ([u32; 4], u32) {
    let bits = u32::from(net.prefix_len());
    match net {
        IpNet::V4(net) => (v4_word(net.network()).widen(), 96 + bits),
        IpNet::V6(net) => (v6_words(net.network()), bits),
    }
}

/// The inverse of [`wide_prefix`]; `None` when it is no prefix.
pub fn prefix(words: [u32; 4], bits: u32) -> Option<IpNet> {
    let bits = u8::try_from(bits).ok()?;
    match narrow(words) {
        IpAddr::V4(addr) if bits >= 96 => IpNet::new(addr.into(), bits - 96).ok(),
        _ => IpNet::new(v6(words).into(), bits).ok(),
    }
}

/// A frontend's key for either family. Port and protocol are 0 for the owner of an address (V5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendName {
    /// The address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl FrontendName {
    /// The entry that says who owns `addr`.
    pub const fn owner(addr: IpAddr) -> Self {
        Self { addr, port: 0, protocol: 0 }
    }

    /// Whether this is an owner's entry.
    pub const fn is_owner(&self) -> bool {
        self.port == 0 && self.protocol == 0
    }

    /// Family of the address.
    pub const fn family(&self) -> Family {
        Family::of(self.addr)
    }
}

impl fmt::Display for FrontendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_owner() {
            return write!(f, "{}", self.addr);
        }
        write!(f, "{}/", std::net::SocketAddr::new(self.addr, self.port))?;
        match Protocol::from_number(self.protocol) {
            Some(protocol) => write!(f, "{protocol}"),
            None => write!(f, "{}", self.protocol),
        }
    }
}

/// A frontend's key from its map's bytes.
pub fn frontend_name<A: Address>(key: &FrontendKey<A>) -> FrontendName {
    let addr = if A::WORDS == 1 {
        IpAddr::V4(v4(key.addr.word(0)))
    } else {
        IpAddr::V6(v6([key.addr.word(0), key.addr.word(1), key.addr.word(2), key.addr.word(3)]))
    };
    FrontendName { addr, port: u16::from_be(key.port_be), protocol: key.protocol }
}

/// A frontend's key with an address of its family.
pub fn frontend_key<A: Address>(addr: A, name: &FrontendName) -> FrontendKey<A> {
    FrontendKey { addr, port_be: name.port.to_be(), protocol: name.protocol, _pad: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["10.1.2.3", "::1", "2001:db8::7", "255.255.255.255"] {
            let addr: IpAddr = text.parse().unwrap();
            assert_eq!(narrow(wide(addr)), addr);
        }
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.168.1.2/32", "fd00::/64", "::/0", "::1/128"] {
            let net: IpNet = text.parse().unwrap();
            let (words, bits) = wide_prefix(net);
            assert_eq!(prefix(words, bits), Some(net), "{text}");
        }
        assert_eq!(v4_word(Ipv4Addr::new(10, 0, 0, 1)).to_ne_bytes(), [10, 0, 0, 1]);
    }

    #[test]
    fn frontend_names() {
        let name = FrontendName { addr: "10.0.0.1".parse().unwrap(), port: 80, protocol: 6 };
        assert_eq!(name.to_string(), "10.0.0.1:80/TCP");
        let key = frontend_key(v4_word(Ipv4Addr::new(10, 0, 0, 1)), &name);
        assert_eq!(frontend_name(&key), name);
        let name = FrontendName { addr: "fd00::1".parse().unwrap(), port: 53, protocol: 17 };
        assert_eq!(name.to_string(), "[fd00::1]:53/UDP");
        assert_eq!(FrontendName::owner("fd00::1".parse().unwrap()).to_string(), "fd00::1");
    }
}
