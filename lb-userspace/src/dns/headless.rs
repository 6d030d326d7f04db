//! Endpoints of headless Services (N4): from EndpointSlices, else Endpoints, else Pods, as B7 has it for all Services.
//!
//! The model's backends will not do: they have no hostnames, and an endpoint without ports is none of them.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::model::config::{ModelConfig, families_of};
use crate::model::desired::{Family, Protocol};
use crate::model::endpoints::{EndpointReader, pod_address, service_of, target_port};
use crate::model::services::{port_number, wanted_families};
use crate::source::Objects;
use crate::source::address::parse_ip;
use crate::source::kube::{EndpointPort, EndpointSlice, Name, Pod, Service};
use crate::source::validate::parse_protocol;

/// An endpoint that has records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) hostname: Option<String>,
    /// Named ports.
    pub(super) ports: Vec<Port>,
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) number: u16,
}

/// Finds endpoints of Services.
pub(super) struct Finder<'a> {
    objects: &'a Objects,
    reader: &'a EndpointReader<'a>,
    slices: HashMap<Name, Vec<&'a EndpointSlice>>,
    /// Families of the service ranges.
    available: Vec<Family>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(model: &ModelConfig, objects: &'a Objects, reader: &'a EndpointReader<'a>) -> Self {
        let mut slices: HashMap<Name, Vec<&EndpointSlice>> = HashMap::new();
        for slice in objects.slices.values() {
            if let Some(service) = service_of(slice) {
                slices.entry(service).or_default().push(slice);
            }
        }
        Self { objects, reader, slices, available: families_of(&model.service_cidrs) }
    }

    /// Families that a controller would make slices of for this Service.
    fn families(&self, service: &Service) -> Vec<Family> {
        match wanted_families(service, &self.available).as_slice() {
            // Nobody says which families the cluster has.
            [] => vec![Family::V4, Family::V6],
            families => families.to_vec(),
        }
    }

    /// The endpoints of a Service that are ready, or all of them when it publishes those that are not.
    pub(super) fn endpoints(&self, service: &'a Service) -> Vec<Endpoint> {
        let name = service.metadata.full_name();
        let all = service.spec.publish_not_ready_addresses;
        if let Some(slices) = self.slices.get(&name) {
            return slices.iter().flat_map(|slice| from_slice(slice, all)).collect();
        }
        let Some(endpoints) = self.objects.endpoints.get(&name) else {
            let families = self.families(service);
            let pods = self.reader.selected(service);
            return pods.flat_map(|pod| from_pod(pod, service, all, &families)).collect();
        };
        let mut found = Vec::new();
        for subset in &endpoints.subsets {
            let ports = named(&subset.ports);
            let late = subset.not_ready_addresses.iter().filter(|_| all);
            for known in subset.addresses.iter().chain(late) {
                if let Ok(address) = parse_ip(&known.ip) {
                    let hostname = known.hostname.clone();
                    found.push(Endpoint { address: address.value, hostname, ports: ports.clone() });
                }
            }
        }
        found
    }
}

fn from_slice(slice: &EndpointSlice, all: bool) -> impl Iterator<Item = Endpoint> {
    let declared = match slice.address_type.as_deref() {
        Some("IPv4") => Some(Family::V4),
        Some("IPv6") => Some(Family::V6),
        _ => None,
    };
    let ports = named(&slice.ports);
    let ready = slice.endpoints.iter().filter(move |known| all || known.conditions.ready.unwrap_or(true));
    ready.filter_map(move |known| {
        let address = parse_ip(known.addresses.first()?).ok()?.value;
        declared.is_none_or(|family| family == Family::of(address)).then(|| Endpoint {
            address,
            hostname: known.hostname.clone(),
            ports: ports.clone(),
        })
    })
}

fn named(ports: &[EndpointPort]) -> Vec<Port> {
    let ports = ports.iter().filter_map(|port| {
        let name = port.name.clone().filter(|name| !name.is_empty())?;
        let protocol = parse_protocol(port.protocol.as_deref()).ok()?;
        Some(Port { name, protocol, number: port.port.and_then(port_number)? })
    });
    ports.collect()
}

/// An endpoint for each of these families that the pod has an address of.
fn from_pod<'a>(
    pod: &'a Pod,
    service: &'a Service,
    all: bool,
    families: &[Family],
) -> impl Iterator<Item = Endpoint> + use<'a> {
    let ended = matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let conditions = &pod.status.conditions;
    let ready = conditions.iter().find(|c| c.type_ == "Ready").is_none_or(|c| c.status == "True")
        && pod.metadata.deletion_timestamp.is_none();
    // As the endpoint controllers do it: the pod must want to be named below this very Service.
    let subdomain = pod.spec.subdomain.as_deref() == Some(&service.metadata.name);
    let hostname = pod.spec.hostname.clone().filter(|hostname| subdomain && !hostname.is_empty());
    let ports = service.spec.ports.iter().filter_map(|port| {
        let name = port.name.clone().filter(|name| !name.is_empty())?;
        let protocol = parse_protocol(port.protocol.as_deref()).ok()?;
        Some(Port { name, protocol, number: target_port(port, protocol, pod)? })
    });
    let ports: Vec<_> = ports.collect();
    let wanted = !ended && (ready || all);
    let families = if wanted { families.to_vec() } else { Vec::new() };
    families.into_iter().filter_map(move |family| {
        let address = pod_address(pod, family)?;
        Some(Endpoint { address, hostname: hostname.clone(), ports: ports.clone() })
    })
}
