//! The host's rules that see forwarded packets: nftables (which iptables is a front of, mostly), and the iptables of old.

use std::fmt;
use std::fs;
use std::io;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::nftables::{self, Chain};
use crate::netlink;

/// Tables of the iptables of old that see forwarded packets; `nat` only changes addresses of what is dialled.
const LEGACY: [&str; 4] = ["filter", "mangle", "raw", "security"];
/// Where it says which tables there are in this network namespace, once one has been used.
const LEGACY_NAMES: [(&str, &str); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables"),
];
/// Multicast group of nftables' changes (`NFNLGRP_NFTABLES`, `linux/netfilter/nfnetlink.h`).
const CHANGES: u32 = 7;

/// The rules cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} about this host's packet rules: {source}")]
pub struct RulesError {
    /// What was tried.
    pub operation: &'static str,
    /// The kernel's reason.
    pub source: io::Error,
}

/// Chains and tables that see forwarded packets, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<String>);

impl Rules {
    /// Of these names.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        names.dedup();
        Self(names)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// The rules of the current network namespace that see forwarded packets.
///
/// # Errors
/// When the kernel does not say: not root.
pub fn look() -> Result<Rules, RulesError> {
    let mut names: Vec<String> =
        nftables::chains()?.iter().filter(|chain| sees_forwarded(chain)).map(describe).collect();
    for (path, program) in LEGACY_NAMES {
        // Not there: the kernel has none of it.
        let tables = fs::read_to_string(path).unwrap_or_default();
        names.extend(
            tables.lines().filter(|table| LEGACY.contains(table)).map(|table| format!("{program} {table}")),
        );
    }
    Ok(Rules::of(names))
}

/// Whether a forwarded packet meets something there: a rule, or a policy that drops.
fn sees_forwarded(chain: &Chain) -> bool {
    chain.hook.is_some_and(|hook| hook.on_the_way_through(chain.family))
        && chain.kind == "filter"
        && (chain.rules > 0 || chain.drops)
}

fn describe(chain: &Chain) -> String {
    let policy = if chain.drops { ", policy drop" } else { "" };
    let rules = if chain.rules == 1 { "1 rule".to_owned() } else { format!("{} rules", chain.rules) };
    format!("{} {} {} ({rules}{policy})", chain.family.name(), chain.table, chain.name)
}

/// Tells when nftables' rules change.
pub struct Watcher(netlink::Watcher);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

impl Watcher {
    /// Begins to listen in the current network namespace; to be called inside a runtime.
    ///
    /// # Errors
    /// When the kernel has no nftables, or refuses.
    pub fn new() -> Result<Self, RulesError> {
        netlink::Watcher::new(NETLINK_NETFILTER, CHANGES)
            .map(Self)
            .map_err(|source| RulesError { operation: "listen to changes", source })
    }

    /// Waits until something has changed: what, is not told.
    pub async fn changed(&mut self) {
        self.0.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::nftables::{Family, HookNumber};
    use super::*;

    fn chain(family: Family, hook: u32, kind: &str, rules: u32, drops: bool) -> Chain {
        Chain {
            family,
            table: "t".to_owned(),
            name: "c".to_owned(),
            hook: Some(HookNumber(hook)),
            kind: kind.to_owned(),
            rules,
            drops,
        }
    }

    #[test]
    fn what_forwarded_packets_meet_counts() {
        for (chain, counts) in [
            (chain(Family::Inet, 2, "filter", 1, false), true),
            (chain(Family::Ipv4, 2, "filter", 0, true), true),
            (chain(Family::Ipv6, 0, "filter", 3, false), true),
            (chain(Family::Inet, 4, "filter", 1, false), true),
            (chain(Family::Netdev, 0, "filter", 1, false), true),
            // Empty; for packets to and from this host; only for what is dialled; other packets.
            (chain(Family::Inet, 2, "filter", 0, false), false),
            (chain(Family::Inet, 1, "filter", 5, true), false),
            (chain(Family::Inet, 3, "filter", 5, true), false),
            (chain(Family::Ipv4, 4, "nat", 1, false), false),
            (chain(Family::Arp, 0, "filter", 1, false), false),
        ] {
            assert_eq!(sees_forwarded(&chain), counts, "{chain:?}");
        }
        let unhooked = Chain { hook: None, ..chain(Family::Inet, 2, "filter", 1, false) };
        assert!(!sees_forwarded(&unhooked));
    }
}
