//! nftables' base chains, asked from the kernel (`NFT_MSG_GETCHAIN`, `linux/netfilter/nf_tables.h`): where they are
//! hooked and how many rules they have, without their rules, of which there may be thousands.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::rules::RulesError;

/// `NFNL_SUBSYS_NFTABLES << 8`, with `NFT_MSG_NEWCHAIN` and `NFT_MSG_GETCHAIN`.
const NEWCHAIN: u16 = 10 << 8 | 3;
const GETCHAIN: u16 = 10 << 8 | 4;
/// `NLM_F_REQUEST | NLM_F_DUMP` (RFC 3549 section 2.3.2).
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Bytes of `struct nlmsghdr` and of `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// The kernel's datagrams of a dump are no longer than this (`NLMSG_GOODSIZE` is at most a page or 8 KiB).
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; this is for what should not happen.
const PATIENCE_S: i64 = 5;

/// Attributes of a chain.
mod attribute {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const HOOK: u16 = 4;
    pub(super) const POLICY: u16 = 5;
    pub(super) const USE: u16 = 6;
    pub(super) const TYPE: u16 = 7;
    /// Inside of `HOOK`.
    pub(super) const HOOK_NUMBER: u16 = 1;
    /// Bits of a type that are none of its number: nested, in network byte order.
    pub(super) const FLAGS: u16 = 0xc000;
}

/// Families of tables (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Inet,
    Ipv4,
    Arp,
    Netdev,
    Bridge,
    Ipv6,
    Other,
}

impl Family {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Inet,
            2 => Self::Ipv4,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ipv6,
            _ => Self::Other,
        }
    }

    /// As nft spells it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ipv6 => "ip6",
            Self::Other => "?",
        }
    }
}

/// A place where packets meet chains; its meaning depends on the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HookNumber(pub(super) u32);

impl HookNumber {
    /// Whether packets that this host forwards come by.
    pub(super) const fn on_the_way_through(self, family: Family) -> bool {
        match family {
            // Prerouting, forward, postrouting, and ingress for inet; not input and output.
            Family::Inet | Family::Ipv4 | Family::Ipv6 => !matches!(self.0, 1 | 3),
            Family::Netdev => true,
            Family::Arp | Family::Bridge | Family::Other => false,
        }
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) name: String,
    /// None: other chains jump there.
    pub(super) hook: Option<HookNumber>,
    pub(super) kind: String,
    pub(super) rules: u32,
    /// What passes all rules is dropped.
    pub(super) drops: bool,
}

/// All chains of the current network namespace; none where the kernel has no nftables.
pub(super) fn chains() -> Result<Vec<Chain>, RulesError> {
    ask().map_err(|source| RulesError { operation: "ask", source })
}

fn ask() -> io::Result<Vec<Chain>> {
    let socket = match socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    ) {
        // No netfilter at all.
        Err(Errno::EPROTONOSUPPORT) => return Ok(Vec::new()),
        socket => socket?,
    };
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
    let mut request = Vec::with_capacity(HEADER + GENERIC);
    request.extend(((HEADER + GENERIC) as u32).to_ne_bytes());
    request.extend(GETCHAIN.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    // Sequence and port number: one request on this socket. Then all families, version 0.
    request.extend([0; 8 + GENERIC]);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut chains = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if take(&buffer[..len], &mut chains)? {
            return Ok(chains);
        }
    }
}

/// Takes the messages of a datagram apart; whether it was the last one.
fn take(mut datagram: &[u8], chains: &mut Vec<Chain>) -> io::Result<bool> {
    while datagram.len() >= HEADER {
        let len = word(datagram, 0).unwrap_or(0) as usize;
        let Some(message) = datagram.get(HEADER..len) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is cut short"));
        };
        match half(datagram, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                let errno = word(message, 0).map_or(0, |number| -number.cast_signed());
                return match Errno::from_raw(errno) {
                    // No nftables in this kernel.
                    Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOENT => Ok(true),
                    errno => Err(errno.into()),
                };
            }
            Some(NEWCHAIN) => chains.extend(chain(message)),
            _ => {}
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn chain(message: &[u8]) -> Option<Chain> {
    let mut chain = Chain {
        family: Family::of(*message.first()?),
        table: String::new(),
        name: String::new(),
        hook: None,
        kind: String::new(),
        rules: 0,
        drops: false,
    };
    for (kind, value) in attributes(message.get(GENERIC..)?) {
        match kind {
            attribute::TABLE => chain.table = text(value),
            attribute::NAME => chain.name = text(value),
            attribute::HOOK => {
                chain.hook = attributes(value)
                    .find(|(kind, _)| *kind == attribute::HOOK_NUMBER)
                    .and_then(|(_, value)| word_be(value))
                    .map(HookNumber);
            }
            attribute::POLICY => chain.drops = word_be(value) == Some(0),
            attribute::USE => chain.rules = word_be(value).unwrap_or(0),
            attribute::TYPE => chain.kind = text(value),
            _ => {}
        }
    }
    Some(chain)
}

/// Type and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)? & !attribute::FLAGS;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn word_be(bytes: &[u8]) -> Option<u32> {
    word(bytes, 0).map(u32::from_be)
}

/// Up to the zero at its end.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn forward_chain() -> Vec<u8> {
        let mut body = vec![1, 0, 0, 0];
        body.extend(attribute(attribute::TABLE, b"filter\0"));
        body.extend(attribute(attribute::NAME, b"fwd\0"));
        let hook = attribute(attribute::HOOK_NUMBER, &2_u32.to_be_bytes());
        body.extend(attribute(attribute::HOOK | 0x8000, &hook));
        body.extend(attribute(attribute::POLICY, &0_u32.to_be_bytes()));
        body.extend(attribute(attribute::USE, &7_u32.to_be_bytes()));
        body.extend(attribute(attribute::TYPE, b"filter\0"));
        message(NEWCHAIN, &body)
    }

    #[test]
    fn a_chain_is_read() {
        let mut chains = Vec::new();
        let datagram = [forward_chain(), message(NLMSG_DONE, &[0; 4])].concat();
        assert!(take(&datagram, &mut chains).unwrap());
        let wanted = Chain {
            family: Family::Inet,
            table: "filter".to_owned(),
            name: "fwd".to_owned(),
            hook: Some(HookNumber(2)),
            kind: "filter".to_owned(),
            rules: 7,
            drops: true,
        };
        assert_eq!(chains, [wanted]);
    }

    #[test]
    fn errors_are_told_from_absence() {
        let error = |errno: i32| take(&message(NLMSG_ERROR, &(-errno).to_ne_bytes()), &mut Vec::new());
        assert!(error(libc::EINVAL).unwrap());
        assert_eq!(error(libc::EPERM).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn nothing_cut_short_is_read_past_its_end() {
        let whole = forward_chain();
        for end in 0..whole.len() {
            let _whatever = take(&whole[..end], &mut Vec::new());
            let _whatever = chain(&whole[HEADER.min(end)..end]);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                // A length of zero would not come to an end.
                let _whatever = take(&broken, &mut Vec::new());
            }
        }
    }
}
