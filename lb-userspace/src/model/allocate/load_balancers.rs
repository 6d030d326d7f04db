//! Addresses for Services of type LoadBalancer, out of a pool, where nobody else gives them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::super::build::Note;
use super::super::config::families_of;
use super::super::desired::Family;
use super::super::services::{explicit_cluster_ips, is_headless, is_ours};
use super::cluster_ips::family_name;
use super::give::{Trouble, give, list};
use super::{Allocations, Allocator};
use crate::source::Objects;
use crate::source::address::parse_ip;
use crate::source::kube::{Name, Service};

const FIELD: &str = "status.loadBalancer.ingress";

/// Wants an address from the pool. One whose status has an address has it from somebody else, and one with a class belongs
/// to somebody else (`spec.loadBalancerClass` of the Kubernetes API).
fn is_for_pool(service: &Service) -> bool {
    service.spec.type_.as_deref() == Some("LoadBalancer")
        && service.spec.load_balancer_class.is_none()
        && service.status.load_balancer.ingress.is_empty()
        && is_ours(&service.metadata)
        && !is_headless(service)
}

impl Allocator {
    /// One address for each family that the Service has a cluster address of and the pool has a range of.
    pub(super) fn load_balancer_ips(
        &self,
        objects: &Objects,
        cluster_ips: &BTreeMap<Name, Vec<IpAddr>>,
        notes: &mut Vec<Note>,
    ) -> BTreeMap<Name, Vec<IpAddr>> {
        let pool = &self.ranges.load_balancer_pool;
        if pool.is_empty() {
            return BTreeMap::new();
        }
        let owners = owners(objects);
        let available = families_of(pool);
        let mut wanted = Vec::new();
        for (name, service) in objects.services.iter().filter(|(_, service)| is_for_pool(service)) {
            let allocated = cluster_ips.get(name).into_iter().flatten().copied();
            let families: Vec<Family> =
                explicit_cluster_ips(service).into_iter().chain(allocated).map(Family::of).collect();
            let served = available.iter().filter(|family| families.contains(family));
            let before = wanted.len();
            wanted.extend(served.map(|family| (name, *family)));
            if let (true, Some(family)) = (wanted.len() == before, families.first()) {
                let family = family_name(*family);
                let reason = format!("the pool {} has no {family} range: no address", list(pool, None));
                notes.push(Note::service(name, FIELD, reason));
            }
        }
        let mut used = owners.keys().copied().collect();
        let (given, troubles) = give(pool, &self.given.load_balancer_ips, &mut used, &wanted);
        for (name, trouble) in troubles {
            let reason = match trouble {
                Trouble::Taken(address) => {
                    let owner = owners.get(&address).map(|owner| format!("Service {owner} has"));
                    let owner = owner.as_deref().unwrap_or("another Service has");
                    format!("{owner} {address}, which this Service had: it gets another")
                }
                Trouble::Exhausted(family) => {
                    format!("no address left in the pool {}: no address", list(pool, Some(family)))
                }
            };
            notes.push(Note::service(name, FIELD, reason));
        }
        given
    }
}

/// Addresses that Services have without the pool, and who has them: those that others gave, and external ones.
fn owners(objects: &Objects) -> HashMap<IpAddr, &Name> {
    let mut owners = HashMap::new();
    for (name, service) in &objects.services {
        let ingress = service.status.load_balancer.ingress.iter().filter_map(|ingress| ingress.ip.as_ref());
        for text in ingress.chain(&service.spec.external_ips) {
            if let Ok(parsed) = parse_ip(text) {
                owners.insert(parsed.value, name);
            }
        }
    }
    owners
}

impl Allocations {
    /// Whether the pool is what gives this Service its load balancer addresses, and which.
    pub fn from_pool(&self, service: &Service) -> &[IpAddr] {
        match is_for_pool(service) {
            true => self.load_balancer_ips.get(&service.metadata.full_name()).map_or(&[], Vec::as_slice),
            false => &[],
        }
    }
}
