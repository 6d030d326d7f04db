//! The Kubernetes objects that matter here, with the fields that matter here.
//!
//! Field names and defaults are those of the Kubernetes API; fields not listed are ignored. Everything the API server
//! may leave out is optional. Ranges and addresses are checked by [`crate::source::validate`], not by the types, so that a
//! refusal can name the field.

mod endpoints;
mod meta;
mod pod;
mod service;
mod workload;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

pub use endpoints::{
    Conditions, Endpoint, EndpointAddress, EndpointHints, EndpointPort, EndpointSlice, EndpointSubset,
    Endpoints, ForName, ObjectReference,
};
pub use meta::{Metadata, Name, OwnerReference};
pub use pod::{Condition, Container, ContainerPort, EnvVar, Pod, PodIp, PodSpec, PodStatus};
pub use service::{
    ClientIpConfig, IntOrString, LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec,
    ServiceStatus, SessionAffinityConfig,
};
pub use workload::{
    LabelSelector, Node, NodeAddress, NodeSpec, NodeStatus, PodTemplate, Taint, Workload, WorkloadSpec,
};

/// Kinds of objects that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Endpoints.
    Endpoints,
    /// `v1` Pod.
    Pod,
    /// `v1` Node.
    Node,
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Endpoints,
        Self::Pod,
        Self::Node,
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
    ];

    /// The kind as manifests write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
        }
    }

    /// The API group, empty for the core group.
    const fn group(self) -> &'static str {
        match self {
            Self::Service | Self::Endpoints | Self::Pod | Self::Node => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::Deployment | Self::ReplicaSet | Self::StatefulSet => "apps",
        }
    }

    /// The kind of this name in the group of this `apiVersion`; an absent `apiVersion` is any group.
    pub fn from_manifest(api_version: Option<&str>, kind: &str) -> Option<Self> {
        let kind = Self::ALL.into_iter().find(|known| known.name() == kind)?;
        match api_version {
            None => Some(kind),
            Some(version) => {
                let group = version.rsplit_once('/').map_or("", |(group, _)| group);
                (group == kind.group()).then_some(kind)
            }
        }
    }

    /// False for objects that have no namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Identity of an object. Prints as `Kind namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name; the namespace is empty for objects that have none.
    pub name: Name,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_namespaced() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}", self.kind, self.name.name)
        }
    }
}

/// Any of the objects.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind")]
pub enum Object {
    /// Service.
    Service(Service),
    /// EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// Endpoints.
    Endpoints(Endpoints),
    /// Pod.
    Pod(Pod),
    /// Node.
    Node(Node),
    /// Deployment.
    Deployment(Workload),
    /// ReplicaSet.
    ReplicaSet(Workload),
    /// StatefulSet.
    StatefulSet(Workload),
}

impl Object {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Pod(_) => Kind::Pod,
            Self::Node(_) => Kind::Node,
            Self::Deployment(_) => Kind::Deployment,
            Self::ReplicaSet(_) => Kind::ReplicaSet,
            Self::StatefulSet(_) => Kind::StatefulSet,
        }
    }

    /// Its metadata.
    pub const fn metadata(&self) -> &Metadata {
        match self {
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Endpoints(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::Deployment(object) | Self::ReplicaSet(object) | Self::StatefulSet(object) => {
                &object.metadata
            }
        }
    }

    /// Its identity.
    pub fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        let kind = self.kind();
        let namespace = if kind.is_namespaced() { metadata.namespace() } else { "" };
        ObjectKey { kind, name: Name::new(namespace, &metadata.name) }
    }

    /// Decodes an object of this kind.
    ///
    /// # Errors
    /// The path of the field that does not fit, and why.
    pub fn decode(kind: Kind, value: &Value) -> Result<Self, DecodeError> {
        fn typed<'a, T: serde::Deserialize<'a>>(value: &'a Value) -> Result<T, DecodeError> {
            serde_path_to_error::deserialize(value).map_err(|error| DecodeError {
                field: match error.path().to_string() {
                    root if root == "." => String::new(),
                    path => path,
                },
                reason: error.inner().to_string(),
            })
        }
        Ok(match kind {
            Kind::Service => Self::Service(typed(value)?),
            Kind::EndpointSlice => Self::EndpointSlice(typed(value)?),
            Kind::Endpoints => Self::Endpoints(typed(value)?),
            Kind::Pod => Self::Pod(typed(value)?),
            Kind::Node => Self::Node(typed(value)?),
            Kind::Deployment => Self::Deployment(typed(value)?),
            Kind::ReplicaSet => Self::ReplicaSet(typed(value)?),
            Kind::StatefulSet => Self::StatefulSet(typed(value)?),
        })
    }
}

/// A field that does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct DecodeError {
    /// Path of the field, as in `spec.ports[0].port`.
    pub field: String,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_group() {
        assert_eq!(Kind::from_manifest(Some("v1"), "Service"), Some(Kind::Service));
        assert_eq!(Kind::from_manifest(None, "Service"), Some(Kind::Service));
        assert_eq!(Kind::from_manifest(Some("serving.knative.dev/v1"), "Service"), None);
        assert_eq!(Kind::from_manifest(Some("apps/v1"), "Deployment"), Some(Kind::Deployment));
        assert_eq!(Kind::from_manifest(Some("v1"), "ConfigMap"), None);
    }

    #[test]
    fn decode_errors_name_the_field() {
        let value = serde_json::json!({
            "metadata": {"name": "a"},
            "spec": {"ports": [{"port": 80}, {"port": "http"}]},
        });
        let error = Object::decode(Kind::Service, &value).unwrap_err();
        assert_eq!(error.field, "spec.ports[1].port");
        assert!(error.reason.contains("http"), "{error}");
    }
}
