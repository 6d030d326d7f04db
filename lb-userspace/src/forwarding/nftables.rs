//! nftables' base chains, asked from the kernel (`NFT_MSG_GETCHAIN`, `linux/netfilter/nf_tables.h`): where they are
//! hooked and how many rules they have, without their rules, of which there may be thousands.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::rules::RulesError;
use crate::netlink::{ALL, ask, attributes, text, word};

/// `NFNL_SUBSYS_NFTABLES << 8`, with `NFT_MSG_NEWCHAIN` and `NFT_MSG_GETCHAIN`.
const NEWCHAIN: u16 = 10 << 8 | 3;
const GETCHAIN: u16 = 10 << 8 | 4;
/// Bytes of `struct nfgenmsg`: all families, version 0.
const GENERIC: usize = 4;

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
    let mut chains = Vec::new();
    let answer = ask(SockProtocol::NetlinkNetFilter, (GETCHAIN, ALL), &[0; GENERIC], &mut |kind, message| {
        take(kind, message, &mut chains);
    });
    match answer.map_err(|source| (source.raw_os_error().map(Errno::from_raw), source)) {
        // No netfilter at all, or no nftables.
        Ok(())
        | Err((Some(Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOENT), _)) => {
            Ok(chains)
        }
        Err((_, source)) => Err(RulesError { operation: "ask", source }),
    }
}

fn take(kind: u16, message: &[u8], chains: &mut Vec<Chain>) {
    if kind == NEWCHAIN {
        chains.extend(chain(message));
    }
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

fn word_be(bytes: &[u8]) -> Option<u32> {
    word(bytes, 0).map(u32::from_be)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tests::{done, message};
    use crate::netlink::{HEADER, attribute, take as messages};

    fn read(datagram: &[u8], chains: &mut Vec<Chain>) -> std::io::Result<bool> {
        messages(datagram, &mut |kind, message| take(kind, message, chains))
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
        let datagram = [forward_chain(), done()].concat();
        assert!(read(&datagram, &mut chains).unwrap());
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
    fn nothing_cut_short_is_read_past_its_end() {
        let whole = forward_chain();
        for end in 0..whole.len() {
            let _whatever = read(&whole[..end], &mut Vec::new());
            let _whatever = chain(&whole[HEADER.min(end)..end]);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                // A length of zero would not come to an end.
                let _whatever = read(&broken, &mut Vec::new());
            }
        }
    }
}
