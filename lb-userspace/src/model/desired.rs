//! Desired state: everything the dataplane should do, free of numbers, slots and maps.
//!
//! The model makes it from Kubernetes objects, the planner turns it into table contents, DNS and `lb explain` read it.
//! Its order is fixed by its contents, so that the same objects always give the same tables.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;
use ipnet::IpNet;
use serde::Serialize;

/// Transport protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP, the default of Kubernetes.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => lb_common::abi::protocol::TCP,
            Self::Udp => lb_common::abi::protocol::UDP,
            Self::Sctp => lb_common::abi::protocol::SCTP,
        }
    }

    /// The protocol with this IP protocol number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            lb_common::abi::protocol::TCP => Some(Self::Tcp),
            lb_common::abi::protocol::UDP => Some(Self::Udp),
            lb_common::abi::protocol::SCTP => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// A service port of one family: the unit of backends, affinity and names. Prints as `ns/name:port/PROTO`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ServicePortName {
    /// Namespace.
    pub namespace: String,
    /// Service name.
    pub name: String,
    /// Port name, empty when unnamed.
    pub port: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Family.
    pub family: Family,
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}/{}", self.namespace, self.name, self.port, self.protocol)
    }
}

/// How the backend of a new connection is chosen (S1, S2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Backends in turn.
    #[default]
    RoundRobin,
    /// At random.
    Random,
    /// Consistent hash.
    Maglev,
    /// Fewest open flows of two drawn at random.
    LeastConnections,
    /// In turn, by weight.
    Weighted,
}

/// What kind of address a frontend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum FrontendKind {
    /// `clusterIPs[]` (F2).
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// A node address with a `nodePort` (F6).
    NodePort,
    /// `externalIPs[]` (F5).
    #[serde(rename = "ExternalIP")]
    ExternalIp,
    /// `status.loadBalancer.ingress[]` (F5).
    LoadBalancer,
}

/// An address and port that clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Frontend {
    /// The address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// What kind of address it is.
    pub kind: FrontendKind,
}

/// One (address, port) that answers, with its state after merging all slices (B1–B4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Backend {
    /// The address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// On this node.
    pub local: bool,
    /// Takes new connections.
    pub ready: bool,
    /// Keeps serving, maybe while terminating.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
    /// Relative weight, 1 unless asked otherwise.
    pub weight: u16,
    /// Pod or node it belongs to, for people; empty when unknown.
    pub target: String,
}

/// Everything about one service port of one family.
///
/// `cluster` and `local` are the lists that policies choose from (B5, B6), as indices into `backends`, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Frontends in order, without duplicates. Node ports are already multiplied by the selected node addresses.
    pub frontends: Vec<Frontend>,
    /// All backends known, usable or not, ordered by (address, port), without duplicates.
    pub backends: Vec<Backend>,
    /// Backends under Cluster policy; `None` = no frontend uses it.
    pub cluster: Option<Vec<usize>>,
    /// Backends under Local policy; `None` = no frontend uses it.
    pub local: Option<Vec<usize>>,
    /// False: no usable backend on any node, so an empty list rejects (V1) instead of dropping (V2).
    pub has_any_endpoints: bool,
    /// `internalTrafficPolicy: Local` (V3).
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local` (V4).
    pub external_local: bool,
    /// `sessionAffinity: ClientIP`: seconds (S4).
    pub affinity_timeout_s: Option<u32>,
    /// How backends are chosen.
    pub algorithm: Algorithm,
    /// `loadBalancerSourceRanges` of this family (V7), empty = everyone.
    pub source_ranges: Vec<IpNet>,
    /// The status or Pod `healthCheckNodePort` (H1), 0 = none.
    pub health_check_node_port: u16,
}

/// What a service port is to be from now on; `None` = gone.
pub type Edit = (Arc<ServicePortName>, Option<Arc<Service>>);

/// What is known about this node and the cluster around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Surroundings {
    /// All addresses of this node.
    pub node_addresses: Vec<IpAddr>,
    /// Sources of masqueraded packets: at most one for each family.
    pub masquerade_addresses: Vec<IpAddr>,
    /// Ranges that pods have their addresses from; empty = pods cannot be told from others.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges that ClusterIPs are taken from (V6).
    pub service_cidrs: Vec<IpNet>,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// `--external-cluster-ip=allow` (F9).
    pub allow_external_cluster_ip: bool,
    /// `--vip-ping=off` (V5).
    pub no_vip_ping: bool,
}

/// The whole desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// Service ports by name.
    #[serde(serialize_with = "services_as_list")]
    pub services: BTreeMap<ServicePortName, Service>,
    /// Node and cluster.
    pub surroundings: Surroundings,
}

fn services_as_list<S: serde::Serializer>(
    services: &BTreeMap<ServicePortName, Service>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry<'a> {
        name: &'a ServicePortName,
        #[serde(flatten)]
        service: &'a Service,
    }
    serializer.collect_seq(services.iter().map(|(name, service)| Entry { name, service }))
}
