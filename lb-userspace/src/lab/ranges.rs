//! Addresses of a lab: which ranges make sense, and who gets which address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::error::{Error, Result};
use super::labs::Options;

/// First address of a range that a pod may get, counted from the start: 0 is the network's, 1 is left to people who
/// expect a gateway there.
const FIRST: u128 = 2;

/// A range, or an address as the range of itself, with the option that moves it.
struct Claim {
    what: &'static str,
    option: &'static str,
    net: IpNet,
}

impl Claim {
    fn overlaps(&self, other: &Self) -> bool {
        self.net.contains(&other.net) || other.net.contains(&self.net)
    }

    fn text(&self) -> String {
        if self.net.prefix_len() == self.net.max_prefix_len() {
            format!("{} {}", self.what, self.net.addr())
        } else {
            format!("{} {}", self.what, self.net)
        }
    }
}

/// Says whether ranges and addresses can work together.
///
/// # Errors
/// No pod range, two of a family, or two that overlap.
pub(super) fn check(options: &Options) -> Result<()> {
    if options.pod_cidrs.is_empty() {
        return Err(Error::invalid("--pod-cidr", "needs at least one range"));
    }
    let ranges = [
        ("pod range", "--pod-cidr", &options.pod_cidrs),
        ("service range", "--service-cidr", &options.service_cidrs),
        ("load balancer pool", "--load-balancer-pool", &options.load_balancer_pool),
    ];
    for (_, option, ranges) in &ranges {
        if ranges.iter().filter(|range| is_v4(range)).count() > 1
            || ranges.iter().filter(|range| !is_v4(range)).count() > 1
        {
            return Err(Error::invalid(*option, "takes one range of each family at most"));
        }
    }
    if let Some(range) = options.pod_cidrs.iter().find(|range| capacity(range) == 0) {
        return Err(Error::invalid(format!("pod range {range}"), "has no room for a pod"));
    }
    let addresses = [
        ("node address", "--node-address", &options.node_addresses),
        ("outside address", "--outside-address", &options.outside_addresses),
    ];
    let ranges = ranges
        .into_iter()
        .flat_map(|(what, option, ranges)| ranges.iter().map(move |&net| Claim { what, option, net }));
    let addresses = addresses.into_iter().flat_map(|(what, option, addresses)| {
        addresses.iter().map(move |&address| Claim { what, option, net: address.into() })
    });
    let claims: Vec<Claim> = ranges.chain(addresses).collect();
    for (index, claim) in claims.iter().enumerate() {
        if let Some(other) = claims[index + 1..].iter().find(|other| claim.overlaps(other)) {
            let reason = match claim.option == other.option {
                true => format!("overlaps {}; `{}` takes them", other.text(), claim.option),
                false => format!(
                    "overlaps the {}; `{}` or `{}` moves one",
                    other.text(),
                    claim.option,
                    other.option
                ),
            };
            return Err(Error::invalid(claim.text(), reason));
        }
    }
    Ok(())
}

/// Addresses, one of each range, for the pod that is number `sequence` of all ever made; or the next number with
/// addresses that are free. An address comes again only after all others of its range had their turn.
///
/// # Errors
/// When a range is used up.
pub(super) fn allocate(
    ranges: &[IpNet],
    used: &BTreeSet<IpAddr>,
    sequence: u64,
) -> Result<(u64, Vec<IpAddr>)> {
    let capacity = ranges.iter().map(capacity).min().unwrap_or_default();
    let tries = capacity.min(used.len() as u128 + 1);
    for candidate in (sequence..).take(usize::try_from(tries).unwrap_or(usize::MAX)) {
        let offset = FIRST + u128::from(candidate) % capacity;
        let addresses: Vec<IpAddr> = ranges.iter().map(|range| nth(range, offset)).collect();
        if addresses.iter().all(|address| !used.contains(address)) {
            return Ok((candidate, addresses));
        }
    }
    let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    Err(Error::invalid(
        format!("pod range {}", ranges.join(" or ")),
        format!("has room for {capacity} pods and no more"),
    ))
}

/// How many pods have room in a range; its last address is a broadcast address.
fn capacity(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX).saturating_sub(FIRST + 1)
}

fn nth(range: &IpNet, offset: u128) -> IpAddr {
    match range.network() {
        // The offset is below the range's size, so it fits.
        IpAddr::V4(first) => {
            Ipv4Addr::from(u32::from(first).wrapping_add(u32::try_from(offset).unwrap_or_default())).into()
        }
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(offset)).into(),
    }
}

fn is_v4(range: &IpNet) -> bool {
    matches!(range, IpNet::V4(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ranges_that_clash_are_refused() {
        let check = |pods: &[&str], services: &[&str], pool: &[&str]| {
            super::check(&Options {
                pod_cidrs: nets(pods),
                service_cidrs: nets(services),
                load_balancer_pool: nets(pool),
                node_addresses: vec!["172.31.0.1".parse().unwrap()],
                outside_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
                ..Options::default()
            })
        };
        check(&["10.244.0.0/24", "fd00::/64"], &["10.96.0.0/16"], &["203.0.113.0/24"]).unwrap();
        for (pods, services, pool, part) in [
            (&[][..], &[][..], &[][..], "at least one"),
            (&["10.0.0.0/24", "10.1.0.0/24"], &[], &[], "one range of each family"),
            (&["10.96.1.0/24"], &["10.96.0.0/16"], &[], "overlaps the service range 10.96.0.0/16"),
            (&["10.0.0.0/8"], &["10.96.0.0/16"], &[], "`--pod-cidr` or `--service-cidr`"),
            (&["10.0.0.0/8"], &[], &["10.9.0.0/16"], "overlaps the load balancer pool 10.9.0.0/16"),
            (&["172.31.0.0/24"], &[], &[], "overlaps the node address 172.31.0.1"),
            (&["10.0.0.0/24"], &[], &["192.0.2.0/24"], "overlaps the outside address 192.0.2.1"),
            (&["10.0.0.0/31"], &[], &[], "no room"),
        ] {
            let message = check(pods, services, pool).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn an_address_is_not_given_again_at_once() {
        let ranges = nets(&["10.0.0.0/29", "fd00::/64"]);
        let mut used = BTreeSet::new();
        let mut sequence = 0;
        let mut given = Vec::new();
        for _ in 0..6 {
            let (number, addresses) = allocate(&ranges, &used, sequence).unwrap();
            sequence = number + 1;
            given.push(addresses[0].to_string());
        }
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]);
        for address in ["10.0.0.3", "10.0.0.4"] {
            used.insert(address.parse().unwrap());
        }
        assert_eq!(allocate(&ranges, &used, sequence).unwrap().1[0].to_string(), "10.0.0.5");
    }

    #[test]
    fn a_full_range_is_an_error() {
        let ranges = nets(&["10.0.0.0/29"]);
        let used = (2..=6).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let message = allocate(&ranges, &used, 3).unwrap_err().to_string();
        assert!(message.contains("10.0.0.0/29: has room for 5"), "{message}");
    }
}
