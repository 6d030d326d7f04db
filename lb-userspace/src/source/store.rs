//! All objects in force, in compact form, and how those that belong together are found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::kube::{Kind, Name, Node, Object, ObjectReference, Pod, Service};
use super::objects::Objects;
use super::packed::{Digest, Packed};
use crate::model::endpoints::service_of;

/// An object that came, changed or went.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// As it was; `None` = it was not there.
    pub before: Option<Packed>,
    /// As it is; `None` = it is gone.
    pub after: Option<Packed>,
}

/// An object, and the number of the file it is from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) object: Packed,
    pub(super) file: u32,
}

/// Objects in force.
#[derive(Debug, Default)]
pub struct Store {
    held: HashMap<Digest, Held>,
    /// What objects are found by (see [`marks`]), and which objects. Two marks may be equal by chance: who looks checks.
    marks: BTreeSet<(u64, Digest)>,
    nodes: BTreeMap<Name, Arc<Node>>,
}

fn slices_of(service: &Name) -> u64 {
    Digest::of(&["slices", &service.namespace, &service.name]).half()
}

fn pods_with(namespace: &str, label: &str, value: &str) -> u64 {
    Digest::of(&["pods", namespace, label, value]).half()
}

fn services_selecting(namespace: &str, label: &str, value: &str) -> u64 {
    Digest::of(&["services", namespace, label, value]).half()
}

/// What an object is found by: a slice by its Service, a pod by each of its labels, a Service by the first label it selects.
fn marks(object: &Object) -> Vec<u64> {
    match object {
        Object::EndpointSlice(slice) => service_of(slice).iter().map(slices_of).collect(),
        Object::Pod(pod) => {
            let namespace = pod.metadata.namespace();
            pod.metadata.labels.iter().map(|(label, value)| pods_with(namespace, label, value)).collect()
        }
        Object::Service(service) => {
            let namespace = service.metadata.namespace();
            let first = service.spec.selector.first_key_value();
            first.map(|(label, value)| services_selecting(namespace, label, value)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

impl Store {
    pub(super) fn held(&self) -> &HashMap<Digest, Held> {
        &self.held
    }

    /// Puts an object in, exchanges it or takes it out; `None` when nothing changes but, maybe, the file.
    pub(super) fn set(&mut self, id: Digest, after: Option<Held>) -> Option<Change> {
        let before = self.held.remove(&id).map(|held| held.object);
        let now = after.as_ref().map(|held| held.object.clone());
        if let Some(after) = after {
            self.held.insert(id, after);
        }
        if before == now {
            return None;
        }
        if let Some(object) = before.as_ref().and_then(Packed::unpack) {
            for mark in marks(&object) {
                self.marks.remove(&(mark, id));
            }
            if let Object::Node(node) = object {
                self.nodes.remove(&Name::new("", &node.metadata.name));
            }
        }
        if let Some(object) = now.as_ref().and_then(Packed::unpack) {
            self.marks.extend(marks(&object).into_iter().map(|mark| (mark, id)));
            if let Object::Node(node) = object {
                self.nodes.insert(Name::new("", &node.metadata.name), Arc::new(node));
            }
        }
        Some(Change { before, after: now })
    }

    fn object(&self, id: Digest) -> Option<Object> {
        self.held.get(&id)?.object.unpack()
    }

    fn marked(&self, mark: u64) -> impl Iterator<Item = Object> + '_ {
        let first = (mark, Digest::MIN);
        let marked = self.marks.range(first..).take_while(move |(other, _)| *other == mark);
        marked.filter_map(|(_, id)| self.object(*id))
    }

    /// All objects.
    pub fn all(&self) -> Objects {
        self.held.values().filter_map(|held| held.object.unpack()).collect()
    }

    /// All Services, and nothing else.
    pub fn services(&self) -> Objects {
        let services = self.held.values().filter(|held| held.object.kind() == Some(Kind::Service));
        services.filter_map(|held| held.object.unpack()).collect()
    }

    /// A Service.
    pub fn service(&self, name: &Name) -> Option<Service> {
        match self.object(Digest::of_object(Kind::Service, name))? {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> &BTreeMap<Name, Arc<Node>> {
        &self.nodes
    }

    /// Names of all Services, and of those that slices are for.
    pub fn names(&self) -> BTreeSet<Name> {
        let objects = self.held.values().filter_map(|held| match held.object.kind()? {
            Kind::Service | Kind::EndpointSlice => held.object.unpack(),
            _ => None,
        });
        objects
            .filter_map(|object| match object {
                Object::Service(service) => Some(service.metadata.full_name()),
                Object::EndpointSlice(slice) => service_of(&slice),
                _ => None,
            })
            .collect()
    }

    /// Services that may select a pod with these labels.
    pub fn selecting(&self, pod: &Pod) -> Vec<Name> {
        let namespace = pod.metadata.namespace();
        let mut names = Vec::new();
        for (label, value) in &pod.metadata.labels {
            for object in self.marked(services_selecting(namespace, label, value)) {
                if let Object::Service(service) = object {
                    names.push(service.metadata.full_name());
                }
            }
        }
        names
    }

    /// Everything that these Services' ports and backends are made of: themselves, their slices or Endpoints, the pods that those
    /// name or, without any, that they select. Of the nodes, `node` and as many as tell that there are some.
    pub fn around<'a>(&self, names: impl IntoIterator<Item = &'a Name>, node: &str) -> Objects {
        let mut objects = Objects::default();
        for name in names {
            self.add(name, &mut objects);
        }
        let own = self.nodes.get_key_value(&Name::new("", node));
        let nodes = self.nodes.first_key_value().into_iter().chain(own);
        objects.nodes.extend(nodes.map(|(name, node)| (name.clone(), Arc::clone(node))));
        objects
    }

    fn add(&self, name: &Name, to: &mut Objects) {
        let mut has_endpoints = false;
        for object in self.marked(slices_of(name)) {
            if let Object::EndpointSlice(slice) = &object
                && service_of(slice).as_ref() == Some(name)
            {
                has_endpoints = true;
                for endpoint in &slice.endpoints {
                    self.add_referred(endpoint.target_ref.as_ref(), &name.namespace, to);
                }
                to.insert(object.into());
            }
        }
        if let Some(object) = self.object(Digest::of_object(Kind::Endpoints, name)) {
            has_endpoints = true;
            if let Object::Endpoints(endpoints) = &object {
                let addresses = endpoints
                    .subsets
                    .iter()
                    .flat_map(|set| set.addresses.iter().chain(&set.not_ready_addresses));
                for address in addresses {
                    self.add_referred(address.target_ref.as_ref(), &name.namespace, to);
                }
            }
            to.insert(object.into());
        }
        let service = self.object(Digest::of_object(Kind::Service, name));
        if let (Some(Object::Service(service)), false) = (&service, has_endpoints) {
            self.add_selected(service, to);
        }
        if let Some(service) = service {
            to.insert(service.into());
        }
    }

    fn add_selected(&self, service: &Service, to: &mut Objects) {
        let namespace = service.metadata.namespace();
        let selector = &service.spec.selector;
        let Some((label, value)) = selector.first_key_value() else { return };
        for object in self.marked(pods_with(namespace, label, value)) {
            if let Object::Pod(pod) = &object
                && selector.iter().all(|(label, value)| pod.metadata.labels.get(label) == Some(value))
            {
                to.insert(object.into());
            }
        }
    }

    fn add_referred(&self, reference: Option<&ObjectReference>, namespace: &str, to: &mut Objects) {
        let pod = reference.and_then(|reference| reference.pod(namespace));
        if let Some(object) = pod.and_then(|name| self.object(Digest::of_object(Kind::Pod, &name))) {
            to.insert(object.into());
        }
    }
}
