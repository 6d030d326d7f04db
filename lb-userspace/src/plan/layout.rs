//! One service port as the tables will have it, but for its numbers.

use std::net::IpAddr;

use ipnet::IpNet;
use lb_common::abi::{ServiceName, algorithm, backend_flag, frontend_flag, frontend_kind};

use super::Options;
use super::classes::{knows_pods, own_addresses};
use super::spread::{maglev, weighted};
use super::words::FrontendName;
use crate::model::desired::{
    Algorithm, Backend, Family, Frontend, FrontendKind, Protocol, Service, ServicePortName, Surroundings,
};

/// Which of a service's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Backends under Cluster policy.
    Cluster,
    /// Backends under Local policy.
    Local,
}

/// A frontend, without the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendLayout {
    /// Its key.
    pub name: FrontendName,
    /// One of [`frontend_kind`].
    pub kind: u8,
    /// Bits of [`frontend_flag`].
    pub flags: u32,
    /// Who answers pods and this node.
    pub internal: List,
    /// Who answers everyone else.
    pub external: List,
}

/// `frontend_kind` of a kind.
pub const fn kind_number(kind: FrontendKind) -> u8 {
    match kind {
        FrontendKind::ClusterIp => frontend_kind::CLUSTER_IP,
        FrontendKind::NodePort => frontend_kind::NODE_PORT,
        FrontendKind::ExternalIp => frontend_kind::EXTERNAL_IP,
        FrontendKind::LoadBalancer => frontend_kind::LOAD_BALANCER,
    }
}

/// The kind of a `frontend_kind`.
pub const fn kind_of(number: u8) -> Option<FrontendKind> {
    match number {
        frontend_kind::CLUSTER_IP => Some(FrontendKind::ClusterIp),
        frontend_kind::NODE_PORT => Some(FrontendKind::NodePort),
        frontend_kind::EXTERNAL_IP => Some(FrontendKind::ExternalIp),
        frontend_kind::LOAD_BALANCER => Some(FrontendKind::LoadBalancer),
        _ => None,
    }
}

/// `algorithm` of an algorithm.
pub const fn algorithm_number(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::RoundRobin => algorithm::ROUND_ROBIN,
        Algorithm::Random => algorithm::RANDOM,
        Algorithm::Maglev => algorithm::MAGLEV,
        Algorithm::LeastConnections => algorithm::LEAST_CONNECTIONS,
        Algorithm::Weighted => algorithm::WEIGHTED,
    }
}

/// The algorithm of an `algorithm`.
pub const fn algorithm_of(number: u8) -> Option<Algorithm> {
    match number {
        algorithm::ROUND_ROBIN => Some(Algorithm::RoundRobin),
        algorithm::RANDOM => Some(Algorithm::Random),
        algorithm::MAGLEV => Some(Algorithm::Maglev),
        algorithm::LEAST_CONNECTIONS => Some(Algorithm::LeastConnections),
        algorithm::WEIGHTED => Some(Algorithm::Weighted),
        _ => None,
    }
}

/// A frontend's key.
pub fn key_of(name: &ServicePortName, frontend: &Frontend) -> FrontendName {
    FrontendName { addr: frontend.addr, port: frontend.port, protocol: name.protocol.number() }
}

/// Policies and masquerading of one frontend (V3, V4, V7, A2, F9).
pub fn frontend(
    name: &ServicePortName,
    service: &Service,
    frontend: &Frontend,
    surroundings: &Surroundings,
) -> FrontendLayout {
    let list = |local| if local { List::Local } else { List::Cluster };
    let pods_known = knows_pods(surroundings, Family::of(frontend.addr));
    let mut flags = 0;
    let (internal, external);
    if frontend.kind == FrontendKind::ClusterIp {
        internal = list(service.internal_local);
        external = internal;
        if surroundings.masquerade_all {
            flags |= frontend_flag::MASQUERADE_POD
                | frontend_flag::MASQUERADE_NODE
                | frontend_flag::MASQUERADE_EXTERNAL;
        } else if pods_known {
            flags |= frontend_flag::MASQUERADE_NODE | frontend_flag::MASQUERADE_EXTERNAL;
        }
        flags |= owner_flags(surroundings, Family::of(frontend.addr)) & frontend_flag::DROP_EXTERNAL;
    } else {
        internal = List::Cluster;
        external = list(service.external_local);
        flags |= frontend_flag::MASQUERADE_NODE;
        if !service.external_local {
            flags |= frontend_flag::MASQUERADE_POD | frontend_flag::MASQUERADE_EXTERNAL;
        }
    }
    if internal == List::Local {
        flags |= frontend_flag::INTERNAL_LOCAL;
    }
    if external == List::Local {
        flags |= frontend_flag::EXTERNAL_LOCAL;
    }
    if !service.has_any_endpoints {
        flags |= frontend_flag::REJECT_EMPTY;
    }
    if service.affinity_timeout_s.is_some() {
        flags |= frontend_flag::AFFINITY;
    }
    if frontend.kind == FrontendKind::LoadBalancer && !service.source_ranges.is_empty() {
        flags |= frontend_flag::SOURCE_RANGES;
    }
    FrontendLayout {
        name: key_of(name, frontend),
        kind: kind_number(frontend.kind),
        flags,
        internal,
        external,
    }
}

/// Flags of the entry that owns a ClusterIP (V5).
pub fn owner_flags(surroundings: &Surroundings, family: Family) -> u32 {
    let closed = !surroundings.allow_external_cluster_ip && knows_pods(surroundings, family);
    frontend_flag::OWNER | if closed { frontend_flag::DROP_EXTERNAL } else { 0 }
}

/// Ranges that may send to the LoadBalancer addresses (V7).
pub fn source_ranges(service: &Service, surroundings: &Surroundings, family: Family) -> Vec<IpNet> {
    let mut ranges: Vec<IpNet> = service.source_ranges.iter().map(IpNet::trunc).collect();
    if ranges.is_empty() || !service.frontends.iter().any(|f| f.kind == FrontendKind::LoadBalancer) {
        return Vec::new();
    }
    let own = own_addresses(surroundings, family);
    if ranges.iter().any(|range| own.iter().any(|addr| range.contains(addr))) {
        let frontends = service.frontends.iter().filter(|f| f.kind == FrontendKind::LoadBalancer);
        ranges.extend(frontends.map(|frontend| IpNet::from(frontend.addr)));
    }
    ranges.sort();
    ranges.dedup();
    ranges
}

/// The backends in one of the lists, as indices; an absent list is empty.
pub fn members(service: &Service, list: List) -> Vec<usize> {
    let members = match list {
        List::Cluster => service.cluster.as_deref(),
        List::Local => service.local.as_deref(),
    };
    // An index past the end would be a mistake of the model's; it must not take the agent down.
    members.unwrap_or_default().iter().copied().filter(|i| *i < service.backends.len()).collect()
}

/// The slots of one of the lists: indices of backends, in order (S1–S3).
pub fn slots(service: &Service, list: List, options: &Options) -> Vec<usize> {
    let members = members(service, list);
    let pick = |slots: Vec<usize>| slots.into_iter().map(|slot| members[slot]).collect();
    match service.algorithm {
        Algorithm::RoundRobin | Algorithm::Random | Algorithm::LeastConnections => members,
        Algorithm::Weighted => {
            let weights: Vec<u16> = members.iter().map(|i| service.backends[*i].weight).collect();
            pick(weighted(&weights))
        }
        Algorithm::Maglev => {
            let identities: Vec<(IpAddr, u16)> =
                members.iter().map(|i| (service.backends[*i].addr, service.backends[*i].port)).collect();
            pick(maglev(&identities, options.maglev_slots))
        }
    }
}

/// Flags of a backend that is in the cluster list, in the local list, in both or in none (B5).
pub fn backend_flags(backend: &Backend, in_cluster_list: bool, in_local_list: bool) -> u16 {
    let usable = in_cluster_list || in_local_list;
    let mut flags = backend_flag::ALIVE;
    if backend.serving || usable {
        flags |= backend_flag::SERVING;
    }
    if backend.local {
        flags |= backend_flag::LOCAL;
    }
    if backend.addr.is_ipv6() {
        flags |= backend_flag::IPV6;
    }
    if usable {
        flags |= backend_flag::USABLE;
    }
    if usable && !in_cluster_list {
        flags |= backend_flag::LOCAL_LIST_ONLY;
    }
    flags
}

/// The name as readers of the maps find it.
pub fn service_name(name: &ServicePortName) -> ServiceName {
    let mut entry = ServiceName {
        namespace: [0; 64],
        name: [0; 64],
        port: [0; 16],
        protocol: name.protocol.number(),
        family: if name.family == Family::V4 { 4 } else { 6 },
        _pad: [0; 6],
    };
    put(&mut entry.namespace, &name.namespace);
    put(&mut entry.name, &name.name);
    put(&mut entry.port, &name.port);
    entry
}

fn put(field: &mut [u8], text: &str) {
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

/// The inverse of [`service_name`]; `None` when it is not one of ours.
pub fn port_name(entry: &ServiceName) -> Option<ServicePortName> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        std::str::from_utf8(&field[..end]).ok().map(str::to_owned)
    };
    Some(ServicePortName {
        namespace: text(&entry.namespace)?,
        name: text(&entry.name)?,
        port: text(&entry.port)?,
        protocol: Protocol::from_number(entry.protocol)?,
        family: match entry.family {
            4 => Family::V4,
            6 => Family::V6,
            _ => return None,
        },
    })
}
