//! Surroundings to tables: classes of addresses, settings, and what they mean for the flags of frontends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lb_common::abi::{ClassKey, RangeV4, RangeV6, Settings, address_class, settings_flag};

use super::Options;
use super::words::{v4_word, v6_words, wide_prefix};
use crate::model::desired::{Family, Surroundings};

/// IPv4 as seen from a table of IPv6 prefixes (RFC 4291, section 2.5.5.2).
const MAPPED: Ipv6Net = match Ipv6Net::new(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96) {
    Ok(net) => net,
    Err(_) => panic!("96 is a prefix length"),
};

/// The contents of `CLASSES`. The kernel finds the longest prefix only, so each carries the bits of those around it.
/// Loopback counts as this node.
pub fn classes(surroundings: &Surroundings) -> BTreeMap<ClassKey, u32> {
    let mut bits: BTreeMap<IpNet, u32> = BTreeMap::new();
    let mut add = |net: IpNet, class: u32| *bits.entry(net.trunc()).or_default() |= class;
    for net in &surroundings.pod_cidrs {
        add(*net, address_class::POD);
    }
    for net in &surroundings.service_cidrs {
        add(*net, address_class::SERVICE_CIDR);
    }
    for addr in &surroundings.node_addresses {
        add(IpNet::from(*addr), address_class::NODE);
    }
    add(IpNet::V4(loopback_v4()), address_class::NODE);
    add(IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)), address_class::NODE);
    let all: Vec<(IpNet, u32)> = bits.iter().map(|(net, class)| (*net, *class)).collect();
    for (net, class) in &mut bits {
        for (around, more) in &all {
            if around.contains(net) {
                *class |= more;
            }
        }
    }
    // IPv4 shares the table in mapped form: an IPv6 range wide enough to hold that form must not catch it.
    let wide_v6 = all.iter().any(|(net, _)| matches!(net, IpNet::V6(net) if net.contains(&MAPPED)));
    let any_v4 = IpNet::V4(Ipv4Net::default());
    if wide_v6 {
        bits.entry(any_v4).or_default();
    }
    bits.into_iter()
        .map(|(net, class)| {
            let (addr, prefix_len) = wide_prefix(net);
            (ClassKey { prefix_len, addr }, class)
        })
        .collect()
}

fn loopback_v4() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)
}

/// The contents of `SETTINGS`.
pub fn settings(surroundings: &Surroundings, options: &Options) -> Settings {
    let mut settings = Settings {
        snat_port_first: options.snat_port_first,
        snat_port_count: options.snat_port_count,
        flags: if surroundings.no_vip_ping { settings_flag::NO_VIP_PING } else { 0 },
        ..Settings::default()
    };
    // The first of each family counts.
    for addr in surroundings.masquerade_addresses.iter().rev() {
        match addr {
            IpAddr::V4(addr) => settings.node_v4 = v4_word(*addr),
            IpAddr::V6(addr) => settings.node_v6 = v6_words(*addr),
        }
    }
    (settings.service_v4, settings.service_v6) = service_ranges(&surroundings.service_cidrs);
    settings
}

/// The service ranges for the filter's quick look: as many as there is room for, else everything.
fn service_ranges(ranges: &[IpNet]) -> ([RangeV4; 2], [RangeV6; 2]) {
    const NOTHING_V4: RangeV4 = RangeV4 { addr: u32::MAX, mask: 0 };
    const NOTHING_V6: RangeV6 = RangeV6 { addr: [u32::MAX; 4], mask: [0; 4] };
    let v4 = ranges.iter().filter_map(|range| match range {
        IpNet::V4(net) => Some(RangeV4 { addr: v4_word(net.network()), mask: v4_word(net.netmask()) }),
        IpNet::V6(_) => None,
    });
    let v6 = ranges.iter().filter_map(|range| match range {
        IpNet::V6(net) => Some(RangeV6 { addr: v6_words(net.network()), mask: v6_words(net.netmask()) }),
        IpNet::V4(_) => None,
    });
    (fill(v4, NOTHING_V4), fill(v6, NOTHING_V6))
}

/// `items` and then `nothing`; when they are too many, the default, which stands for everything.
fn fill<T: Copy + Default, const N: usize>(items: impl Iterator<Item = T>, nothing: T) -> [T; N] {
    let mut filled = [nothing; N];
    for (i, item) in items.enumerate() {
        match filled.get_mut(i) {
            Some(place) => *place = item,
            None => return [T::default(); N],
        }
    }
    filled
}

/// Whether pods of a family can be told from others (A2, F9).
pub fn knows_pods(surroundings: &Surroundings, family: Family) -> bool {
    surroundings.pod_cidrs.iter().any(|net| Family::of(net.addr()) == family)
}

/// The node's own addresses of a family as V7 means them: those it masquerades with, else all.
pub fn own_addresses(surroundings: &Surroundings, family: Family) -> Vec<IpAddr> {
    let of = |list: &[IpAddr]| -> Vec<IpAddr> {
        list.iter().copied().filter(|addr| Family::of(*addr) == family).collect()
    };
    let primary = of(&surroundings.masquerade_addresses);
    if primary.is_empty() { of(&surroundings.node_addresses) } else { primary }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::words::prefix;

    fn text(surroundings: &Surroundings) -> Vec<String> {
        classes(surroundings)
            .into_iter()
            .map(|(key, class)| format!("{} {class}", prefix(key.addr, key.prefix_len).unwrap()))
            .collect()
    }

    #[test]
    fn longer_prefixes_carry_the_bits_around_them() {
        let surroundings = Surroundings {
            node_addresses: vec!["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            pod_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            ..Surroundings::default()
        };
        let mut text = text(&surroundings);
        text.sort();
        assert_eq!(
            text,
            [
                "10.0.0.0/8 1",
                "10.1.0.0/16 1",
                "10.1.0.1/32 3",
                "10.96.0.0/12 5",
                "127.0.0.0/8 2",
                "::1/128 2",
                "fd00::1/128 2"
            ]
        );
    }

    #[test]
    fn a_range_of_all_ipv6_does_not_catch_ipv4() {
        let surroundings =
            Surroundings { pod_cidrs: vec!["::/0".parse().unwrap()], ..Surroundings::default() };
        let text = text(&surroundings);
        assert!(text.contains(&"0.0.0.0/0 0".to_owned()), "{text:?}");
        assert!(text.contains(&"127.0.0.0/8 2".to_owned()), "{text:?}");
        assert!(text.contains(&"::/0 1".to_owned()), "{text:?}");
    }
}
