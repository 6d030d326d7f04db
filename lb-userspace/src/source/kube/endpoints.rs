//! `discovery.k8s.io/v1` EndpointSlice and `v1` Endpoints.

use serde::{Deserialize, Serialize};

use super::meta::{Metadata, Name};

/// An EndpointSlice. Belongs to the Service that its label `kubernetes.io/service-name` names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Metadata.
    pub metadata: Metadata,
    /// IPv4, IPv6, FQDN.
    pub address_type: Option<String>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports that all of its endpoints have.
    pub ports: Vec<EndpointPort>,
}

/// One of `endpoints`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses, of which only the first counts.
    pub addresses: Vec<String>,
    /// State.
    pub conditions: Conditions,
    /// Node it is on.
    pub node_name: Option<String>,
    /// Zone it is in.
    pub zone: Option<String>,
    /// Hostname, for DNS.
    pub hostname: Option<String>,
    /// The pod behind it.
    pub target_ref: Option<ObjectReference>,
    /// Who should prefer it.
    pub hints: Option<EndpointHints>,
}

/// `conditions` of an endpoint; unset means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conditions {
    /// Takes new connections.
    pub ready: Option<bool>,
    /// Answers.
    pub serving: Option<bool>,
    /// On its way out.
    pub terminating: Option<bool>,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// Zones.
    pub for_zones: Vec<ForName>,
    /// Nodes.
    pub for_nodes: Vec<ForName>,
}

/// A zone or node in hints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForName {
    /// Its name.
    pub name: String,
}

/// A reference to another object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// Kind.
    pub kind: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
}

impl ObjectReference {
    /// The pod it refers to, if it does, in an object of this namespace.
    pub fn pod(&self, namespace: &str) -> Option<Name> {
        let namespace = self.namespace.as_deref().filter(|text| !text.is_empty()).unwrap_or(namespace);
        (self.kind.as_deref() == Some("Pod")).then_some(Name::new(namespace, self.name.as_deref()?))
    }
}

/// One of `ports`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The name of the service port it is for.
    pub name: Option<String>,
    /// TCP (default), UDP, SCTP.
    pub protocol: Option<String>,
    /// The number; unset means all ports, which no Service asks for.
    pub port: Option<i64>,
}

/// The older form, one for each Service, of the same name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// Metadata.
    pub metadata: Metadata,
    /// Addresses and ports that belong together.
    pub subsets: Vec<EndpointSubset>,
}

/// One of `subsets`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSubset {
    /// Ready addresses.
    pub addresses: Vec<EndpointAddress>,
    /// Addresses that are not ready.
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Ports.
    pub ports: Vec<EndpointPort>,
}

/// One of `addresses`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointAddress {
    /// The address.
    pub ip: String,
    /// Node it is on.
    pub node_name: Option<String>,
    /// Hostname, for DNS.
    pub hostname: Option<String>,
    /// The pod behind it.
    pub target_ref: Option<ObjectReference>,
}
