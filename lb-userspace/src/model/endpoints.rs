//! EndpointSlices, Endpoints and Pods to backends (B1–B4, B7).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::build::Note;
use super::config::ModelConfig;
use super::desired::{Backend, Family, Protocol, ServicePortName};
use super::labels;
use super::services::{is_ours, port_number};
use crate::source::Objects;
use crate::source::address::parse_ip;
use crate::source::kube::{
    EndpointSlice, Endpoints, IntOrString, Metadata, Name, ObjectReference, Pod, Service, ServicePort,
};
use crate::source::validate::parse_protocol;

/// A backend, and who should prefer it (B6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelEndpoint {
    /// The backend.
    pub backend: Backend,
    /// Zones it is meant for.
    pub zone_hints: BTreeSet<String>,
    /// Nodes it is meant for.
    pub node_hints: BTreeSet<String>,
}

/// Backends by service port, ordered by address and port.
pub type EndpointsMap = BTreeMap<ServicePortName, Vec<ModelEndpoint>>;

/// An endpoint that is no backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// The Service it was meant for.
    pub service: Name,
    /// Its address or object, as far as it has a name.
    pub what: String,
    /// The rule that left it out.
    pub rule: &'static str,
    /// Why.
    pub reason: String,
}

/// What was collected.
#[derive(Debug, Default)]
pub struct Collected {
    /// Backends by service port.
    pub endpoints: EndpointsMap,
    /// Endpoints left out: wrong family, no address, no port (B2).
    pub skipped: u64,
    /// Endpoints left out, and why.
    pub left_out: Vec<LeftOut>,
}

/// Collects endpoints, each (address, port) once for each service port (B1).
#[derive(Debug, Default)]
pub struct Collector {
    ports: BTreeMap<ServicePortName, BTreeMap<(IpAddr, u16), ModelEndpoint>>,
    /// Endpoints left out: wrong family, no address, no port (B2).
    pub skipped: u64,
    left_out: Vec<LeftOut>,
}

impl Collector {
    /// Notes an endpoint that is no backend. The reason is put together by the caller: nothing here is common.
    fn leave_out(&mut self, service: &Name, what: String, rule: &'static str, reason: String) {
        self.left_out.push(LeftOut { service: service.clone(), what, rule, reason });
    }

    fn add(&mut self, name: &ServicePortName, endpoint: ModelEndpoint) {
        use std::collections::btree_map::Entry;
        let port = match self.ports.get_mut(name) {
            Some(port) => port,
            None => self.ports.entry(name.clone()).or_default(),
        };
        match port.entry((endpoint.backend.addr, endpoint.backend.port)) {
            Entry::Vacant(entry) => drop(entry.insert(endpoint)),
            Entry::Occupied(mut entry) => {
                let differs = endpoint != *entry.get();
                if rank(&endpoint) < rank(entry.get()) {
                    entry.insert(endpoint);
                }
                if differs {
                    let what = SocketAddr::new(entry.key().0, entry.key().1).to_string();
                    let kept = &entry.get().backend;
                    let state = if kept.terminating { "terminating" } else { "not terminating" };
                    let place = if kept.local { "on this node" } else { "elsewhere" };
                    self.left_out.push(LeftOut {
                        service: Name::new(&name.namespace, &name.name),
                        what,
                        rule: "B1",
                        reason: format!("another copy, which disagrees; kept is the one {state} and {place}"),
                    });
                }
            }
        }
    }

    /// What has been collected.
    pub fn finish(self) -> Collected {
        let mut left_out = self.left_out;
        left_out.sort_unstable();
        left_out.dedup();
        let ports = self.ports.into_iter();
        let endpoints = ports.map(|(name, port)| (name, port.into_values().collect())).collect();
        Collected { endpoints, skipped: self.skipped, left_out }
    }
}

/// Lower wins (B1): not terminating, then local; the rest only makes the choice independent of any order.
fn rank(endpoint: &ModelEndpoint) -> (bool, bool, bool, bool, &ModelEndpoint) {
    let backend = &endpoint.backend;
    (backend.terminating, !backend.local, !backend.ready, !backend.serving, endpoint)
}

/// The Service a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<Name> {
    let service = slice.metadata.labels.get(labels::SERVICE_NAME)?;
    (!service.is_empty()).then(|| Name::new(slice.metadata.namespace(), service))
}

/// True when a slice says something new: any difference in its ports and endpoints counts, a new order included.
pub fn data_changed(before: &EndpointSlice, after: &EndpointSlice) -> bool {
    before.ports != after.ports || before.endpoints != after.endpoints
}

/// Services with different endpoints of this protocol, ordered.
pub fn changed_services(before: &EndpointsMap, after: &EndpointsMap, protocol: Protocol) -> BTreeSet<Name> {
    let names = before.keys().chain(after.keys()).filter(|name| name.protocol == protocol);
    names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Name::new(&name.namespace, &name.name))
        .collect()
}

/// Weight of an annotation, if it has one.
fn weight(metadata: &Metadata, kind: &str, notes: &mut Vec<Note>) -> Option<u16> {
    let text = metadata.annotations.get(labels::WEIGHT)?;
    let weight = text.parse().ok().filter(|weight| (1..=1000).contains(weight));
    if weight.is_none() {
        notes.push(Note {
            object: format!("{kind} {}", metadata.full_name()),
            field: labels::WEIGHT.to_owned(),
            reason: format!("{text:?} is not a number from 1 to 1000: 1 is used"),
        });
    }
    weight
}

/// Reads objects as one node sees them.
#[derive(Debug)]
pub struct EndpointReader<'a> {
    config: &'a ModelConfig,
    objects: &'a Objects,
    /// Pods by namespace, label and value.
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Arc<Pod>>>,
}

impl<'a> EndpointReader<'a> {
    /// A reader for these objects.
    pub fn new(config: &'a ModelConfig, objects: &'a Objects) -> Self {
        let mut by_label: HashMap<_, Vec<_>> = HashMap::new();
        for pod in objects.pods.values() {
            for (label, value) in &pod.metadata.labels {
                by_label
                    .entry((pod.metadata.namespace(), label.as_str(), value.as_str()))
                    .or_default()
                    .push(pod);
            }
        }
        Self { config, objects, by_label }
    }

    fn is_here(&self, node_name: Option<&str>) -> bool {
        !self.config.node_name.is_empty() && node_name == Some(self.config.node_name.as_str())
    }

    /// A pod that names no node is here when there are no Node objects: standalone, there is only this node.
    fn pod_is_here(&self, pod: &Pod) -> bool {
        match pod.spec.node_name.as_deref() {
            None | Some("") => self.objects.nodes.is_empty(),
            node_name => self.is_here(node_name),
        }
    }

    fn pod_of(&self, reference: Option<&ObjectReference>, namespace: &str) -> Option<&'a Arc<Pod>> {
        self.objects.pods.get(&reference?.pod(namespace)?)
    }

    /// Adds a slice's endpoints of one family (B1–B4).
    pub fn slice(&self, slice: &EndpointSlice, family: Family, into: &mut Collector, notes: &mut Vec<Note>) {
        let Some(service) = service_of(slice).filter(|_| is_ours(&slice.metadata)) else { return };
        let declared = match slice.address_type.as_deref() {
            Some("IPv4") => Some(Family::V4),
            Some("IPv6") => Some(Family::V6),
            Some("FQDN") => return,
            _ => None,
        };
        if declared.is_some_and(|declared| declared != family) {
            return;
        }
        let slice_name = || format!("EndpointSlice {}", slice.metadata.full_name());
        let slice_weight = weight(&slice.metadata, "EndpointSlice", notes);
        let ports: Vec<_> = slice
            .ports
            .iter()
            .filter_map(|port| {
                let protocol = parse_protocol(port.protocol.as_deref()).ok()?;
                let number = port.port.and_then(port_number);
                if number.is_none() {
                    into.skipped += slice.endpoints.len() as u64;
                    let name = port.name.as_deref().unwrap_or_default();
                    let reason = format!("its port {name:?} has no number from 1 to 65535");
                    into.leave_out(&service, slice_name(), "B2", reason);
                }
                Some((port_name(&service, port.name.as_deref(), protocol, family), number?))
            })
            .collect();
        for endpoint in &slice.endpoints {
            let address =
                endpoint.addresses.first().and_then(|text| parse_ip(text).ok()).map(|parsed| parsed.value);
            let Some(addr) = address.filter(|address| Family::of(*address) == family) else {
                // Without a declared family, the reader of the other family counts it.
                if declared.is_some() || address.is_none() {
                    into.skipped += 1;
                    let first = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
                    let reason = match address {
                        None => "the first address of an endpoint counts, and it is none".to_owned(),
                        Some(_) => "its first address is not of the slice's family".to_owned(),
                    };
                    into.leave_out(&service, format!("{first:?} in {}", slice_name()), "B2", reason);
                }
                continue;
            };
            let conditions = endpoint.conditions;
            let ready = conditions.ready.unwrap_or(true);
            let pod = self.pod_of(endpoint.target_ref.as_ref(), slice.metadata.namespace());
            let pod_weight = pod.and_then(|pod| weight(&pod.metadata, "Pod", notes));
            let hints = endpoint.hints.as_ref();
            let names = |names: Option<&[crate::source::kube::ForName]>| -> BTreeSet<String> {
                names.into_iter().flatten().map(|name| name.name.clone()).collect()
            };
            let target = endpoint.target_ref.as_ref().and_then(|reference| reference.name.clone());
            let base = ModelEndpoint {
                backend: Backend {
                    addr,
                    port: 0,
                    local: self.is_here(endpoint.node_name.as_deref()),
                    ready,
                    serving: conditions.serving.unwrap_or(ready),
                    terminating: conditions.terminating.unwrap_or(false),
                    weight: pod_weight.or(slice_weight).unwrap_or(1),
                    target: target.or_else(|| endpoint.node_name.clone()).unwrap_or_default(),
                },
                zone_hints: names(hints.map(|hints| &*hints.for_zones)),
                node_hints: names(hints.map(|hints| &*hints.for_nodes)),
            };
            for (name, port) in &ports {
                let backend = Backend { port: *port, ..base.backend.clone() };
                into.add(name, ModelEndpoint { backend, ..base.clone() });
            }
        }
    }

    /// Adds what an Endpoints object holds of one family.
    pub fn endpoints(
        &self,
        endpoints: &Endpoints,
        family: Family,
        into: &mut Collector,
        notes: &mut Vec<Note>,
    ) {
        let service = endpoints.metadata.full_name();
        for subset in &endpoints.subsets {
            for (addresses, ready) in [(&subset.addresses, true), (&subset.not_ready_addresses, false)] {
                for address in addresses {
                    let Some(addr) = parse_ip(&address.ip).ok().map(|parsed| parsed.value) else {
                        into.skipped += 1;
                        let reason = "not an IP address".to_owned();
                        into.leave_out(&service, format!("{:?}", address.ip), "B2", reason);
                        continue;
                    };
                    if Family::of(addr) != family {
                        continue;
                    }
                    let pod = self.pod_of(address.target_ref.as_ref(), &service.namespace);
                    let pod_weight = pod.and_then(|pod| weight(&pod.metadata, "Pod", notes));
                    let target = address.target_ref.as_ref().and_then(|reference| reference.name.clone());
                    for port in &subset.ports {
                        let Ok(protocol) = parse_protocol(port.protocol.as_deref()) else { continue };
                        let Some(number) = port.port.and_then(port_number) else {
                            into.skipped += 1;
                            let name = port.name.as_deref().unwrap_or_default();
                            let reason = format!("its port {name:?} has no number from 1 to 65535");
                            into.leave_out(&service, addr.to_string(), "B2", reason);
                            continue;
                        };
                        let backend = Backend {
                            addr,
                            port: number,
                            local: self.is_here(address.node_name.as_deref()),
                            ready,
                            serving: ready,
                            terminating: false,
                            weight: pod_weight.unwrap_or(1),
                            target: target.clone().or_else(|| address.node_name.clone()).unwrap_or_default(),
                        };
                        into.add(
                            &port_name(&service, port.name.as_deref(), protocol, family),
                            ModelEndpoint {
                                backend,
                                zone_hints: BTreeSet::new(),
                                node_hints: BTreeSet::new(),
                            },
                        );
                    }
                }
            }
        }
    }

    /// Adds the pods that a Service selects, as the endpoint controllers of a cluster would (B7).
    pub fn pods(&self, service: &Service, family: Family, into: &mut Collector, notes: &mut Vec<Note>) {
        let name = service.metadata.full_name();
        for pod in self.selected(service) {
            let phase = pod.status.phase.as_deref();
            let pod_name = || format!("Pod {}", pod.metadata.full_name());
            if let Some(phase @ ("Succeeded" | "Failed")) = phase {
                let reason = format!("its phase is {phase}: it has ended");
                into.leave_out(&name, pod_name(), "B7", reason);
                continue;
            }
            let Some(addr) = pod_address(pod, family) else {
                let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
                if pod_address(pod, other).is_none() {
                    into.leave_out(&name, pod_name(), "B7", "it has no address".to_owned());
                }
                continue;
            };
            let serving =
                pod.status.conditions.iter().find(|c| c.type_ == "Ready").is_none_or(|c| c.status == "True");
            let terminating = pod.metadata.deletion_timestamp.is_some();
            let unconditional = service.spec.publish_not_ready_addresses;
            let pod_weight = weight(&pod.metadata, "Pod", notes).unwrap_or(1);
            for port in &service.spec.ports {
                let Ok(protocol) = parse_protocol(port.protocol.as_deref()) else { continue };
                let Some(number) = target_port(port, protocol, pod) else {
                    into.skipped += 1;
                    let reason = match &port.target_port {
                        Some(IntOrString::Name(target)) => {
                            format!("no {protocol} port of its containers is named {target:?}")
                        }
                        _ => "its target port is out of range".to_owned(),
                    };
                    into.leave_out(&name, pod_name(), "B7", reason);
                    continue;
                };
                let backend = Backend {
                    addr,
                    port: number,
                    local: self.pod_is_here(pod),
                    ready: unconditional || (serving && !terminating),
                    serving: unconditional || serving,
                    terminating,
                    weight: pod_weight,
                    target: pod.metadata.name.clone(),
                };
                into.add(
                    &port_name(&name, port.name.as_deref(), protocol, family),
                    ModelEndpoint { backend, zone_hints: BTreeSet::new(), node_hints: BTreeSet::new() },
                );
            }
        }
    }

    /// Pods in the Service's namespace whose labels match its selector; none without a selector.
    pub fn selected(&self, service: &'a Service) -> impl Iterator<Item = &'a Arc<Pod>> {
        let namespace = service.metadata.namespace();
        let selector = &service.spec.selector;
        let candidates = selector
            .iter()
            .map(|(label, value)| {
                self.by_label.get(&(namespace, label, value)).map_or(&[][..], Vec::as_slice)
            })
            .min_by_key(|pods| pods.len())
            .unwrap_or_default()
            .to_vec();
        candidates.into_iter().filter(move |pod| {
            selector.iter().all(|(label, value)| pod.metadata.labels.get(label) == Some(value))
        })
    }
}

fn port_name(service: &Name, port: Option<&str>, protocol: Protocol, family: Family) -> ServicePortName {
    ServicePortName {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        port: port.unwrap_or_default().to_owned(),
        protocol,
        family,
    }
}

/// The pod's first address of a family.
pub fn pod_address(pod: &Pod, family: Family) -> Option<IpAddr> {
    let texts = pod.status.pod_ip.iter().chain(pod.status.pod_ips.iter().map(|address| &address.ip));
    texts.filter_map(|text| parse_ip(text).ok()).map(|parsed| parsed.value).find(|a| Family::of(*a) == family)
}

/// The number of a service port in one pod.
pub fn target_port(port: &ServicePort, protocol: Protocol, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => port_number(port.port),
        Some(IntOrString::Int(number)) => port_number(*number),
        Some(IntOrString::Name(name)) if name.is_empty() => port_number(port.port),
        Some(IntOrString::Name(name)) => {
            let sidecars =
                pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
            ports
                .filter(|candidate| candidate.name.as_deref() == Some(name))
                .find(|candidate| parse_protocol(candidate.protocol.as_deref()) == Ok(protocol))
                .and_then(|candidate| port_number(candidate.container_port))
        }
    }
}

/// Distinct addresses on this node that are ready, by Service; Services without any are absent (H1).
pub fn local_ready(endpoints: &EndpointsMap) -> BTreeMap<Name, BTreeSet<IpAddr>> {
    let mut ready: BTreeMap<Name, BTreeSet<IpAddr>> = BTreeMap::new();
    for (name, list) in endpoints {
        for endpoint in list.iter().filter(|endpoint| endpoint.backend.local && endpoint.backend.ready) {
            ready.entry(Name::new(&name.namespace, &name.name)).or_default().insert(endpoint.backend.addr);
        }
    }
    ready
}
