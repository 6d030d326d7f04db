//! Which addresses of this node serve node ports (F6).

use std::net::IpAddr;

use ipnet::IpNet;

use super::config::{ModelConfig, NodePortAddresses};
use super::desired::Family;

/// The outcome of matching ranges with interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The ranges hold every address of the family.
    pub match_all: bool,
    /// The node's addresses inside, loopback included, in order.
    pub addresses: Vec<IpAddr>,
}

/// Ranges of one family; a family without any has the range of all its addresses.
fn ranges_of(ranges: &[IpNet], family: Family) -> Vec<IpNet> {
    let own: Vec<_> = ranges.iter().copied().filter(|range| Family::of(range.addr()) == family).collect();
    if own.is_empty() {
        return vec![match family {
            Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
            Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
        }];
    }
    own
}

/// Matches node addresses with `--nodeport-addresses` ranges.
pub fn select(ranges: &[IpNet], addresses: impl IntoIterator<Item = IpAddr>, family: Family) -> Selection {
    let ranges = ranges_of(ranges, family);
    let mut selected: Vec<_> = addresses
        .into_iter()
        .filter(|address| {
            Family::of(*address) == family && ranges.iter().any(|range| range.contains(address))
        })
        .collect();
    selected.sort_unstable();
    selected.dedup();
    Selection { match_all: ranges.iter().any(|range| range.prefix_len() == 0), addresses: selected }
}

/// True when the ranges hold an IPv4 loopback address.
pub fn contains_ipv4_loopback(ranges: &[IpNet]) -> bool {
    let loopback = IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8));
    ranges_of(ranges, Family::V4).iter().any(|range| range.contains(&loopback) || loopback.contains(range))
}

/// True for addresses that others can dial without naming an interface.
pub fn is_global(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

/// The addresses that node ports are served on.
pub fn node_port_addresses(config: &ModelConfig, family: Family) -> Vec<IpAddr> {
    let mut addresses = match &config.nodeport_addresses {
        NodePortAddresses::Primary => config.primary(family).into_iter().collect(),
        NodePortAddresses::Ranges(ranges) => select(ranges, config.node_addresses(), family).addresses,
    };
    addresses.retain(|address| is_global(*address));
    let loopback_selected = match &config.nodeport_addresses {
        NodePortAddresses::Primary => true,
        NodePortAddresses::Ranges(ranges) => contains_ipv4_loopback(ranges),
    };
    if config.localhost_nodeports && family == Family::V4 && loopback_selected {
        addresses.push(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::Interface;

    fn config() -> ModelConfig {
        ModelConfig {
            interfaces: vec![
                Interface {
                    name: "lo".to_owned(),
                    addresses: vec!["127.0.0.1/8".parse().unwrap(), "::1/128".parse().unwrap()],
                },
                Interface {
                    name: "eth0".to_owned(),
                    addresses: vec![
                        "10.0.0.5/24".parse().unwrap(),
                        "192.168.1.5/24".parse().unwrap(),
                        "fe80::5/64".parse().unwrap(),
                        "fd00::5/64".parse().unwrap(),
                    ],
                },
            ],
            primary: vec!["192.168.1.5".parse().unwrap()],
            ..ModelConfig::default()
        }
    }

    fn texts(config: &ModelConfig, family: Family) -> Vec<String> {
        node_port_addresses(config, family).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn f6_primary_is_the_address_on_the_default_route() {
        assert_eq!(texts(&config(), Family::V4), ["192.168.1.5"]);
        assert_eq!(texts(&config(), Family::V6), ["fd00::5"]);
    }

    #[test]
    fn f6_loopback_never_serves_node_ports() {
        let ranges =
            |texts: &[&str]| NodePortAddresses::Ranges(texts.iter().map(|t| t.parse().unwrap()).collect());
        let all = ModelConfig { nodeport_addresses: ranges(&[]), ..config() };
        assert_eq!(texts(&all, Family::V4), ["10.0.0.5", "192.168.1.5"]);
        assert_eq!(texts(&all, Family::V6), ["fd00::5"]);
        let loopback = ModelConfig { nodeport_addresses: ranges(&["127.0.0.0/8", "10.0.0.0/8"]), ..config() };
        assert_eq!(texts(&loopback, Family::V4), ["10.0.0.5"]);
    }

    #[test]
    fn localhost_node_ports_want_the_switch_and_a_range() {
        let ranges =
            |texts: &[&str]| NodePortAddresses::Ranges(texts.iter().map(|t| t.parse().unwrap()).collect());
        let with = |nodeport_addresses| {
            texts(&ModelConfig { localhost_nodeports: true, nodeport_addresses, ..config() }, Family::V4)
        };
        assert_eq!(with(ranges(&[])), ["10.0.0.5", "192.168.1.5", "127.0.0.1"]);
        assert_eq!(with(ranges(&["10.0.0.0/8", "127.0.0.1/32"])), ["10.0.0.5", "127.0.0.1"]);
        assert_eq!(with(ranges(&["10.0.0.0/8"])), ["10.0.0.5"]);
    }
}
