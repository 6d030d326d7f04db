//! Addresses and node ports for Services that name none (Z2).
//!
//! What a Service gets is found by a hash of its name, so that it hardly depends on the others, and kept in a state file,
//! so that it stays when others come and go. An explicit address or port is always honoured: a Service that was given it
//! before moves, and that is said.

mod range;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::build::Note;
use super::desired::{Family, Protocol};
use super::services::{explicit_cluster_ips, is_headless, is_ours, port_number};
use crate::source::Objects;
use crate::source::kube::{Name, Service};
use crate::source::validate::parse_protocol;
use range::{AddressRange, stable_hash};
pub use state::StateError;
use state::StateFile;

/// The range that Kubernetes gives node ports from.
pub const DEFAULT_NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// What has been given to Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Cluster addresses, at most one for each family, for families without an explicit one.
    pub cluster_ips: BTreeMap<Name, Vec<IpAddr>>,
    /// Node ports by Service, port name and protocol, for ports without an explicit one.
    pub node_ports: BTreeMap<(Name, String, Protocol), u16>,
}

/// Gives addresses and node ports.
#[derive(Debug)]
pub struct Allocator {
    service_cidrs: Vec<IpNet>,
    node_ports: RangeInclusive<u16>,
    given: Allocations,
    file: Option<StateFile>,
    /// What the file holds, as far as that is known.
    saved: Option<Allocations>,
}

impl Allocator {
    /// An allocator for these ranges, and what it has to say about its state file. Without a file it starts from the hashes
    /// each time. A file that is missing, cannot be read or is corrupted counts as empty.
    pub fn open(
        service_cidrs: &[IpNet],
        node_ports: RangeInclusive<u16>,
        state_file: Option<PathBuf>,
    ) -> (Self, Option<StateError>) {
        let file = state_file.map(StateFile::new);
        let (given, error) = match file.as_ref().map(StateFile::load) {
            None => (Allocations::default(), None),
            Some(Ok(given)) => (given, None),
            Some(Err(error)) => (Allocations::default(), Some(error)),
        };
        // After an error the first save writes, whatever has been given.
        let saved = error.is_none().then(|| given.clone());
        (Self { service_cidrs: service_cidrs.to_vec(), node_ports, given, file, saved }, error)
    }

    /// Brings what is given in line with the Services there are, and says what could not be given or had to change.
    pub fn allocate(&mut self, objects: &Objects) -> (&Allocations, Vec<Note>) {
        let mut notes = Vec::new();
        let given = Allocations {
            cluster_ips: self.cluster_ips(objects, &mut notes),
            node_ports: self.node_ports(objects, &mut notes),
        };
        self.given = given;
        (&self.given, notes)
    }

    /// Writes the state file, if there is one and something has changed since the last time.
    ///
    /// # Errors
    /// When the file cannot be written; what was given stays in force, and the next call tries again.
    pub fn save(&mut self) -> Result<(), StateError> {
        if let Some(file) = &self.file
            && (self.saved.as_ref() != Some(&self.given) || !file.exists())
        {
            file.store(&self.given)?;
            self.saved = Some(self.given.clone());
        }
        Ok(())
    }

    fn cluster_ips(&self, objects: &Objects, notes: &mut Vec<Note>) -> BTreeMap<Name, Vec<IpAddr>> {
        let explicit = self.explicit(objects, notes);
        let mut used: HashSet<IpAddr> = explicit.keys().copied().collect();
        let mut kept: BTreeMap<Name, Vec<IpAddr>> = BTreeMap::new();
        let mut wanted = Vec::new();
        for (name, service) in objects.services.iter().filter(|(_, service)| is_ours(&service.metadata)) {
            for family in self.missing_families(name, service, notes) {
                let earlier = self.given.cluster_ips.get(name).into_iter().flatten().copied();
                match earlier.filter(|address| Family::of(*address) == family).find(|a| self.is_in_range(*a))
                {
                    Some(address) if used.insert(address) => {
                        kept.entry(name.clone()).or_default().push(address)
                    }
                    Some(address) => {
                        wanted.push((name, family));
                        let owner = explicit.get(&address).map(|owner| format!("Service {owner} asks for"));
                        let reason = format!(
                            "{} {address}, which this Service had: it gets another",
                            owner.as_deref().unwrap_or("another Service has")
                        );
                        notes.push(Note::service(name, "spec.clusterIP", reason));
                    }
                    None => wanted.push((name, family)),
                }
            }
        }
        let mut exhausted = BTreeSet::new();
        for (name, family) in wanted {
            let ranges = self.service_cidrs.iter().filter(|range| Family::of(range.addr()) == family);
            let found = if exhausted.contains(&family) {
                None
            } else {
                let hash = stable_hash(&[&name.namespace, &name.name]);
                ranges.clone().find_map(|range| {
                    AddressRange::new(*range).pick(hash, |address| !used.contains(&address))
                })
            };
            match found {
                Some(address) => {
                    used.insert(address);
                    kept.entry(name.clone()).or_default().push(address);
                }
                None => {
                    exhausted.insert(family);
                    let ranges: Vec<_> = ranges.map(ToString::to_string).collect();
                    let reason = format!("no address left in {}: not served", ranges.join(", "));
                    notes.push(Note::service(name, "spec.clusterIP", reason));
                }
            }
        }
        for addresses in kept.values_mut() {
            addresses.sort_unstable();
        }
        kept
    }

    /// Explicit addresses and who has them.
    fn explicit<'a>(&self, objects: &'a Objects, notes: &mut Vec<Note>) -> HashMap<IpAddr, &'a Name> {
        let mut explicit: HashMap<IpAddr, &Name> = HashMap::new();
        for (name, service) in objects.services.iter().filter(|(_, service)| !is_headless(service)) {
            for address in explicit_cluster_ips(service) {
                if let Some(owner) = explicit.get(&address) {
                    let reason = format!("{address} is the address of Service {owner}, too");
                    notes.push(Note::service(name, "spec.clusterIP", reason));
                    continue;
                }
                explicit.insert(address, name);
                if !self.service_cidrs.is_empty() && !self.is_in_range(address) {
                    let ranges: Vec<_> = self.service_cidrs.iter().map(ToString::to_string).collect();
                    let reason = format!(
                        "{address} is outside the service range {}: used all the same",
                        ranges.join(", ")
                    );
                    notes.push(Note::service(name, "spec.clusterIP", reason));
                }
            }
        }
        explicit
    }

    fn is_in_range(&self, address: IpAddr) -> bool {
        self.service_cidrs.iter().any(|range| range.contains(&address))
    }

    /// Families that a Service wants an address of and has none.
    fn missing_families(&self, name: &Name, service: &Service, notes: &mut Vec<Note>) -> Vec<Family> {
        if is_headless(service) {
            return Vec::new();
        }
        let spec = &service.spec;
        let explicit: Vec<_> = explicit_cluster_ips(service).into_iter().map(Family::of).collect();
        let mut available: Vec<Family> = Vec::new();
        for family in self.service_cidrs.iter().map(|range| Family::of(range.addr())) {
            if !available.contains(&family) {
                available.push(family);
            }
        }
        let mut wanted: Vec<Family> = spec.ip_families.iter().filter_map(|text| family_named(text)).collect();
        let policy = spec.ip_family_policy.as_deref();
        if matches!(policy, Some("PreferDualStack" | "RequireDualStack")) {
            let required = policy == Some("RequireDualStack");
            for family in [Family::V4, Family::V6] {
                if !wanted.contains(&family) && (required || available.contains(&family)) {
                    wanted.push(family);
                }
            }
        } else if !explicit.is_empty() {
            return Vec::new();
        } else if wanted.is_empty() {
            wanted.extend(available.first().copied());
            if wanted.is_empty() {
                let reason = "none is given and there is no service range to take one from: not served";
                notes.push(Note::service(name, "spec.clusterIP", reason));
            }
        }
        wanted.retain(|family| {
            let missing = !explicit.contains(family);
            let served = available.contains(family);
            if missing && !served && policy != Some("PreferDualStack") {
                let family = if *family == Family::V4 { "IPv4" } else { "IPv6" };
                let reason = format!("there is no {family} service range: not served in that family");
                notes.push(Note::service(name, "spec.ipFamilies", reason));
            }
            missing && served
        });
        wanted
    }

    fn node_ports(
        &self,
        objects: &Objects,
        notes: &mut Vec<Note>,
    ) -> BTreeMap<(Name, String, Protocol), u16> {
        let mut used: HashSet<u16> = HashSet::new();
        let mut wanted = Vec::new();
        for (name, service) in &objects.services {
            let spec = &service.spec;
            let needs_ports = match spec.type_.as_deref() {
                Some("NodePort") => true,
                Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
                _ => false,
            };
            for (index, port) in spec.ports.iter().enumerate() {
                if let Some(number) = port.node_port.and_then(port_number) {
                    used.insert(number);
                    if needs_ports && !self.node_ports.contains(&number) {
                        let (low, high) = (self.node_ports.start(), self.node_ports.end());
                        let reason = format!(
                            "{number} is outside the node port range {low}-{high}: used all the same"
                        );
                        notes.push(Note::service(name, &format!("spec.ports[{index}].nodePort"), reason));
                    }
                } else if needs_ports
                    && is_ours(&service.metadata)
                    && !is_headless(service)
                    && let Ok(protocol) = parse_protocol(port.protocol.as_deref())
                {
                    wanted.push((index, (name.clone(), port.name.clone().unwrap_or_default(), protocol)));
                }
            }
        }
        let mut ports = BTreeMap::new();
        wanted.retain(|(index, key)| match self.given.node_ports.get(key) {
            Some(number) if self.node_ports.contains(number) => {
                let free = used.insert(*number);
                if free {
                    ports.insert(key.clone(), *number);
                } else {
                    let reason =
                        format!("another Service asks for {number}, which this one had: it gets another");
                    notes.push(Note::service(&key.0, &format!("spec.ports[{index}].nodePort"), reason));
                }
                !free
            }
            _ => true,
        });
        for (index, key) in wanted {
            match self.free_port(&key, &used) {
                Some(number) => {
                    used.insert(number);
                    ports.insert(key, number);
                }
                None => {
                    let (low, high) = (self.node_ports.start(), self.node_ports.end());
                    let reason = format!("no port left in {low}-{high}: no node port");
                    notes.push(Note::service(&key.0, &format!("spec.ports[{index}].nodePort"), reason));
                }
            }
        }
        ports
    }

    fn free_port(
        &self,
        (name, port, protocol): &(Name, String, Protocol),
        used: &HashSet<u16>,
    ) -> Option<u16> {
        let (low, count) = (u64::from(*self.node_ports.start()), self.node_ports.len() as u64);
        let hash = stable_hash(&[&name.namespace, &name.name, port, &protocol.to_string()]);
        (0..count)
            .filter_map(|step| u16::try_from(low + (hash % count + step) % count).ok())
            .find(|number| !used.contains(number))
    }
}

fn family_named(text: &str) -> Option<Family> {
    match text {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
