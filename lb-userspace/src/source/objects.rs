//! All objects known, by identity.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kube::{EndpointSlice, Endpoints, Kind, Name, Node, Object, Pod, Service, Workload};

/// All objects known. Cheap to clone; objects are shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// Services.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// EndpointSlices.
    pub slices: BTreeMap<Name, Arc<EndpointSlice>>,
    /// Endpoints.
    pub endpoints: BTreeMap<Name, Arc<Endpoints>>,
    /// Pods.
    pub pods: BTreeMap<Name, Arc<Pod>>,
    /// Nodes; their namespace is empty.
    pub nodes: BTreeMap<Name, Arc<Node>>,
    /// Deployments, ReplicaSets and StatefulSets.
    pub workloads: BTreeMap<(Kind, Name), Arc<Workload>>,
}

/// An object, shared.
#[derive(Clone, Debug, PartialEq)]
pub enum SharedObject {
    /// Service.
    Service(Arc<Service>),
    /// EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// Endpoints.
    Endpoints(Arc<Endpoints>),
    /// Pod.
    Pod(Arc<Pod>),
    /// Node.
    Node(Arc<Node>),
    /// Deployment, ReplicaSet or StatefulSet.
    Workload(Kind, Arc<Workload>),
}

impl From<Object> for SharedObject {
    fn from(object: Object) -> Self {
        let kind = object.kind();
        match object {
            Object::Service(object) => Self::Service(Arc::new(object)),
            Object::EndpointSlice(object) => Self::EndpointSlice(Arc::new(object)),
            Object::Endpoints(object) => Self::Endpoints(Arc::new(object)),
            Object::Pod(object) => Self::Pod(Arc::new(object)),
            Object::Node(object) => Self::Node(Arc::new(object)),
            Object::Deployment(object) | Object::ReplicaSet(object) | Object::StatefulSet(object) => {
                Self::Workload(kind, Arc::new(object))
            }
        }
    }
}

impl Objects {
    /// Puts an object in, in place of an earlier one of the same identity.
    pub fn insert(&mut self, object: SharedObject) {
        match object {
            SharedObject::Service(object) => drop(self.services.insert(object.metadata.full_name(), object)),
            SharedObject::EndpointSlice(object) => {
                drop(self.slices.insert(object.metadata.full_name(), object))
            }
            SharedObject::Endpoints(object) => {
                drop(self.endpoints.insert(object.metadata.full_name(), object))
            }
            SharedObject::Pod(object) => drop(self.pods.insert(object.metadata.full_name(), object)),
            SharedObject::Node(object) => {
                drop(self.nodes.insert(Name::new("", &object.metadata.name), object))
            }
            SharedObject::Workload(kind, object) => {
                drop(self.workloads.insert((kind, object.metadata.full_name()), object));
            }
        }
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.services.len()
            + self.slices.len()
            + self.endpoints.len()
            + self.pods.len()
            + self.nodes.len()
            + self.workloads.len()
    }

    /// True without objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<Object> for Objects {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut all = Self::default();
        for object in objects {
            all.insert(object.into());
        }
        all
    }
}
