//! Addresses of a lab: which ranges make sense, and who gets which address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::error::{Error, Result};

/// First address of a range that a pod may get, counted from the start: 0 is the network's, 1 is left to people who
/// expect a gateway there.
const FIRST: u128 = 2;

/// Says whether these ranges can work together.
///
/// # Errors
/// No pod range, two of a family, ranges that overlap, or a node address inside one.
pub(super) fn check(pods: &[IpNet], services: &[IpNet], node: &[IpAddr]) -> Result<()> {
    if pods.is_empty() {
        return Err(Error::invalid("--pod-cidr", "needs at least one range"));
    }
    for (option, ranges) in [("--pod-cidr", pods), ("--service-cidr", services)] {
        if ranges.iter().filter(|range| is_v4(range)).count() > 1
            || ranges.iter().filter(|range| !is_v4(range)).count() > 1
        {
            return Err(Error::invalid(option, "takes one range of each family at most"));
        }
    }
    for pod in pods {
        if capacity(pod) == 0 {
            return Err(Error::invalid(format!("pod range {pod}"), "has no room for a pod"));
        }
        if let Some(service) = services.iter().find(|service| service.contains(pod) || pod.contains(*service))
        {
            return Err(Error::invalid(
                format!("pod range {pod}"),
                format!("overlaps the service range {service}; `--pod-cidr` or `--service-cidr` moves one"),
            ));
        }
    }
    for range in pods.iter().chain(services) {
        if let Some(address) = node.iter().find(|&address| range.contains(address)) {
            return Err(Error::invalid(
                format!("node address {address}"),
                format!("is inside the range {range}; `--node-address` moves it"),
            ));
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
        let node: Vec<IpAddr> = vec!["172.31.0.1".parse().unwrap()];
        let good = nets(&["10.244.0.0/24", "fd00::/64"]);
        check(&good, &nets(&["10.96.0.0/16"]), &node).unwrap();
        for (pods, services, part) in [
            (nets(&[]), nets(&[]), "at least one"),
            (nets(&["10.0.0.0/24", "10.1.0.0/24"]), nets(&[]), "one range of each family"),
            (nets(&["10.96.1.0/24"]), nets(&["10.96.0.0/16"]), "overlaps"),
            (nets(&["10.0.0.0/8"]), nets(&["10.96.0.0/16"]), "overlaps"),
            (nets(&["172.31.0.0/24"]), nets(&[]), "node address"),
            (nets(&["10.0.0.0/31"]), nets(&[]), "no room"),
        ] {
            let message = check(&pods, &services, &node).unwrap_err().to_string();
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
