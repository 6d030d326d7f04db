//! Pods: what they are made from, what they are called, and how the agent gets to know them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Letters of generated names: those of Kubernetes, which has no vowels so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Port that a pod serves when its manifest names none.
pub(super) const DEFAULT_PORT: u16 = 8080;

/// What pods of a workload are made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// Kind of the workload: Deployment, ReplicaSet, StatefulSet, DaemonSet or Pod.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// Hostname, for DNS.
    pub hostname: Option<String>,
    /// Headless Service that makes a name of the hostname, for DNS.
    pub subdomain: Option<String>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Ports that Services send to though no container names them; the lab's own server has them too.
    #[serde(default)]
    pub undeclared_ports: Vec<Port>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Hash, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image, which is not run.
    pub image: Option<String>,
    /// Program and first arguments; empty: the lab's own server runs instead.
    pub command: Vec<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<Port>,
}

/// A container's port.
#[derive(Clone, Debug, Default, PartialEq, Hash, Serialize, Deserialize)]
pub struct Port {
    /// Name, for `targetPort`.
    pub name: Option<String>,
    /// Number.
    pub number: u16,
    /// TCP, UDP or SCTP.
    pub protocol: String,
}

impl Template {
    /// Says what is wrong with it, if anything.
    ///
    /// # Errors
    /// The field and the reason.
    pub fn check(&self) -> Result<(), String> {
        for (field, name) in [("metadata.name", &self.name), ("metadata.namespace", &self.namespace)] {
            let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
            if name.len() > 63
                || !name.bytes().all(good)
                || !ends(name.bytes().next())
                || !ends(name.bytes().last())
            {
                return Err(format!("{field} {name:?} is not a Kubernetes name of at most 63 characters"));
            }
        }
        for container in &self.containers {
            if let Some(port) =
                container.ports.iter().find(|port| !["TCP", "UDP", "SCTP"].contains(&port.protocol.as_str()))
            {
                return Err(format!(
                    "container {}: protocol of port {} is {:?}, must be TCP, UDP or SCTP",
                    container.name, port.number, port.protocol
                ));
            }
        }
        Ok(())
    }

    /// Name of a new pod. `ordinal` counts the pods of a StatefulSet, `sequence` all pods that the lab ever made; the
    /// same lab with the same manifests gives the same names.
    pub fn pod_name(&self, lab: &str, ordinal: u32, sequence: u64) -> String {
        let random = || generated(&(lab, &self.namespace, &self.name, sequence), 5);
        match self.kind.as_str() {
            "Pod" => self.name.clone(),
            "StatefulSet" => format!("{}-{ordinal}", self.name),
            "Deployment" => format!("{}-{}-{}", self.name, self.template_hash(), random()),
            _ => format!("{}-{}", self.name, random()),
        }
    }

    /// Whether a pod that comes back has the name it had.
    pub fn name_is_fixed(&self) -> bool {
        matches!(self.kind.as_str(), "Pod" | "StatefulSet")
    }

    /// Labels of a pod of this name, with those that controllers add.
    pub fn pod_labels(&self, pod: &str) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        match self.kind.as_str() {
            "Deployment" => {
                labels.insert("pod-template-hash".to_owned(), self.template_hash());
            }
            "StatefulSet" => {
                labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), pod.to_owned());
            }
            _ => {}
        }
        labels
    }

    fn template_hash(&self) -> String {
        generated(&(&self.name, &self.namespace, &self.labels, &self.containers), 9)
    }

    /// Ports of one protocol that the lab's own server serves: those of all containers without a command, and those that
    /// Services send to though no container names them. With no port named at all, TCP 8080.
    pub fn served_ports(&self, protocol: &str) -> Vec<u16> {
        let own = self.containers.iter().filter(|container| container.command.is_empty());
        let mut ports: Vec<u16> = own
            .flat_map(|container| &container.ports)
            .chain(&self.undeclared_ports)
            .filter(|port| port.protocol == protocol)
            .map(|port| port.number)
            .collect();
        let none_named = self.containers.iter().all(|container| container.ports.is_empty());
        if none_named && self.undeclared_ports.is_empty() && protocol == "TCP" {
            ports.push(DEFAULT_PORT);
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether the lab's own server runs in the pods.
    pub fn has_server(&self) -> bool {
        self.containers.is_empty() || self.containers.iter().any(|container| container.command.is_empty())
    }

    /// The Kubernetes object of a running pod, as the API server would show it.
    pub fn pod_object(&self, pod: &str, node: &str, node_address: Option<IpAddr>, ips: &[IpAddr]) -> Value {
        let ports = |container: &Container| -> Vec<Value> {
            let port = |port: &Port| {
                let mut value = json!({ "containerPort": port.number, "protocol": port.protocol });
                if let Some(name) = &port.name {
                    value["name"] = json!(name);
                }
                value
            };
            container.ports.iter().map(port).collect()
        };
        let containers: Vec<Value> = self
            .containers
            .iter()
            .map(|container| json!({ "name": container.name, "image": container.image, "ports": ports(container) }))
            .collect();
        let hostname = match (&self.hostname, self.kind.as_str()) {
            (None, "StatefulSet") => Some(pod),
            (hostname, _) => hostname.as_deref(),
        };
        let conditions = ["Initialized", "PodScheduled", "ContainersReady", "Ready"]
            .map(|name| json!({ "type": name, "status": "True" }));
        without_nulls(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": pod, "namespace": self.namespace, "labels": self.pod_labels(pod) },
            "spec": {
                "nodeName": node,
                "hostname": hostname,
                "subdomain": self.subdomain,
                "containers": containers,
            },
            "status": {
                "phase": "Running",
                "hostIP": node_address,
                "podIP": ips.first(),
                "podIPs": ips.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>(),
                "conditions": conditions,
            },
        }))
    }
}

/// The Kubernetes object of the lab's node.
pub(super) fn node_object(name: &str, addresses: &[IpAddr], pod_cidrs: &[ipnet::IpNet]) -> Value {
    let mut known: Vec<Value> =
        addresses.iter().map(|address| json!({ "type": "InternalIP", "address": address })).collect();
    known.push(json!({ "type": "Hostname", "address": name }));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": { "podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs },
        "status": { "addresses": known, "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

/// Fields that the API server would leave out.
fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            for field in fields.values_mut() {
                *field = without_nulls(field.take());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_nulls(item.take())),
        _ => {}
    }
    value
}

/// `length` letters that look random and depend on `seed` alone.
fn generated(seed: &impl Hash, length: usize) -> String {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let mut rest = hasher.finish();
    let base = ALPHABET.len() as u64;
    (0..length)
        .map(|_| {
            let letter = ALPHABET[usize::try_from(rest % base).unwrap_or_default()];
            rest /= base;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Template {
        Template {
            kind: "Deployment".to_owned(),
            name: "backend".to_owned(),
            namespace: "default".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "backend".to_owned())]),
            containers: vec![Container {
                name: "web".to_owned(),
                ports: vec![
                    Port { name: Some("http".to_owned()), number: 80, protocol: "TCP".to_owned() },
                    Port { name: None, number: 53, protocol: "UDP".to_owned() },
                ],
                ..Container::default()
            }],
            ..Template::default()
        }
    }

    #[test]
    fn names_look_like_those_of_a_cluster_and_never_repeat() {
        let template = deployment();
        let names: std::collections::BTreeSet<_> =
            (0..500).map(|sequence| template.pod_name("lab", 0, sequence)).collect();
        assert_eq!(names.len(), 500);
        let hash = &template.pod_labels("x")["pod-template-hash"];
        assert!(names.iter().all(|name| name.starts_with(&format!("backend-{hash}-"))), "{names:?}");
        let stateful = Template { kind: "StatefulSet".to_owned(), ..template };
        assert_eq!(stateful.pod_name("lab", 2, 17), "backend-2");
    }

    #[test]
    fn ports_default_only_when_none_is_named() {
        let mut template = deployment();
        assert_eq!((template.served_ports("TCP"), template.served_ports("UDP")), (vec![80], vec![53]));
        template.containers[0].ports.clear();
        assert_eq!(template.served_ports("TCP"), [DEFAULT_PORT]);
        assert!(template.served_ports("UDP").is_empty());
        template.containers[0].command = vec!["sleep".to_owned()];
        assert!(!template.has_server());
    }

    #[test]
    fn the_pod_object_has_what_endpoints_follow_from() {
        let ips: Vec<IpAddr> = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let object = deployment().pod_object("backend-a", "n", None, &ips);
        assert_eq!(object["metadata"]["labels"]["app"], "backend");
        assert_eq!(object["status"]["podIPs"][1]["ip"], "fd00::5");
        assert_eq!(
            object["spec"]["containers"][0]["ports"][0],
            json!({"containerPort": 80, "protocol": "TCP", "name": "http"})
        );
        assert!(object["status"].get("hostIP").is_none(), "{object}");
    }
}
