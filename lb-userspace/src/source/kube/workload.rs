//! Objects that make pods (`apps/v1` Deployment, ReplicaSet, StatefulSet), and `v1` Node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::meta::Metadata;
use super::pod::PodSpec;

/// A Deployment, ReplicaSet or StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Metadata.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: WorkloadSpec,
}

/// `spec` of a workload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// Number of pods, 1 when left out.
    pub replicas: Option<i64>,
    /// Headless Service of a StatefulSet, for DNS.
    pub service_name: Option<String>,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// What its pods look like.
    pub template: PodTemplate,
}

/// `selector` of a workload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be there.
    pub match_labels: BTreeMap<String, String>,
}

/// `template` of a workload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Metadata; the name does not matter.
    pub metadata: Metadata,
    /// What is in the pods.
    pub spec: PodSpec,
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Metadata.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: NodeSpec,
    /// What is.
    pub status: NodeStatus,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// Range its pods have their addresses from.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// The same for both families.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// Taints.
    pub taints: Vec<Taint>,
}

/// One of `taints`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    /// Its key.
    pub key: String,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Addresses.
    pub addresses: Vec<NodeAddress>,
}

/// One of `addresses`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAddress {
    /// InternalIP, ExternalIP, Hostname.
    #[serde(rename = "type")]
    pub type_: String,
    /// The address.
    pub address: String,
}
