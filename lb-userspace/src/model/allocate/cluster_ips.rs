//! ClusterIPs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::super::build::Note;
use super::super::config::families_of;
use super::super::desired::Family;
use super::super::services::{explicit_cluster_ips, is_dual_stack, is_headless, is_ours, wanted_families};
use super::Allocator;
use super::give::{Trouble, give, list};
use crate::source::Objects;
use crate::source::kube::{Name, Service};

const FIELD: &str = "spec.clusterIP";

impl Allocator {
    pub(super) fn cluster_ips(
        &self,
        objects: &Objects,
        notes: &mut Vec<Note>,
    ) -> BTreeMap<Name, Vec<IpAddr>> {
        let explicit = self.explicit(objects, notes);
        let mut used: HashSet<IpAddr> = explicit.keys().copied().collect();
        let mut wanted = Vec::new();
        for (name, service) in objects.services.iter().filter(|(_, service)| is_ours(&service.metadata)) {
            wanted
                .extend(self.missing_families(name, service, notes).into_iter().map(|family| (name, family)));
        }
        let (given, troubles) = give(&self.ranges.service_cidrs, &self.given.cluster_ips, &mut used, &wanted);
        for (name, trouble) in troubles {
            let reason = match trouble {
                Trouble::Taken(address) => {
                    let owner = explicit.get(&address).map(|owner| format!("Service {owner} asks for"));
                    let owner = owner.as_deref().unwrap_or("another Service has");
                    format!("{owner} {address}, which this Service had: it gets another")
                }
                Trouble::Exhausted(family) => {
                    let ranges = list(&self.ranges.service_cidrs, Some(family));
                    format!("no address left in {ranges}: not served")
                }
            };
            notes.push(Note::service(name, FIELD, reason));
        }
        given
    }

    /// Explicit addresses and who has them.
    fn explicit<'a>(&self, objects: &'a Objects, notes: &mut Vec<Note>) -> HashMap<IpAddr, &'a Name> {
        let mut explicit: HashMap<IpAddr, &Name> = HashMap::new();
        for (name, service) in objects.services.iter().filter(|(_, service)| !is_headless(service)) {
            for address in explicit_cluster_ips(service) {
                if let Some(owner) = explicit.get(&address) {
                    let reason = format!("{address} is the address of Service {owner}, too");
                    notes.push(Note::service(name, FIELD, reason));
                    continue;
                }
                explicit.insert(address, name);
                if !self.ranges.service_cidrs.is_empty() && !self.is_in_range(address) {
                    let ranges = list(&self.ranges.service_cidrs, None);
                    let reason =
                        format!("{address} is outside the service range {ranges}: used all the same");
                    notes.push(Note::service(name, FIELD, reason));
                }
            }
        }
        explicit
    }

    fn is_in_range(&self, address: IpAddr) -> bool {
        self.ranges.service_cidrs.iter().any(|range| range.contains(&address))
    }

    /// Families that a Service wants an address of and has none.
    fn missing_families(&self, name: &Name, service: &Service, notes: &mut Vec<Note>) -> Vec<Family> {
        if is_headless(service) {
            return Vec::new();
        }
        let explicit: Vec<_> = explicit_cluster_ips(service).into_iter().map(Family::of).collect();
        if !explicit.is_empty() && !is_dual_stack(service) {
            return Vec::new();
        }
        let available = families_of(&self.ranges.service_cidrs);
        let mut wanted = wanted_families(service, &available);
        if wanted.is_empty() && explicit.is_empty() {
            let reason = "none is given and there is no service range to take one from: not served";
            notes.push(Note::service(name, FIELD, reason));
        }
        let policy = service.spec.ip_family_policy.as_deref();
        wanted.retain(|family| {
            let missing = !explicit.contains(family);
            let served = available.contains(family);
            if missing && !served && policy != Some("PreferDualStack") {
                let family = family_name(*family);
                let reason = format!("there is no {family} service range: not served in that family");
                notes.push(Note::service(name, "spec.ipFamilies", reason));
            }
            missing && served
        });
        wanted
    }
}

pub(super) fn family_name(family: Family) -> &'static str {
    if family == Family::V4 { "IPv4" } else { "IPv6" }
}
