//! Puts the desired state together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::allocate::Allocations;
use super::config::ModelConfig;
use super::desired::{Desired, Family, Frontend, Service, Surroundings};
use super::endpoints::{
    Collected, Collector, EndpointReader, EndpointsMap, LeftOut, ModelEndpoint, service_of,
};
use super::frontends::{Rules, frontends};
use super::labels;
use super::services::{ServiceMap, ServicePortInfo, is_ours, service_ports};
use super::topology::{Question, categorize};
use crate::source::Objects;
use crate::source::address::parse_cidr;
use crate::source::kube::{EndpointSlice, Name, Node};

/// A remark about an object that is good in itself but not as a part of the whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// `Kind namespace/name`.
    pub object: String,
    /// Path of the field, or name of the annotation.
    pub field: String,
    /// What is wrong, and what follows.
    pub reason: String,
}

impl Note {
    /// A remark about a Service.
    pub fn service(name: &Name, field: &str, reason: impl Into<String>) -> Self {
        Self { object: format!("Service {name}"), field: field.to_owned(), reason: reason.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.reason)
    }
}

/// The desired state, and how it came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Built {
    /// The desired state.
    pub desired: Desired,
    /// Service ports before frontends were made of them.
    pub services: ServiceMap,
    /// Endpoints, also those of no known Service.
    pub endpoints: EndpointsMap,
    /// Remarks, ordered, without duplicates.
    pub notes: Vec<Note>,
    /// Endpoints left out (B2).
    pub skipped_endpoints: u64,
    /// Endpoints left out, and why (B1, B2, B7).
    pub left_out: Vec<LeftOut>,
}

/// What objects say about service ports and backends, before anybody is given a frontend.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) services: ServiceMap,
    pub(super) collected: Collected,
    pub(super) notes: Vec<Note>,
}

/// Reads objects. Each Service stands for itself here: those of some Services say the same about them as all objects do.
pub(super) fn parts(config: &ModelConfig, objects: &Objects, allocations: &Allocations) -> Parts {
    let mut notes = Vec::new();
    let mut services = ServiceMap::new();
    for service in objects.services.values() {
        for family in [Family::V4, Family::V6] {
            services.extend(service_ports(service, family, allocations, &mut notes));
        }
    }
    let collected = collect_endpoints(config, objects, &services, &mut notes);
    Parts { services, collected, notes }
}

/// One service port with its frontends.
pub(super) fn service(
    config: &ModelConfig,
    zone: &str,
    info: &ServicePortInfo,
    endpoints: &[ModelEndpoint],
    frontends: Vec<Frontend>,
) -> Service {
    let lists = categorize(question(config, zone, info), endpoints);
    Service {
        frontends,
        backends: endpoints.iter().map(|endpoint| endpoint.backend.clone()).collect(),
        cluster: lists.cluster,
        local: lists.local,
        has_any_endpoints: lists.has_any_endpoints,
        internal_local: info.internal_local,
        external_local: info.external_local,
        affinity_timeout_s: info.affinity_timeout_s,
        algorithm: info.algorithm.unwrap_or(config.algorithm),
        source_ranges: info.source_ranges.clone(),
        health_check_node_port: info.health_check_node_port,
    }
}

/// Makes the desired state of objects. The order in which objects came does not matter.
pub fn build(config: &ModelConfig, objects: &Objects, allocations: &Allocations) -> Built {
    let Parts { services, collected, mut notes } = parts(config, objects, allocations);
    let Collected { endpoints, skipped: skipped_endpoints, left_out } = collected;
    let surroundings = surroundings(config, &objects.nodes);
    let mut desired = Desired { services: BTreeMap::new(), surroundings };
    let mut frontends = frontends(&Rules::new(config), &services, &mut notes);
    let zone = zone(config, &objects.nodes);
    for (name, info) in &services {
        let list = endpoints.get(name).map_or(&[][..], Vec::as_slice);
        let frontends = frontends.remove(name).unwrap_or_default();
        desired.services.insert(name.clone(), service(config, &zone, info, list, frontends));
    }
    notes.sort();
    notes.dedup();
    Built { desired, services, endpoints, notes, skipped_endpoints, left_out }
}

/// What [`super::topology`] is asked about a service port.
pub fn question<'a>(config: &'a ModelConfig, zone: &'a str, info: &ServicePortInfo) -> Question<'a> {
    Question {
        uses_cluster: info.uses_cluster(),
        uses_local: info.uses_local(),
        node_name: &config.node_name,
        zone,
        node_hints: config.node_hints,
    }
}

/// B7: slices count; without any, Endpoints; without those, Pods, in the families that the Service has: a controller would
/// make no slices for the others.
fn collect_endpoints(
    config: &ModelConfig,
    objects: &Objects,
    services: &ServiceMap,
    notes: &mut Vec<Note>,
) -> Collected {
    let reader = EndpointReader::new(config, objects);
    let families: HashSet<(Name, Family)> =
        services.keys().map(|port| (Name::new(&port.namespace, &port.name), port.family)).collect();
    let mut by_service: HashMap<Name, Vec<&EndpointSlice>> = HashMap::new();
    for slice in objects.slices.values() {
        if let Some(service) = service_of(slice) {
            by_service.entry(service).or_default().push(slice);
        }
    }
    let mut collector = Collector::default();
    for family in [Family::V4, Family::V6] {
        for slice in objects.slices.values() {
            reader.slice(slice, family, &mut collector, notes);
        }
        for (name, service) in &objects.services {
            if by_service.contains_key(name) || !is_ours(&service.metadata) {
                continue;
            }
            if let Some(endpoints) = objects.endpoints.get(name) {
                reader.endpoints(endpoints, family, &mut collector, notes);
            } else if families.contains(&(name.clone(), family)) {
                reader.pods(service, family, &mut collector, notes);
            }
        }
    }
    collector.finish()
}

/// The zone of this node, empty when unknown.
pub fn zone(config: &ModelConfig, nodes: &BTreeMap<Name, Arc<Node>>) -> String {
    let node = || nodes.get(&Name::new("", &config.node_name));
    let from_node = || node().and_then(|node| node.metadata.labels.get(labels::ZONE).cloned());
    config.zone.clone().or_else(from_node).unwrap_or_default()
}

/// What is known about this node and the cluster around it.
pub(super) fn surroundings(config: &ModelConfig, nodes: &BTreeMap<Name, Arc<Node>>) -> Surroundings {
    let mut pod_cidrs = config.pod_cidrs.clone();
    if pod_cidrs.is_empty() {
        let specs = nodes.values().map(|node| &node.spec);
        let texts = specs.flat_map(|spec| spec.pod_cidr.iter().chain(&spec.pod_cidrs));
        pod_cidrs.extend(texts.filter_map(|text| parse_cidr(text).ok()).map(|parsed| parsed.value));
    }
    pod_cidrs.sort_unstable();
    pod_cidrs.dedup();
    Surroundings {
        node_addresses: config.node_addresses(),
        masquerade_addresses: [Family::V4, Family::V6]
            .into_iter()
            .filter_map(|f| config.primary(f))
            .collect(),
        pod_cidrs,
        service_cidrs: config.service_cidrs.clone(),
        masquerade_all: config.masquerade_all,
        allow_external_cluster_ip: config.allow_external_cluster_ip,
        no_vip_ping: !config.vip_ping,
    }
}
