//! What a packet without a frontend, or a Service without backends, came close to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Situation;
use super::packet::Kind;
use super::report::Remark;
use super::target::{Question, is_port_of};
use crate::model::addresses::node_port_addresses;
use crate::model::desired::{Family, FrontendKind, ServicePortName};
use crate::model::endpoints::service_of;
use crate::model::services::{explicit_cluster_ips, is_headless, is_ours};
use crate::source::address::parse_ip;
use crate::source::kube::{Name, Service};

/// Frontends elsewhere that are named at the most.
const MOST: usize = 3;

/// Words in a row; "none" for none.
pub(super) fn list<T: AsRef<str>>(words: &[T]) -> String {
    if words.is_empty() {
        return "none".to_owned();
    }
    words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// What a packet that is for no frontend came close to.
pub(super) fn frontend(situation: &Situation, question: &Question, not_ours: bool) -> Vec<Remark> {
    let destination = question.packet.headers.destination;
    let mut remarks = Vec::new();
    if let Kind::Transport(protocol) = question.packet.kind {
        let port = destination.port.unwrap_or(0);
        same_address(situation, destination.address, port, &protocol.to_string(), &mut remarks);
        node_port(situation, destination.address, port, &mut remarks);
    }
    for service in situation.objects.services.values() {
        not_served(service, destination.address, &mut remarks);
    }
    backend(situation, destination.address, &mut remarks);
    if remarks.is_empty()
        && let (Kind::Transport(protocol), Some(port)) = (question.packet.kind, destination.port)
    {
        same_port(situation, (destination.address, port), &protocol.to_string(), &mut remarks);
    }
    if remarks.is_empty() && not_ours {
        remarks
            .push(Remark::new("V8", format!("no Service has anything to do with {}", destination.address)));
    }
    remarks
}

/// Right address: other port, other protocol.
fn same_address(
    situation: &Situation,
    address: IpAddr,
    port: u16,
    protocol: &str,
    remarks: &mut Vec<Remark>,
) {
    let mut ports = BTreeSet::new();
    let mut owners = BTreeSet::new();
    for (name, service) in &situation.built.desired.services {
        for frontend in service.frontends.iter().filter(|frontend| frontend.addr == address) {
            if frontend.port == port {
                remarks.push(Remark::new(
                    "F1",
                    format!(
                        "{name} serves this address and port, but over {}, not {protocol}",
                        name.protocol
                    ),
                ));
            }
            if frontend.kind != FrontendKind::NodePort {
                owners.insert(format!("{}/{}", name.namespace, name.name));
            }
            ports.insert(format!("{}/{}", frontend.port, name.protocol));
        }
    }
    if !ports.is_empty() && remarks.is_empty() {
        let owners: Vec<_> = owners.into_iter().collect();
        let whose = if owners.is_empty() { "the node".to_owned() } else { list(&owners) };
        let ports: Vec<_> = ports.into_iter().collect();
        let text = format!("right address, wrong port: {address} is of {whose}, and serves {}", list(&ports));
        remarks.push(Remark::new("F1", text));
    }
}

/// Right node port: on an address that does not serve it.
fn node_port(situation: &Situation, address: IpAddr, port: u16, remarks: &mut Vec<Remark>) {
    let config = &situation.config;
    let own = config.node_addresses().contains(&address);
    if !own && !address.is_loopback() {
        return;
    }
    for (name, info) in &situation.built.services {
        if info.node_port != port || name.family != Family::of(address) {
            continue;
        }
        let serving: Vec<_> =
            node_port_addresses(config, name.family).iter().map(ToString::to_string).collect();
        if serving.iter().any(|known| *known == address.to_string()) {
            continue;
        }
        let text = if address.is_loopback() {
            format!("{port} is a node port of {name}, but loopback never serves node ports")
        } else {
            let serving = list(&serving);
            format!(
                "{port} is a node port of {name}, but --nodeport-addresses selects {serving}, not {address}"
            )
        };
        remarks.push(Remark::new("F6", text));
    }
}

/// An address that a Service names, but that is not served.
fn not_served(service: &Service, address: IpAddr, remarks: &mut Vec<Remark>) {
    let name = service.metadata.full_name();
    let is = |text: &str| parse_ip(text).is_ok_and(|parsed| parsed.value == address);
    let ingress = || service.status.load_balancer.ingress.iter();
    let named = explicit_cluster_ips(service).contains(&address)
        || service.spec.external_ips.iter().any(|text| is(text))
        || ingress().any(|ingress| ingress.ip.as_deref().is_some_and(is));
    if !named {
        return;
    }
    if !is_ours(&service.metadata) {
        let text = format!("the address is of Service {name}, whose labels leave it to another proxy");
        remarks.push(Remark::new("F4", text));
    } else if is_headless(service) {
        let text =
            format!("Service {name} names the address, but has no cluster address: no frontends at all");
        remarks.push(Remark::new("F3", text));
    } else if ingress()
        .any(|ingress| ingress.ip.as_deref().is_some_and(is) && ingress.ip_mode.as_deref() == Some("Proxy"))
    {
        let text =
            format!("a load balancer address of Service {name} with ipMode Proxy: left to the load balancer");
        remarks.push(Remark::new("F5", text));
    }
}

/// A backend dialled without its Service.
fn backend(situation: &Situation, address: IpAddr, remarks: &mut Vec<Remark>) {
    let mut services = BTreeSet::new();
    for (name, endpoints) in &situation.built.endpoints {
        if endpoints.iter().any(|endpoint| endpoint.backend.addr == address) {
            services.insert(Name::new(&name.namespace, &name.name));
        }
    }
    for name in services {
        let object = situation.objects.services.get(&name);
        let (rule, text) = match object {
            Some(service) if is_headless(service) => (
                "F3",
                format!("an endpoint of Service {name}, which is headless: clients dial it directly (N4)"),
            ),
            _ => ("V8", format!("an endpoint of Service {name}, dialled directly: no Service is in between")),
        };
        remarks.push(Remark::new(rule, text));
    }
}

/// The same port at another address.
fn same_port(
    situation: &Situation,
    (address, port): (IpAddr, u16),
    protocol: &str,
    remarks: &mut Vec<Remark>,
) {
    let mut found = Vec::new();
    for (name, service) in &situation.built.desired.services {
        let same = |frontend: &&crate::model::desired::Frontend| {
            frontend.port == port && Family::of(frontend.addr) == Family::of(address)
        };
        if name.protocol.to_string() == protocol
            && let Some(frontend) = service.frontends.iter().find(same)
        {
            found.push(format!("{name} at {}", frontend.addr));
        }
    }
    if !found.is_empty() && found.len() <= MOST {
        let text = format!("right port, wrong address: {port}/{protocol} is served by {}", list(&found));
        remarks.push(Remark::new("F1", text));
    }
}

/// Why a service port has no backend, or has fewer than one may think.
pub(super) fn backends(situation: &Situation, port: &ServicePortName) -> Vec<Remark> {
    let name = Name::new(&port.namespace, &port.name);
    let left_out = situation.built.left_out.iter().filter(|out| out.service == name);
    let mut remarks: Vec<_> =
        left_out.map(|out| Remark::new(out.rule, format!("{}: {}", out.what, out.reason))).collect();
    let endpoints = situation.built.endpoints.get(port);
    if endpoints.is_some_and(|list| !list.is_empty()) {
        return remarks;
    }
    let others = situation.built.endpoints.keys().filter(|other| is_port_of(other, &name));
    let others: Vec<_> = others
        .filter(|other| other.family == port.family)
        .map(|other| format!("{:?}/{}", other.port, other.protocol))
        .collect();
    if !others.is_empty() {
        let text = format!(
            "there are endpoints of the Service, but for port {}, not {:?}/{}",
            list(&others),
            port.port,
            port.protocol
        );
        remarks.push(Remark::new("B3", text));
        return remarks;
    }
    let objects = &situation.objects;
    let mut slices = objects.slices.values().filter(|slice| service_of(slice).as_ref() == Some(&name));
    if let Some(slice) = slices.next() {
        let slice_name = slice.metadata.full_name();
        let (rule, text) = if is_ours(&slice.metadata) {
            ("B1", format!("its EndpointSlices, such as {slice_name}, hold no endpoint of this family"))
        } else {
            ("F4", format!("EndpointSlice {slice_name} is left to another proxy by its labels"))
        };
        remarks.push(Remark::new(rule, text));
    } else if objects.endpoints.contains_key(&name) {
        remarks.push(Remark::new("B7", format!("Endpoints {name} holds no address of this family and port")));
    } else if let Some(service) = objects.services.get(&name) {
        remarks.push(Remark::new("B7", selector(situation, service, remarks.len())));
    }
    remarks
}

/// Why no pod is behind a Service.
fn selector(situation: &Situation, service: &Service, left_out: usize) -> String {
    let selector = &service.spec.selector;
    if selector.is_empty() {
        return "the Service has no selector, and there are no EndpointSlices or Endpoints for it".to_owned();
    }
    let text: Vec<_> = selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
    let namespace = service.metadata.namespace();
    let pods = situation.objects.pods.values().filter(|pod| pod.metadata.namespace() == namespace);
    let mut matching = 0;
    let mut labels = BTreeSet::new();
    for pod in pods {
        let labelled = selector.iter().all(|(label, value)| pod.metadata.labels.get(label) == Some(value));
        matching += usize::from(labelled);
        for (label, value) in &pod.metadata.labels {
            if selector.contains_key(label) {
                labels.insert(format!("{label}={value}"));
            }
        }
    }
    let selector = text.join(", ");
    match (matching, labels.is_empty()) {
        (0, true) => format!("no Pod in namespace {namespace} matches the selector {selector}"),
        (0, false) => {
            let labels: Vec<_> = labels.into_iter().collect();
            let labels = list(&labels);
            format!("no Pod in namespace {namespace} matches the selector {selector}; there are {labels}")
        }
        (n, _) if left_out > 0 => format!("{n} Pods match the selector {selector}, none is a backend"),
        (n, _) => format!("{n} Pods match the selector {selector}, none has an address of this family"),
    }
}
