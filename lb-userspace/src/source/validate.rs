//! What the API server would refuse, with the field named; and remarks on what is legal but odd.

use std::collections::BTreeSet;

use super::address::{AddressError, parse_cidr, parse_ip};
use super::kube::{
    ContainerPort, EndpointPort, EndpointSlice, Endpoints, IntOrString, Metadata, Node, Object, Pod, PodSpec,
    Service, ServicePort, Workload,
};
use super::problem::Severity;
use crate::model::desired::{Family, Protocol};

/// Something to say about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFinding {
    /// Path of the field within the object.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// Errors refuse the object.
    pub severity: Severity,
}

/// Checks an object.
pub fn check(object: &Object) -> Vec<FieldFinding> {
    let mut checker = Checker(Vec::new());
    checker.metadata(object.metadata(), matches!(object, Object::Service(_)));
    match object {
        Object::Service(service) => checker.service(service),
        Object::EndpointSlice(slice) => checker.slice(slice),
        Object::Endpoints(endpoints) => checker.endpoints(endpoints),
        Object::Pod(pod) => checker.pod(pod),
        Object::Node(node) => checker.node(node),
        Object::Deployment(workload) | Object::ReplicaSet(workload) | Object::StatefulSet(workload) => {
            checker.workload(workload);
        }
    }
    checker.0
}

/// True for an RFC 1123 label: letters, digits and hyphens, at most 63.
fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|&byte| alphanumeric(byte) || byte == b'-')
        && bytes.first().is_some_and(|&byte| alphanumeric(byte))
        && bytes.last().is_some_and(|&byte| alphanumeric(byte))
}

fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// True for a port name (RFC 6335, section 5.1).
fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_dns_label(text)
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// The protocol of a manifest; TCP when left out.
///
/// # Errors
/// The text, when it is no protocol of Services.
pub fn parse_protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("{other:?} is none of TCP, UDP, SCTP")),
    }
}

struct Checker(Vec<FieldFinding>);

impl Checker {
    fn add(&mut self, severity: Severity, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(FieldFinding { field: field.into(), reason: reason.into(), severity });
    }

    fn error(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.add(Severity::Error, field, reason);
    }

    fn warning(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.add(Severity::Warning, field, reason);
    }

    fn one_of(&mut self, field: &str, value: Option<&str>, allowed: &[&str]) {
        if let Some(value) = value.filter(|value| !value.is_empty() && !allowed.contains(value)) {
            self.error(field, format!("{value:?} is none of {}", allowed.join(", ")));
        }
    }

    fn range(&mut self, field: impl Into<String>, value: i64, low: i64, high: i64) {
        if !(low..=high).contains(&value) {
            self.error(field, format!("{value} is not between {low} and {high}"));
        }
    }

    fn protocol(&mut self, field: impl Into<String>, value: Option<&str>) {
        if let Err(reason) = parse_protocol(value) {
            self.error(field, reason);
        }
    }

    /// The family, when it is an address.
    fn address(&mut self, field: impl Into<String>, text: &str) -> Option<Family> {
        match parse_ip(text) {
            Ok(parsed) => {
                if parsed.odd {
                    let reason = format!(
                        "{text} has leading zeros and is read as {}: other programs may take them for octal",
                        parsed.value
                    );
                    self.warning(field, reason);
                }
                Some(Family::of(parsed.value))
            }
            Err(error) => {
                self.error(field, error.to_string());
                None
            }
        }
    }

    fn cidr(&mut self, field: impl Into<String>, text: &str) {
        match parse_cidr(text.trim()) {
            Ok(parsed) if parsed.odd => self.warning(field, format!("{text} is read as {}", parsed.value)),
            Ok(_) => {}
            Err(AddressError::Address(text) | AddressError::Range(text)) => {
                self.error(field, AddressError::Range(text).to_string());
            }
        }
    }

    fn metadata(&mut self, metadata: &Metadata, label_only: bool) {
        if metadata.name.is_empty() {
            self.error("metadata.name", "is missing");
        } else if label_only && !is_dns_label(&metadata.name) {
            let reason = "is not a name: at most 63 of a-z, 0-9 and '-', with a letter or digit at both ends";
            self.error("metadata.name", format!("{:?} {reason}", metadata.name));
        } else if !is_dns_subdomain(&metadata.name) {
            self.error(
                "metadata.name",
                format!("{:?} is not a name: a-z, 0-9, '-' and '.' are allowed", metadata.name),
            );
        }
        if !is_dns_label(metadata.namespace()) {
            let reason = "is not a name: at most 63 of a-z, 0-9 and '-'";
            self.error("metadata.namespace", format!("{:?} {reason}", metadata.namespace()));
        }
    }

    fn service(&mut self, service: &Service) {
        let spec = &service.spec;
        self.one_of(
            "spec.type",
            spec.type_.as_deref(),
            &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
        );
        self.one_of(
            "spec.externalTrafficPolicy",
            spec.external_traffic_policy.as_deref(),
            &["Cluster", "Local"],
        );
        self.one_of(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
            &["Cluster", "Local"],
        );
        self.one_of("spec.sessionAffinity", spec.session_affinity.as_deref(), &["None", "ClientIP"]);
        let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
        self.one_of("spec.ipFamilyPolicy", spec.ip_family_policy.as_deref(), &policies);
        for (index, family) in spec.ip_families.iter().enumerate() {
            self.one_of(&format!("spec.ipFamilies[{index}]"), Some(family), &["IPv4", "IPv6"]);
        }
        if let Some(seconds) = spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
        {
            self.range("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, 1, 86_400);
        }
        if let Some(port) = spec.health_check_node_port {
            self.range("spec.healthCheckNodePort", port, 0, 65_535);
        }
        self.cluster_ips(service);
        for (index, address) in spec.external_ips.iter().enumerate() {
            self.address(format!("spec.externalIPs[{index}]"), address);
        }
        for (index, range) in spec.load_balancer_source_ranges.iter().enumerate() {
            self.cidr(format!("spec.loadBalancerSourceRanges[{index}]"), range);
        }
        for (index, ingress) in service.status.load_balancer.ingress.iter().enumerate() {
            let field = format!("status.loadBalancer.ingress[{index}]");
            self.one_of(&format!("{field}.ipMode"), ingress.ip_mode.as_deref(), &["VIP", "Proxy"]);
            if let Some(address) = ingress.ip.as_deref().filter(|address| !address.is_empty()) {
                self.address(format!("{field}.ip"), address);
            }
        }
        self.service_ports(service);
    }

    fn cluster_ips(&mut self, service: &Service) {
        let spec = &service.spec;
        let given = |address: &&str| !address.is_empty() && *address != "None";
        if let Some(address) = spec.cluster_ip.as_deref().filter(given) {
            self.address("spec.clusterIP", address);
        }
        let mut families = BTreeSet::new();
        for (index, address) in
            spec.cluster_ips.iter().map(String::as_str).enumerate().filter(|(_, a)| given(a))
        {
            let field = format!("spec.clusterIPs[{index}]");
            let repeated = spec.cluster_ip.as_deref() == Some(address);
            let family = if repeated {
                parse_ip(address).ok().map(|p| Family::of(p.value))
            } else {
                self.address(&*field, address)
            };
            if family.is_some_and(|family| !families.insert(family)) {
                self.error(field, format!("{address} is a second address of the same family"));
            }
        }
        if let (Some(one), Some(first)) = (spec.cluster_ip.as_deref(), spec.cluster_ips.first())
            && !one.is_empty()
            && one != first
            && parse_ip(one).ok().map(|parsed| parsed.value)
                != parse_ip(first).ok().map(|parsed| parsed.value)
        {
            self.error("spec.clusterIPs[0]", format!("{first} differs from clusterIP {one}"));
        }
    }

    fn service_ports(&mut self, service: &Service) {
        let spec = &service.spec;
        let portless =
            spec.type_.as_deref() == Some("ExternalName") || spec.cluster_ip.as_deref() == Some("None");
        if spec.ports.is_empty() && !portless {
            self.error("spec.ports", "is missing: a Service needs at least one port");
        }
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for (index, port) in spec.ports.iter().enumerate() {
            let field = format!("spec.ports[{index}]");
            self.service_port(&field, port);
            let name = port.name.as_deref().unwrap_or_default();
            if name.is_empty() && spec.ports.len() > 1 {
                self.error(
                    format!("{field}.name"),
                    "is missing: several ports need names to tell them apart",
                );
            } else if !name.is_empty() && !is_dns_label(name) {
                self.error(
                    format!("{field}.name"),
                    format!("{name:?} is not a name: a-z, 0-9 and '-' are allowed"),
                );
            } else if !names.insert(name) {
                self.error(format!("{field}.name"), format!("{name:?} is the name of an earlier port"));
            }
            if let Ok(protocol) = parse_protocol(port.protocol.as_deref())
                && !numbers.insert((protocol, port.port))
            {
                self.error(
                    format!("{field}.port"),
                    format!("{}/{protocol} is an earlier port, too", port.port),
                );
            }
        }
    }

    fn service_port(&mut self, field: &str, port: &ServicePort) {
        self.range(format!("{field}.port"), port.port, 1, 65_535);
        self.protocol(format!("{field}.protocol"), port.protocol.as_deref());
        if let Some(number) = port.node_port {
            self.range(format!("{field}.nodePort"), number, 0, 65_535);
        }
        match &port.target_port {
            None | Some(IntOrString::Int(0)) => {}
            Some(IntOrString::Int(number)) => self.range(format!("{field}.targetPort"), *number, 1, 65_535),
            Some(IntOrString::Name(name)) if name.is_empty() || is_port_name(name) => {}
            Some(IntOrString::Name(name)) => {
                let reason = "is not a port name: at most 15 of a-z, 0-9 and '-', with a letter among them";
                self.error(format!("{field}.targetPort"), format!("{name:?} {reason}"));
            }
        }
    }

    fn slice(&mut self, slice: &EndpointSlice) {
        self.one_of("addressType", slice.address_type.as_deref(), &["IPv4", "IPv6", "FQDN"]);
        if !slice.metadata.labels.contains_key(crate::model::labels::SERVICE_NAME) {
            let reason = "has no label kubernetes.io/service-name: it belongs to no Service";
            self.warning("metadata.labels", reason);
        }
        let family = match slice.address_type.as_deref() {
            Some("IPv4") => Some(Family::V4),
            Some("IPv6") => Some(Family::V6),
            _ => None,
        };
        for (index, port) in slice.ports.iter().enumerate() {
            self.endpoint_port(&format!("ports[{index}]"), port);
        }
        if slice.address_type.as_deref() == Some("FQDN") {
            return;
        }
        for (index, endpoint) in slice.endpoints.iter().enumerate() {
            for (number, address) in endpoint.addresses.iter().enumerate() {
                let field = format!("endpoints[{index}].addresses[{number}]");
                let found = self.address(&*field, address);
                if let (Some(family), Some(found)) = (family, found)
                    && family != found
                {
                    self.warning(field, format!("{address} is not of the slice's addressType: skipped"));
                }
            }
        }
    }

    /// Unset and 0 mean "no port" and are skipped by the model (B2).
    fn endpoint_port(&mut self, field: &str, port: &EndpointPort) {
        self.protocol(format!("{field}.protocol"), port.protocol.as_deref());
        if let Some(number) = port.port {
            self.range(format!("{field}.port"), number, 0, 65_535);
        }
    }

    fn endpoints(&mut self, endpoints: &Endpoints) {
        for (index, subset) in endpoints.subsets.iter().enumerate() {
            for (number, port) in subset.ports.iter().enumerate() {
                self.endpoint_port(&format!("subsets[{index}].ports[{number}]"), port);
            }
            for (list, addresses) in
                [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
            {
                for (number, address) in addresses.iter().enumerate() {
                    self.address(format!("subsets[{index}].{list}[{number}].ip"), &address.ip);
                }
            }
        }
    }

    fn pod(&mut self, pod: &Pod) {
        self.pod_spec("spec", &pod.spec);
        if let Some(address) = pod.status.pod_ip.as_deref().filter(|address| !address.is_empty()) {
            self.address("status.podIP", address);
        }
        for (index, address) in pod.status.pod_ips.iter().enumerate() {
            if pod.status.pod_ip.as_deref() != Some(&*address.ip) {
                self.address(format!("status.podIPs[{index}].ip"), &address.ip);
            }
        }
    }

    fn pod_spec(&mut self, field: &str, spec: &PodSpec) {
        for (list, containers) in
            [("containers", &spec.containers), ("initContainers", &spec.init_containers)]
        {
            for (index, container) in containers.iter().enumerate() {
                for (number, port) in container.ports.iter().enumerate() {
                    self.container_port(&format!("{field}.{list}[{index}].ports[{number}]"), port);
                }
            }
        }
    }

    fn container_port(&mut self, field: &str, port: &ContainerPort) {
        self.range(format!("{field}.containerPort"), port.container_port, 1, 65_535);
        self.protocol(format!("{field}.protocol"), port.protocol.as_deref());
        if let Some(name) = port.name.as_deref().filter(|name| !is_port_name(name)) {
            let reason = "is not a port name: at most 15 of a-z, 0-9 and '-', with a letter among them";
            self.error(format!("{field}.name"), format!("{name:?} {reason}"));
        }
    }

    fn node(&mut self, node: &Node) {
        if let Some(range) = node.spec.pod_cidr.as_deref().filter(|range| !range.is_empty()) {
            self.cidr("spec.podCIDR", range);
        }
        for (index, range) in node.spec.pod_cidrs.iter().enumerate() {
            self.cidr(format!("spec.podCIDRs[{index}]"), range);
        }
    }

    fn workload(&mut self, workload: &Workload) {
        if let Some(replicas) = workload.spec.replicas {
            self.range("spec.replicas", replicas, 0, i64::from(i32::MAX));
        }
        self.pod_spec("spec.template.spec", &workload.spec.template.spec);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::source::kube::Kind;

    fn findings(kind: Kind, value: &Value) -> Vec<(String, Severity)> {
        let object = Object::decode(kind, value).unwrap();
        check(&object).into_iter().map(|finding| (finding.field, finding.severity)).collect()
    }

    #[track_caller]
    fn refuses(spec: Value, field: &str) {
        let found = findings(Kind::Service, &json!({"metadata": {"name": "a"}, "spec": spec}));
        assert!(found.contains(&(field.to_owned(), Severity::Error)), "{field}: {found:?}");
    }

    #[test]
    fn z3_service_fields() {
        refuses(json!({}), "spec.ports");
        refuses(json!({"ports": [{"port": 0}]}), "spec.ports[0].port");
        refuses(json!({"ports": [{"port": 65536}]}), "spec.ports[0].port");
        refuses(json!({"ports": [{"port": 1, "protocol": "tcp"}]}), "spec.ports[0].protocol");
        refuses(json!({"ports": [{"port": 1, "targetPort": 70000}]}), "spec.ports[0].targetPort");
        refuses(json!({"ports": [{"port": 1, "targetPort": "no_name"}]}), "spec.ports[0].targetPort");
        refuses(json!({"ports": [{"port": 1, "nodePort": -1}]}), "spec.ports[0].nodePort");
        refuses(json!({"ports": [{"port": 1}, {"port": 2}]}), "spec.ports[0].name");
        refuses(json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}), "spec.ports[1].name");
        refuses(json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}), "spec.ports[1].port");
        refuses(json!({"clusterIP": "10.0.0.300"}), "spec.clusterIP");
        refuses(json!({"clusterIP": "10.0.0.3", "clusterIPs": ["10.0.0.4"]}), "spec.clusterIPs[0]");
        refuses(json!({"clusterIPs": ["10.0.0.3", "10.0.0.4"]}), "spec.clusterIPs[1]");
        refuses(json!({"externalIPs": ["x"]}), "spec.externalIPs[0]");
        refuses(json!({"loadBalancerSourceRanges": ["10.0.0.0"]}), "spec.loadBalancerSourceRanges[0]");
        refuses(json!({"type": "Cluster"}), "spec.type");
        refuses(json!({"externalTrafficPolicy": "local"}), "spec.externalTrafficPolicy");
        refuses(
            json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        );
    }

    #[test]
    fn z3_names() {
        for name in ["", "Web", "a.b", "-a", "a_b", &"a".repeat(64)] {
            let found = findings(
                Kind::Service,
                &json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 1}]}}),
            );
            assert_eq!(found, [("metadata.name".to_owned(), Severity::Error)], "{name}");
        }
        let found = findings(Kind::Pod, &json!({"metadata": {"name": "a.b", "namespace": "a.b"}}));
        assert_eq!(found, [("metadata.namespace".to_owned(), Severity::Error)]);
    }

    #[test]
    fn f7_leading_zeros_are_a_warning() {
        let service = json!({
            "metadata": {"name": "a"},
            "spec": {"clusterIP": "10.0.0.010", "ports": [{"port": 1}], "loadBalancerSourceRanges": [" 10.0.0.0/8"]},
        });
        assert_eq!(findings(Kind::Service, &service), [("spec.clusterIP".to_owned(), Severity::Warning)]);
    }

    #[test]
    fn b2_wrong_family_is_a_warning_only() {
        let slice = json!({
            "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "a"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["fd00::1"]}, {"addresses": ["nobody"]}],
            "ports": [{"port": 0}, {}],
        });
        assert_eq!(
            findings(Kind::EndpointSlice, &slice),
            [
                ("endpoints[0].addresses[0]".to_owned(), Severity::Warning),
                ("endpoints[1].addresses[0]".to_owned(), Severity::Error),
            ]
        );
    }

    #[test]
    fn good_objects_have_no_findings() {
        let service = json!({
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
                "ports": [{"port": 53, "name": "u", "protocol": "UDP"}, {"port": 53, "name": "t", "targetPort": "dns-tcp"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "x"}]}},
        });
        assert_eq!(findings(Kind::Service, &service), []);
        assert_eq!(
            findings(Kind::Service, &json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "None"}})),
            []
        );
    }
}
