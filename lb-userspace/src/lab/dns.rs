//! DNS in a lab: a Service like any other, in front of the agent's own server.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::error::{Context, Error, Result};
use super::state::State;
use crate::model::services::explicit_cluster_ips;
use crate::source::Objects;
use crate::source::kube::Name;

/// Domain of the names of Services.
pub(super) const DOMAIN: &str = "cluster.local";
/// Where installers of clusters put DNS in the service range: 10.96.0.10.
const USUAL: usize = 10;
/// Places tried when somebody has the usual one.
const PLACES: usize = 100;

/// The Service that is DNS; its name in every cluster.
fn service() -> Name {
    Name::new("kube-system", "kube-dns")
}

/// Addresses for DNS: those asked for, else the usual ones of the service ranges, or the next that no Service asks for.
///
/// # Errors
/// When one that is asked for is outside of the service ranges, or another Service's.
pub(super) fn addresses(asked: &[IpAddr], ranges: &[IpNet], objects: &Objects) -> Result<Vec<IpAddr>> {
    let others = objects.services.iter().filter(|(name, _)| **name != service());
    let taken: BTreeSet<IpAddr> = others.flat_map(|(_, service)| explicit_cluster_ips(service)).collect();
    for address in asked {
        let problem = if taken.contains(address) {
            "is the address of a Service in the manifests"
        } else if !ranges.iter().any(|range| range.contains(address)) {
            "is in none of the service ranges"
        } else {
            continue;
        };
        return Err(Error::invalid(format!("DNS address {address}"), problem));
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let usual = |range: &IpNet| {
        let hosts: Box<dyn Iterator<Item = IpAddr>> = match range {
            IpNet::V4(range) => Box::new(range.hosts().map(IpAddr::V4)),
            // The first is the network's own.
            IpNet::V6(range) => Box::new(range.hosts().skip(1).map(IpAddr::V6)),
        };
        hosts.skip(USUAL - 1).take(PLACES).find(|address| !taken.contains(address))
    };
    Ok(ranges.iter().filter_map(usual).collect())
}

/// The Service and its endpoints, for the agent: clients dial the Service, the agent listens on the node's addresses.
pub(super) fn object(state: &State) -> Value {
    let Name { namespace, name } = service();
    let ports = [("dns", "UDP"), ("dns-tcp", "TCP")];
    let service_ports = ports.map(|(name, protocol)| json!({"name": name, "port": 53, "protocol": protocol}));
    let families: Vec<&str> = state.dns_addresses.iter().map(|address| family(*address)).collect();
    let mut items = vec![json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": state.dns_addresses.first(),
            "clusterIPs": state.dns_addresses,
            "ipFamilies": families,
            "ports": service_ports,
        },
    })];
    for address in &state.node_addresses {
        items.push(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{}", family(*address).to_lowercase()),
                "namespace": namespace,
                "labels": { "kubernetes.io/service-name": name },
            },
            "addressType": family(*address),
            "ports": service_ports,
            "endpoints": [{
                "addresses": [address],
                "conditions": { "ready": true },
                "nodeName": state.node,
            }],
        }));
    }
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Writes a pod's `resolv.conf`, as a kubelet would (`dnsPolicy: ClusterFirst`).
///
/// # Errors
/// When the file system refuses.
pub(super) fn write_resolv_conf(directory: &Path, servers: &[IpAddr], namespace: &str) -> Result<()> {
    let mut text = String::new();
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text.push_str(&format!("search {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\noptions ndots:5\n"));
    let path = directory.join("resolv.conf");
    fs::write(&path, text).context("write", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kube::{Kind, Object};

    fn chosen(asked: &[&str], services: &[(&str, &str, &str)]) -> Result<Vec<String>> {
        let ranges: Vec<IpNet> =
            ["10.96.0.0/16", "fd00:10:96::/112"].map(|range| range.parse().unwrap()).into();
        let asked: Vec<IpAddr> = asked.iter().map(|address| address.parse().unwrap()).collect();
        let objects = services.iter().map(|(namespace, name, address)| {
            let value =
                json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": address}});
            Object::decode(Kind::Service, &value).unwrap()
        });
        let addresses = addresses(&asked, &ranges, &objects.collect())?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn dns_has_the_usual_address_unless_somebody_has_it() {
        assert_eq!(chosen(&[], &[]).unwrap(), ["10.96.0.10", "fd00:10:96::a"]);
        // A cluster's own DNS is what the lab's takes the place of.
        assert_eq!(chosen(&[], &[("kube-system", "kube-dns", "10.96.0.10")]).unwrap()[0], "10.96.0.10");
        assert_eq!(chosen(&[], &[("default", "web", "10.96.0.10")]).unwrap()[0], "10.96.0.11");
        assert_eq!(chosen(&["10.96.7.7"], &[]).unwrap(), ["10.96.7.7"]);
    }

    #[test]
    fn addresses_that_cannot_be_are_refused() {
        let message = chosen(&["10.97.0.10"], &[]).unwrap_err().to_string();
        assert!(
            message.contains("10.97.0.10") && message.contains("none of the service ranges"),
            "{message}"
        );
        let message = chosen(&["10.96.0.9"], &[("default", "web", "10.96.0.9")]).unwrap_err().to_string();
        assert!(message.contains("is the address of a Service"), "{message}");
    }
}
