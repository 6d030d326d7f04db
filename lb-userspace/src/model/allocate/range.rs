//! Where in a range a hash falls.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses at the start of a range that are given last: people and installers name them (10.96.0.1, 10.96.0.10).
const FIRST_ADDRESSES: u128 = 10;
/// Ranges smaller than this have no such part.
const SMALL_RANGE: u128 = 64;
/// Addresses of a range that are looked at; enough for every Service there can be.
const MOST_ADDRESSES: u128 = 1 << 32;

/// FNV-1a over texts, each followed by a byte that no text holds, and a last mix (the finaliser of MurmurHash3). Its
/// results are part of the promise that addresses stay: it must never change.
pub(super) fn stable_hash(texts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for text in texts {
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The addresses of a range that may be given: neither the network's own nor, in IPv4, the broadcast address.
pub(super) struct AddressRange {
    net: IpNet,
    /// Offsets from the network address: `1..end`.
    end: u128,
    /// Offsets below are given last.
    preferred: u128,
}

impl AddressRange {
    pub(super) fn new(net: IpNet) -> Self {
        let net = net.trunc();
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX).min(MOST_ADDRESSES);
        let end = match net {
            IpNet::V4(_) => size.saturating_sub(1).max(1),
            IpNet::V6(_) => size,
        };
        let preferred = if size < SMALL_RANGE { 1 } else { 1 + FIRST_ADDRESSES };
        Self { net, end, preferred }
    }

    fn address(&self, offset: u128) -> IpAddr {
        match self.net {
            IpNet::V4(net) => {
                // The offset is below the size of the range, so neither the conversion nor the sum loses anything.
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                IpAddr::V4(Ipv4Addr::from(u32::from(net.network()).wrapping_add(offset)))
            }
            IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(u128::from(net.network()).wrapping_add(offset))),
        }
    }

    /// The first free address from where the hash falls; the first addresses of the range come last.
    pub(super) fn pick(&self, hash: u64, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let count = self.end.saturating_sub(self.preferred);
        let start = u128::from(hash).checked_rem(count).unwrap_or(0);
        let preferred = (0..count).map(|step| self.preferred + (start + step) % count);
        let last = 1..self.preferred.min(self.end);
        preferred.chain(last).map(|offset| self.address(offset)).find(|address| is_free(*address))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all(range: &str) -> Vec<String> {
        let range = AddressRange::new(range.parse().unwrap());
        let mut used = BTreeSet::new();
        while let Some(address) = range.pick(7, |address| !used.contains(&address)) {
            used.insert(address);
        }
        used.into_iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn z2_network_and_broadcast_are_never_given() {
        assert_eq!(all("10.0.0.0/30"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(all("fd00::/126"), ["fd00::1", "fd00::2", "fd00::3"]);
        assert_eq!(all("10.0.0.0/24").len(), 254);
        assert_eq!(all("10.0.0.0/32"), [""; 0]);
    }

    #[test]
    fn z2_the_first_addresses_are_given_last() {
        let range = AddressRange::new("10.96.0.0/24".parse().unwrap());
        for hash in 0..1000 {
            let IpAddr::V4(address) = range.pick(hash, |_| true).unwrap() else { panic!("IPv4") };
            assert!((11..=254).contains(&address.octets()[3]), "{address}");
        }
        assert_eq!(
            range.pick(5, |a| a < "10.96.0.11".parse::<IpAddr>().unwrap()).unwrap().to_string(),
            "10.96.0.1"
        );
    }

    #[test]
    fn large_ranges_and_the_hash_are_stable() {
        let range = AddressRange::new("fd00::/64".parse().unwrap());
        assert!(range.pick(u64::MAX, |_| true).is_some());
        assert!(AddressRange::new("::/0".parse().unwrap()).pick(3, |_| true).is_some());
        assert_eq!(stable_hash(&["default", "web"]), stable_hash(&["default", "web"]));
        assert_ne!(stable_hash(&["a", "bc"]), stable_hash(&["ab", "c"]));
    }
}
