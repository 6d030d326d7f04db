//! Services to service ports (F1–F5).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::allocate::Allocations;
use super::build::Note;
use super::desired::{Algorithm, Family, Protocol, ServicePortName};
use super::labels;
use crate::source::address::{parse_cidr, parse_ip};
use crate::source::kube::{Metadata, Service};
use crate::source::validate::parse_protocol;

/// Seconds that `sessionAffinity: ClientIP` lasts unless told otherwise (S4, the default of the Kubernetes API).
const DEFAULT_AFFINITY_S: u32 = 10_800;

/// One service port in one family, free of node addresses and endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortInfo {
    /// The cluster address of this family.
    pub cluster_ip: IpAddr,
    /// The service port.
    pub port: u16,
    /// The port on nodes, 0 = none.
    pub node_port: u16,
    /// `externalIPs[]` of this family, in order.
    pub external_ips: Vec<IpAddr>,
    /// Load balancer addresses of this family to be taken (F5), in order.
    pub lb_vips: Vec<IpAddr>,
    /// `loadBalancerSourceRanges` of this family, in order.
    pub source_ranges: Vec<IpNet>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Seconds of client affinity.
    pub affinity_timeout_s: Option<u32>,
    /// `healthCheckNodePort` of a load balancer with Local policy, 0 = none.
    pub health_check_node_port: u16,
    /// How backends are chosen; `None` = the default.
    pub algorithm: Option<Algorithm>,
}

impl ServicePortInfo {
    /// Has an address that is not for inside the cluster only.
    pub fn is_externally_accessible(&self) -> bool {
        self.node_port != 0 || !self.external_ips.is_empty() || !self.lb_vips.is_empty()
    }

    /// Some traffic goes to backends under Cluster policy. With Local policy outside, clients inside do (V4).
    pub fn uses_cluster(&self) -> bool {
        !self.internal_local || self.is_externally_accessible()
    }

    /// Some traffic goes to backends under Local policy.
    pub fn uses_local(&self) -> bool {
        self.internal_local || (self.external_local && self.is_externally_accessible())
    }
}

/// Service ports by name.
pub type ServiceMap = BTreeMap<ServicePortName, ServicePortInfo>;

/// True when nobody else serves this Service or slice (F4).
pub fn is_ours(metadata: &Metadata) -> bool {
    !metadata.labels.contains_key(labels::SERVICE_PROXY_NAME)
        && !metadata.labels.contains_key(labels::HEADLESS)
}

/// True when it has no frontend (F3).
pub fn is_headless(service: &Service) -> bool {
    let spec = &service.spec;
    spec.type_.as_deref() == Some("ExternalName")
        || spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.first().is_some_and(|address| address == "None")
}

/// The explicit cluster addresses, at most one for each family, in order.
pub fn explicit_cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = &service.spec;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in spec.cluster_ip.iter().chain(&spec.cluster_ips) {
        if let Ok(parsed) = parse_ip(text)
            && !addresses.iter().any(|known| Family::of(*known) == Family::of(parsed.value))
        {
            addresses.push(parsed.value);
        }
    }
    addresses
}

/// True when it wants both families, or both as far as they are there.
pub(super) fn is_dual_stack(service: &Service) -> bool {
    matches!(service.spec.ip_family_policy.as_deref(), Some("PreferDualStack" | "RequireDualStack"))
}

/// Families that a Service is to have addresses, or endpoints, of: those that it names and those that its policy adds; without
/// either the first of those there are, as the API server fills it in.
pub fn wanted_families(service: &Service, available: &[Family]) -> Vec<Family> {
    let spec = &service.spec;
    let named = spec.ip_families.iter().filter_map(|text| match text.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    });
    let mut wanted: Vec<Family> = named.collect();
    if is_dual_stack(service) {
        let required = spec.ip_family_policy.as_deref() == Some("RequireDualStack");
        for family in [Family::V4, Family::V6] {
            if !wanted.contains(&family) && (required || available.contains(&family)) {
                wanted.push(family);
            }
        }
    } else if wanted.is_empty() {
        wanted.extend(available.first().copied());
    }
    wanted
}

/// Reads the algorithm annotation.
fn algorithm(service: &Service, notes: &mut Vec<Note>) -> Option<Algorithm> {
    let text = service.metadata.annotations.get(labels::ALGORITHM)?;
    let found = parse_algorithm(text);
    if found.is_none() {
        notes.push(Note::service(
            &service.metadata.full_name(),
            labels::ALGORITHM,
            format!(
                "{text:?} is none of {}: the default is used",
                ALGORITHMS.map(|(name, _)| name).join(", ")
            ),
        ));
    }
    found
}

const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("round-robin", Algorithm::RoundRobin),
    ("random", Algorithm::Random),
    ("maglev", Algorithm::Maglev),
    ("least-connections", Algorithm::LeastConnections),
    ("weighted", Algorithm::Weighted),
];

/// The algorithm of this name.
pub fn parse_algorithm(text: &str) -> Option<Algorithm> {
    ALGORITHMS.into_iter().find(|(name, _)| *name == text).map(|(_, algorithm)| algorithm)
}

fn addresses_of<'a>(texts: impl IntoIterator<Item = &'a str>, family: Family) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = texts
        .into_iter()
        .filter_map(|text| parse_ip(text).ok())
        .map(|parsed| parsed.value)
        .filter(|address| Family::of(*address) == family)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The service ports of a Service in one family: none when it is not ours (F4), has no frontend (F3) or no cluster address of
/// that family (F2).
pub fn service_ports(
    service: &Service,
    family: Family,
    allocations: &Allocations,
    notes: &mut Vec<Note>,
) -> Vec<(ServicePortName, ServicePortInfo)> {
    if !is_ours(&service.metadata) || is_headless(service) {
        return Vec::new();
    }
    let name = service.metadata.full_name();
    let explicit = explicit_cluster_ips(service);
    let allocated = allocations.cluster_ips.get(&name).into_iter().flatten().copied();
    let Some(cluster_ip) =
        explicit.into_iter().chain(allocated).find(|address| Family::of(*address) == family)
    else {
        return Vec::new();
    };
    let spec = &service.spec;
    let ingress = service.status.load_balancer.ingress.iter();
    let mut lb_vips = addresses_of(
        ingress
            .filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
            .filter_map(|i| i.ip.as_deref()),
        family,
    );
    let pool = allocations.from_pool(service).iter();
    lb_vips.extend(pool.filter(|address| Family::of(**address) == family));
    let mut source_ranges: Vec<_> = spec
        .load_balancer_source_ranges
        .iter()
        .filter_map(|text| parse_cidr(text).ok())
        .map(|parsed| parsed.value)
        .filter(|range| Family::of(range.addr()) == family)
        .collect();
    source_ranges.sort_unstable();
    source_ranges.dedup();
    // The policy is about Services that mean to be reached from outside: a left-over field of others says nothing.
    let is_for_outside =
        matches!(spec.type_.as_deref(), Some("LoadBalancer" | "NodePort")) || !spec.external_ips.is_empty();
    let external_local = is_for_outside && is_external_local(service);
    let health_check = wants_health_check(service).then(|| {
        let explicit = spec.health_check_node_port.and_then(port_number);
        explicit.or_else(|| allocations.health_check_node_ports.get(&name).copied())
    });
    let affinity_timeout_s = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|config| config.timeout_seconds);
        seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY_S)
    });
    let shared = ServicePortInfo {
        cluster_ip,
        port: 0,
        node_port: 0,
        external_ips: addresses_of(spec.external_ips.iter().map(String::as_str), family),
        lb_vips,
        source_ranges,
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local,
        affinity_timeout_s,
        health_check_node_port: health_check.flatten().unwrap_or(0),
        algorithm: algorithm(service, notes),
    };
    let mut ports = Vec::with_capacity(spec.ports.len());
    for port in &spec.ports {
        let (Ok(protocol), Some(number)) = (parse_protocol(port.protocol.as_deref()), port_number(port.port))
        else {
            continue;
        };
        let port_name = port.name.clone().unwrap_or_default();
        let node_port = port
            .node_port
            .and_then(port_number)
            .or_else(|| allocations.node_ports.get(&(name.clone(), port_name.clone(), protocol)).copied());
        ports.push((
            ServicePortName {
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                port: port_name,
                protocol,
                family,
            },
            ServicePortInfo { port: number, node_port: node_port.unwrap_or(0), ..shared.clone() },
        ));
    }
    ports
}

fn is_external_local(service: &Service) -> bool {
    service.spec.external_traffic_policy.as_deref() == Some("Local")
}

/// True for those that have a port to be asked for their health (H1): load balancers with Local policy.
pub(super) fn wants_health_check(service: &Service) -> bool {
    service.spec.type_.as_deref() == Some("LoadBalancer") && is_external_local(service)
}

/// A number as a port; 0 and what is out of range are none.
pub fn port_number(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// Ports that health checks are wanted on, by Service (H1).
pub fn health_check_node_ports(services: &ServiceMap) -> BTreeMap<crate::source::kube::Name, u16> {
    services
        .iter()
        .filter(|(_, info)| info.health_check_node_port != 0)
        .map(|(name, info)| {
            (crate::source::kube::Name::new(&name.namespace, &name.name), info.health_check_node_port)
        })
        .collect()
}

/// The protocol and number of a port for people.
pub(super) fn port_text(port: u16, protocol: Protocol) -> String {
    format!("{port}/{protocol}")
}
