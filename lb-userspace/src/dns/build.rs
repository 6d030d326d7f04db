//! Objects to names (N1–N5), after the Kubernetes DNS specification 1.1.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SRV, TXT};
use hickory_proto::rr::{Name as DomainName, RData};

use super::headless::{Endpoint, Finder};
use super::names::{absolute, below, dashed};
use super::zone::Zone;
use crate::model::desired::{Family, Protocol};
use crate::model::endpoints::{EndpointReader, pod_address, service_of};
use crate::model::services::{explicit_cluster_ips, is_headless, port_number};
use crate::model::{Allocations, ModelConfig};
use crate::source::address::parse_ip;
use crate::source::kube::{Name, Object, Service};
use crate::source::validate::parse_protocol;
use crate::source::{Change, Objects, Packed, Store};

/// Version of the specification that the records follow.
const SCHEMA: &str = "1.1.0";
/// One for all: only equal backends share a name.
const PRIORITY: u16 = 0;
const WEIGHT: u16 = 100;

/// What zones have in common.
#[derive(Clone, Debug)]
pub struct ZoneConfig {
    /// The cluster domain.
    pub domain: DomainName,
    /// Seconds that answers may be remembered.
    pub ttl: u32,
    /// Addresses of this server, for `NS`.
    pub servers: Vec<IpAddr>,
}

/// Whether names may be others after these changes. Backends of Services that have an address of their own have no names.
pub fn concerned(changes: &[Change], store: &Store) -> bool {
    let named = |service: &Name| store.service(service).is_some_and(|service| is_headless(&service));
    let objects = changes.iter().flat_map(|change| change.before.iter().chain(&change.after));
    objects.filter_map(Packed::unpack).any(|object| match object {
        Object::Service(_) | Object::Pod(_) => true,
        Object::EndpointSlice(slice) => service_of(&slice).is_some_and(|service| named(&service)),
        Object::Endpoints(endpoints) => named(&endpoints.metadata.full_name()),
        Object::Node(_) | Object::Deployment(_) | Object::ReplicaSet(_) | Object::StatefulSet(_) => false,
    })
}

/// Makes the zone of objects. The order in which objects came does not matter.
pub fn build(
    config: &ZoneConfig,
    serial: u32,
    model: &ModelConfig,
    objects: &Objects,
    allocations: &Allocations,
) -> Zone {
    let ranges = [&model.service_cidrs[..], &model.pod_cidrs].concat();
    let mut zone = Zone::new(config.domain.clone(), serial, config.ttl, ranges);
    if let Some(name) = below(&["dns-version"], &config.domain) {
        zone.add(name, RData::TXT(TXT::new(vec![SCHEMA.to_owned()])));
    }
    let server = zone.name_server();
    zone.add(config.domain.clone(), RData::NS(NS(server.clone())));
    for address in &config.servers {
        zone.add(server.clone(), address_data(*address));
    }
    let reader = EndpointReader::new(model, objects);
    let finder = Finder::new(model, objects, &reader);
    for service in objects.services.values() {
        let (namespace, name) = (service.metadata.namespace(), &*service.metadata.name);
        let Some(own) = below(&[name, namespace, "svc"], &config.domain) else { continue };
        if service.spec.type_.as_deref() == Some("ExternalName") {
            external(&mut zone, own, service);
        } else if is_headless(service) {
            headless(&mut zone, &own, &finder.endpoints(service));
        } else {
            let given = allocations.cluster_ips.get(&service.metadata.full_name());
            cluster_ip(&mut zone, &own, service, given.into_iter().flatten().copied());
        }
    }
    pods(&mut zone, objects);
    zone.sort();
    zone
}

/// N1, N2.
fn cluster_ip(zone: &mut Zone, own: &DomainName, service: &Service, given: impl Iterator<Item = IpAddr>) {
    // Without an address the name exists all the same: the Service does.
    zone.touch(own.clone());
    let addresses: Vec<_> = explicit_cluster_ips(service).into_iter().chain(given).collect();
    for family in [Family::V4, Family::V6] {
        if let Some(address) = addresses.iter().find(|address| Family::of(**address) == family) {
            zone.add(own.clone(), address_data(*address));
            zone.add_pointer(*address, own.clone());
        }
    }
    for port in &service.spec.ports {
        if let (Some(name), Ok(protocol), Some(number)) =
            (port.name.as_deref(), parse_protocol(port.protocol.as_deref()), port_number(port.port))
        {
            add_service(zone, own, (name, protocol, number), own.clone());
        }
    }
}

/// N4. A Service without endpoints that are ready has no name, as the specification says.
fn headless(zone: &mut Zone, own: &DomainName, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        let address = address_data(endpoint.address);
        zone.add(own.clone(), address.clone());
        let hostname = endpoint.hostname.clone().filter(|hostname| !hostname.is_empty());
        let label = hostname.clone().unwrap_or_else(|| dashed(endpoint.address));
        let Some(name) = below(&[&label], own) else { continue };
        zone.add(name.clone(), address);
        if hostname.is_some() {
            zone.add_pointer(endpoint.address, name.clone());
        }
        for port in &endpoint.ports {
            add_service(zone, own, (&port.name, port.protocol, port.number), name.clone());
        }
    }
}

/// N5. An address is no name, and so has no CNAME; Kubernetes warns of it, too.
fn external(zone: &mut Zone, own: DomainName, service: &Service) {
    let target = service.spec.external_name.as_deref().filter(|text| parse_ip(text).is_err());
    if let Some(target) = target.and_then(absolute) {
        zone.add(own, RData::CNAME(CNAME(target)));
    }
}

/// An SRV record (RFC 2782). Ports without a name have none.
fn add_service(zone: &mut Zone, own: &DomainName, port: (&str, Protocol, u16), target: DomainName) {
    let (name, protocol, number) = port;
    let protocol = match protocol {
        Protocol::Tcp => "_tcp",
        Protocol::Udp => "_udp",
        Protocol::Sctp => "_sctp",
    };
    if let Some(name) = Some(name).filter(|name| !name.is_empty())
        && let Some(name) = below(&[&format!("_{name}"), protocol], own)
    {
        zone.add(name, RData::SRV(SRV::new(PRIORITY, WEIGHT, number, target)));
    }
}

/// `10-1-0-5.namespace.pod`: for pods that there are, with addresses that they have.
///
/// kube-dns made up such a record for any address, which lets anybody who can get a certificate for a wildcard name be
/// anything; CoreDNS calls that `insecure` and this `verified`.
fn pods(zone: &mut Zone, objects: &Objects) {
    for pod in objects.pods.values() {
        let ended = matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        for address in [Family::V4, Family::V6].into_iter().filter_map(|family| pod_address(pod, family)) {
            let labels = [&*dashed(address), pod.metadata.namespace(), "pod"];
            if let Some(name) = below(&labels, zone.domain()).filter(|_| !ended) {
                zone.add(name, address_data(address));
            }
        }
    }
}

pub(super) fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}
