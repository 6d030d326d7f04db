//! Addresses and node ports for Services that name none (Z2).
//!
//! What a Service gets is found by a hash of its name, so that it hardly depends on the others, and kept in a state file,
//! so that it stays when others come and go. An explicit address or port is always honoured: a Service that was given it
//! before moves, and that is said.

mod cluster_ips;
mod give;
mod load_balancers;
mod ports;
mod range;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::build::Note;
use super::desired::Protocol;
use crate::source::Objects;
use crate::source::kube::Name;
pub use state::StateError;
use state::StateFile;

/// The range that Kubernetes gives node ports from.
pub const DEFAULT_NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// What there is to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// Ranges of cluster addresses.
    pub service_cidrs: Vec<IpNet>,
    /// Ranges of addresses for Services of type LoadBalancer; without any they get none here.
    pub load_balancer_pool: Vec<IpNet>,
    /// Node ports and ports of health checks.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { service_cidrs: Vec::new(), load_balancer_pool: Vec::new(), node_ports: DEFAULT_NODE_PORTS }
    }
}

impl Ranges {
    /// A range of the load balancer pool and one of the service ranges that have addresses in common: nobody could tell
    /// whose such an address is.
    pub fn overlap(&self) -> Option<(IpNet, IpNet)> {
        let pairs = self
            .load_balancer_pool
            .iter()
            .flat_map(|pool| self.service_cidrs.iter().map(move |service| (*pool, *service)));
        pairs.into_iter().find(|(pool, service)| pool.contains(service) || service.contains(pool))
    }
}

/// What has been given to Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Cluster addresses, at most one for each family, for families without an explicit one.
    pub cluster_ips: BTreeMap<Name, Vec<IpAddr>>,
    /// Load balancer addresses, at most one for each family, for Services that nobody else gave one.
    pub load_balancer_ips: BTreeMap<Name, Vec<IpAddr>>,
    /// Node ports by Service, port name and protocol, for ports without an explicit one.
    pub node_ports: BTreeMap<(Name, String, Protocol), u16>,
    /// Ports of health checks (H1), for Services that want one and name none.
    pub health_check_node_ports: BTreeMap<Name, u16>,
}

impl Allocations {
    /// Services that have something else in the other.
    fn differing(&self, other: &Self) -> BTreeSet<Name> {
        fn keys<'a, K: Ord, V: PartialEq>(
            one: &'a BTreeMap<K, V>,
            other: &'a BTreeMap<K, V>,
        ) -> impl Iterator<Item = &'a K> {
            let changed = one.iter().filter(|(key, value)| other.get(key) != Some(value));
            changed.map(|(key, _)| key).chain(other.keys().filter(|key| !one.contains_key(key)))
        }
        let ports = keys(&self.node_ports, &other.node_ports).map(|(name, ..)| name);
        keys(&self.cluster_ips, &other.cluster_ips)
            .chain(keys(&self.load_balancer_ips, &other.load_balancer_ips))
            .chain(keys(&self.health_check_node_ports, &other.health_check_node_ports))
            .chain(ports)
            .cloned()
            .collect()
    }
}

/// Gives addresses and node ports.
#[derive(Debug)]
pub struct Allocator {
    ranges: Ranges,
    given: Allocations,
    file: Option<StateFile>,
    /// The file holds just that.
    is_saved: bool,
    /// Services that the last call gave something else.
    reallocated: BTreeSet<Name>,
}

impl Allocator {
    /// An allocator for these ranges, and what it has to say about its state file. Without a file it starts from the hashes
    /// each time. A file that is missing, cannot be read or is corrupted counts as empty.
    pub fn open(ranges: Ranges, state_file: Option<PathBuf>) -> (Self, Option<StateError>) {
        let file = state_file.map(StateFile::new);
        let (given, error) = match file.as_ref().map(StateFile::load) {
            None => (Allocations::default(), None),
            Some(Ok(given)) => (given, None),
            Some(Err(error)) => (Allocations::default(), Some(error)),
        };
        // After an error the first save writes, whatever has been given.
        let is_saved = error.is_none();
        (Self { ranges, given, file, is_saved, reallocated: BTreeSet::new() }, error)
    }

    /// Brings what is given in line with the Services there are, and says what could not be given or had to change.
    pub fn allocate(&mut self, objects: &Objects) -> (&Allocations, Vec<Note>) {
        let mut notes = Vec::new();
        let cluster_ips = self.cluster_ips(objects, &mut notes);
        let load_balancer_ips = self.load_balancer_ips(objects, &cluster_ips, &mut notes);
        let mut given = Allocations { cluster_ips, load_balancer_ips, ..Allocations::default() };
        self.ports(objects, &mut given, &mut notes);
        self.is_saved &= given == self.given;
        self.reallocated = given.differing(&self.given);
        self.given = given;
        (&self.given, notes)
    }

    /// What is given.
    pub fn given(&self) -> &Allocations {
        &self.given
    }

    /// Services that have something else since the last call of [`Self::allocate`].
    pub fn reallocated(&self) -> &BTreeSet<Name> {
        &self.reallocated
    }

    /// Writes the state file, if there is one and something has changed since the last time.
    ///
    /// # Errors
    /// When the file cannot be written; what was given stays in force, and the next call tries again.
    pub fn save(&mut self) -> Result<(), StateError> {
        if let Some(file) = &self.file
            && (!self.is_saved || !file.exists())
        {
            self.is_saved = false;
            file.store(&self.given)?;
            self.is_saved = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
