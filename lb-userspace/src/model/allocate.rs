//! Addresses and node ports for Services that name none (Z2).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::desired::Protocol;
use crate::source::kube::Name;

/// What has been given to Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Cluster addresses, at most one for each family, for families without an explicit one.
    pub cluster_ips: BTreeMap<Name, Vec<IpAddr>>,
    /// Node ports by Service, port name and protocol, for ports without an explicit one.
    pub node_ports: BTreeMap<(Name, String, Protocol), u16>,
}
