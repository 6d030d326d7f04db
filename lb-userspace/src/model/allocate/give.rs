//! Addresses out of ranges, one for each family that is wanted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::desired::Family;
use super::range::{AddressRange, stable_hash};
use crate::source::kube::Name;

/// Addresses of Services, at most one for each family.
pub(super) type Given = BTreeMap<Name, Vec<IpAddr>>;

/// What could not be as it was, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Somebody else has the address that this Service had.
    Taken(IpAddr),
    /// The ranges of the family have no address left.
    Exhausted(Family),
}

/// Gives to each who wants one an address of that family: the one it had if that is free, else one by the hash of its
/// name. What is given is `used` afterwards.
pub(super) fn give<'a>(
    ranges: &[IpNet],
    earlier: &Given,
    used: &mut HashSet<IpAddr>,
    wanted: &[(&'a Name, Family)],
) -> (Given, Vec<(&'a Name, Trouble)>) {
    let mut given = Given::new();
    let mut troubles = Vec::new();
    let mut new = Vec::new();
    let is_in_range = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
    for &(name, family) in wanted {
        let had = earlier.get(name).into_iter().flatten().copied();
        match had.filter(|address| Family::of(*address) == family).find(is_in_range) {
            Some(address) if used.insert(address) => given.entry(name.clone()).or_default().push(address),
            Some(address) => {
                new.push((name, family));
                troubles.push((name, Trouble::Taken(address)));
            }
            None => new.push((name, family)),
        }
    }
    let mut exhausted = BTreeSet::new();
    for (name, family) in new {
        let mut of_family = ranges.iter().filter(|range| Family::of(range.addr()) == family);
        let found = if exhausted.contains(&family) {
            None
        } else {
            let hash = stable_hash(&[&name.namespace, &name.name]);
            of_family
                .find_map(|range| AddressRange::new(*range).pick(hash, |address| !used.contains(&address)))
        };
        match found {
            Some(address) => {
                used.insert(address);
                given.entry(name.clone()).or_default().push(address);
            }
            None => {
                exhausted.insert(family);
                troubles.push((name, Trouble::Exhausted(family)));
            }
        }
    }
    given.values_mut().for_each(|addresses| addresses.sort_unstable());
    (given, troubles)
}

/// Ranges of a family, or all, for people.
pub(super) fn list(ranges: &[IpNet], family: Option<Family>) -> String {
    let wanted = ranges.iter().filter(|range| family.is_none_or(|family| Family::of(range.addr()) == family));
    wanted.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
