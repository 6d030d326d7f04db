//! `v1` Pod.

use serde::{Deserialize, Serialize};

use super::meta::Metadata;

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Metadata.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: PodSpec,
    /// What is.
    pub status: PodStatus,
}

/// `spec` of a Pod or of a template.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Node it is on.
    pub node_name: Option<String>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Containers that run first, or beside (`restartPolicy: Always`).
    pub init_containers: Vec<Container>,
    /// Shares the node's network.
    pub host_network: bool,
    /// Hostname, for DNS.
    pub hostname: Option<String>,
    /// Headless Service that makes a name of the hostname, for DNS.
    pub subdomain: Option<String>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    pub image: Option<String>,
    /// Program and first arguments.
    pub command: Vec<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<EnvVar>,
    /// Ports.
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
}

/// One of `env` of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value; none when it comes from elsewhere (`valueFrom`).
    pub value: Option<String>,
}

/// One of `ports` of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name, for `targetPort`.
    pub name: Option<String>,
    /// Number.
    pub container_port: i64,
    /// TCP (default), UDP, SCTP.
    pub protocol: Option<String>,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed.
    pub phase: Option<String>,
    /// First address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// At most one address of each family.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    /// Conditions, of which `Ready` counts.
    pub conditions: Vec<Condition>,
}

/// One of `podIPs`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// One of `conditions`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
}
