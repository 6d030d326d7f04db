//! The file that remembers what was given.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Allocations;
use crate::model::desired::Protocol;
use crate::private_file;
use crate::source::kube::Name;
use crate::source::validate::parse_protocol;

/// Version of the file's format.
const VERSION: u32 = 1;

/// What can go wrong with the state file.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("state file {path}: cannot be read: {source}; addresses and node ports are found anew by hash")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("state file {path}: corrupted: {reason}; addresses and node ports are found anew by hash")]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
    /// It cannot be written.
    #[error("state file {path}: cannot be written: {source}; after a restart addresses may differ")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Contents {
    version: u32,
    services: BTreeMap<String, ServiceState>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceState {
    #[serde(rename = "clusterIPs", default, skip_serializing_if = "Vec::is_empty")]
    cluster_ips: Vec<IpAddr>,
    #[serde(rename = "loadBalancerIPs", default, skip_serializing_if = "Vec::is_empty")]
    load_balancer_ips: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health_check_node_port: Option<u16>,
    /// By `port name/PROTOCOL`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    node_ports: BTreeMap<String, u16>,
}

#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// A missing file holds nothing.
    pub(super) fn load(&self) -> Result<Allocations, StateError> {
        let path = || self.path.clone();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Allocations::default()),
            Err(source) => return Err(StateError::Read { path: path(), source }),
        };
        let contents: Contents = serde_json::from_slice(&bytes)
            .map_err(|error| StateError::Corrupted { path: path(), reason: error.to_string() })?;
        if contents.version != VERSION {
            let reason = format!("version {} is not {VERSION}", contents.version);
            return Err(StateError::Corrupted { path: path(), reason });
        }
        contents.into_allocations().map_err(|reason| StateError::Corrupted { path: path(), reason })
    }

    /// Replaces the file as a whole, readable by its owner only.
    pub(super) fn store(&self, allocations: &Allocations) -> Result<(), StateError> {
        let write = || -> io::Result<()> {
            let mut bytes = serde_json::to_vec_pretty(&Contents::from(allocations))?;
            bytes.push(b'\n');
            private_file::replace(&self.path, &bytes)
        };
        write().map_err(|source| StateError::Write { path: self.path.clone(), source })
    }
}

impl Contents {
    fn into_allocations(self) -> Result<Allocations, String> {
        let mut allocations = Allocations::default();
        for (service, state) in self.services {
            let (namespace, name) =
                service.split_once('/').ok_or_else(|| format!("{service:?} is no Service"))?;
            let name = Name::new(namespace, name);
            for (port, number) in state.node_ports {
                let key = port.rsplit_once('/').and_then(|(port, protocol)| {
                    Some((name.clone(), port.to_owned(), parse_protocol(Some(protocol)).ok()?))
                });
                allocations.node_ports.insert(key.ok_or_else(|| format!("{port:?} is no port"))?, number);
            }
            if let Some(port) = state.health_check_node_port {
                allocations.health_check_node_ports.insert(name.clone(), port);
            }
            if !state.load_balancer_ips.is_empty() {
                allocations.load_balancer_ips.insert(name.clone(), state.load_balancer_ips);
            }
            if !state.cluster_ips.is_empty() {
                allocations.cluster_ips.insert(name, state.cluster_ips);
            }
        }
        Ok(allocations)
    }
}

impl From<&Allocations> for Contents {
    fn from(allocations: &Allocations) -> Self {
        let mut services: BTreeMap<String, ServiceState> = BTreeMap::new();
        for (name, addresses) in &allocations.cluster_ips {
            services.entry(name.to_string()).or_default().cluster_ips.clone_from(addresses);
        }
        for (name, addresses) in &allocations.load_balancer_ips {
            services.entry(name.to_string()).or_default().load_balancer_ips.clone_from(addresses);
        }
        for (name, port) in &allocations.health_check_node_ports {
            services.entry(name.to_string()).or_default().health_check_node_port = Some(*port);
        }
        let key = |port: &str, protocol: Protocol| format!("{port}/{protocol}");
        for ((name, port, protocol), number) in &allocations.node_ports {
            services.entry(name.to_string()).or_default().node_ports.insert(key(port, *protocol), *number);
        }
        Self { version: VERSION, services }
    }
}
