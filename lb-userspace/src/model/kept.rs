//! The desired state kept up to date as objects change: only the Services concerned are read again.
//!
//! The outcome is that of [`build`](super::build::build) on all objects. Services meet in one thing alone, the frontends that
//! several of them want: [`ClaimMap`] knows who wants which.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use super::build::{Note, Parts, parts, service, surroundings, zone};
use super::claims::{ClaimMap, Place, place};
use super::config::ModelConfig;
use super::desired::{Desired, Edit, Family, Frontend, Service, ServicePortName, Surroundings};
use super::endpoints::{local_ready, service_of};
use super::frontends::{KINDS, Rules};
use super::health::Checks;
use super::labels;
use super::{Allocations, desired};
use crate::source::kube::{Name, Object};
use crate::source::{Change, Packed, Store};

/// What is kept of a service port.
#[derive(Debug)]
struct Port {
    service: Arc<Service>,
    /// Frontends that it wants and has not.
    lacks: Box<[Frontend]>,
}

impl Port {
    fn wanted(&self) -> impl Iterator<Item = &Frontend> {
        self.service.frontends.iter().chain(&self.lacks)
    }
}

/// What everything depends on.
#[derive(Clone, Debug, PartialEq)]
struct Ground {
    config: ModelConfig,
    zone: String,
    has_nodes: bool,
}

/// The desired state, kept.
#[derive(Debug, Default)]
pub struct Model {
    ground: Option<Ground>,
    surroundings: Surroundings,
    ports: BTreeMap<Arc<ServicePortName>, Port>,
    claims: ClaimMap,
    /// Remarks about a Service and its endpoints; most have none.
    service_notes: BTreeMap<Name, Vec<Note>>,
    /// Remarks about its frontends.
    frontend_notes: BTreeMap<Arc<ServicePortName>, Vec<Note>>,
    checks: Checks,
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub struct News<'a> {
    /// Objects.
    pub changes: &'a [Change],
    /// Services that were given something else.
    pub reallocated: &'a BTreeSet<Name>,
}

/// Where the objects are that the desired state is made of.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// What the node is like.
    pub config: &'a ModelConfig,
    /// Objects.
    pub store: &'a Store,
    /// What Services were given.
    pub allocations: &'a Allocations,
}

/// Service ports that are read again.
#[derive(Default)]
struct Work {
    /// As they were.
    before: BTreeMap<Arc<ServicePortName>, Port>,
    /// As they are, without frontends, and the frontends that they want.
    after: BTreeMap<Arc<ServicePortName>, (Service, BTreeSet<Frontend>)>,
    /// Places that somebody has begun or ceased to want.
    touched: HashSet<Place>,
}

impl Model {
    /// Node and cluster.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// True before the first update.
    pub fn is_new(&self) -> bool {
        self.ground.is_none()
    }

    /// Number of service ports.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// True without service ports.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Remarks, ordered, without duplicates.
    pub fn notes(&self) -> BTreeSet<&Note> {
        self.service_notes.values().chain(self.frontend_notes.values()).flatten().collect()
    }

    /// Health checks that are wanted, and what they are to say.
    pub fn checks(&self) -> &Checks {
        &self.checks
    }

    /// The whole desired state.
    pub fn desired(&self) -> Desired {
        let services = self.ports.iter();
        Desired {
            services: services
                .map(|(name, port)| (ServicePortName::clone(name), Service::clone(&port.service)))
                .collect(),
            surroundings: self.surroundings.clone(),
        }
    }

    /// Takes in what has changed, and gives the service ports that are not what they were.
    pub fn update(&mut self, basis: Basis<'_>, news: News<'_>) -> Vec<Edit> {
        let Basis { config, store, .. } = basis;
        self.surroundings = surroundings(config, store.nodes());
        let ground = Ground {
            config: config.clone(),
            zone: zone(config, store.nodes()),
            has_nodes: !store.nodes().is_empty(),
        };
        let mut names = if self.ground.as_ref() == Some(&ground) { concerned(store, news) } else { None };
        let names = names.take().unwrap_or_else(|| {
            let known = self.ports.keys().map(|name| Name::new(&name.namespace, &name.name));
            store.names().into_iter().chain(known).collect()
        });
        let rules = Rules::new(config);
        let mut work = Work::default();
        for name in &names {
            self.read(basis, &rules, &ground.zone, name, &mut work);
        }
        self.ground = Some(ground);
        self.give_frontends(&rules, work)
    }

    /// Reads one Service again.
    fn read(&mut self, basis: Basis<'_>, rules: &Rules<'_>, zone: &str, name: &Name, work: &mut Work) {
        let Basis { config, store, allocations } = basis;
        for known in self.ports_of(name) {
            if let Some((known, port)) = self.ports.remove_entry(&known) {
                for frontend in port.wanted() {
                    self.claims.remove(&known, frontend);
                    work.touched.insert(place(&known, frontend));
                }
                self.frontend_notes.remove(&known);
                work.before.insert(known, port);
            }
        }
        let objects = store.around([name], &config.node_name);
        let Parts { services, collected, notes } = parts(config, &objects, allocations);
        let mut check = None;
        for (port, info) in services {
            let endpoints = collected.endpoints.get(&port).map_or(&[][..], Vec::as_slice);
            let wanted: BTreeSet<Frontend> =
                KINDS.into_iter().flat_map(|kind| rules.wanted(kind, &port, &info)).collect();
            if info.health_check_node_port != 0 {
                let (_, families) = check.get_or_insert((info.health_check_node_port, BTreeSet::new()));
                families.insert(port.family);
            }
            let service = service(config, zone, &info, endpoints, Vec::new());
            let name = work.before.get_key_value(&port).map(|(known, _)| Arc::clone(known));
            let name = name.unwrap_or_else(|| Arc::new(port));
            for frontend in &wanted {
                self.claims.add(&name, frontend);
                work.touched.insert(place(&name, frontend));
            }
            work.after.insert(name, (service, wanted));
        }
        self.checks.set(name, check, || {
            local_ready(&collected.endpoints).get(name).map_or(0, |addresses| addresses.len())
        });
        match notes.is_empty() {
            true => drop(self.service_notes.remove(name)),
            false => drop(self.service_notes.insert(name.clone(), notes)),
        }
    }

    /// The service ports of a Service: they are neighbours.
    fn ports_of(&self, name: &Name) -> Vec<Arc<ServicePortName>> {
        let first = ServicePortName {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            port: String::new(),
            protocol: desired::Protocol::Tcp,
            family: Family::V4,
        };
        let from = self
            .ports
            .range::<ServicePortName, _>((Bound::Included(&first), Bound::Unbounded))
            .map(|(known, _)| known);
        from.take_while(|known| known.namespace == name.namespace && known.name == name.name)
            .cloned()
            .collect()
    }

    /// Gives frontends to those who were read, and again to those who want one of the same places.
    fn give_frontends(&mut self, rules: &Rules<'_>, work: Work) -> Vec<Edit> {
        let Work { mut before, after, touched } = work;
        let rivals = touched.iter().flat_map(|place| self.claims.names(place));
        let rivals: BTreeSet<_> = rivals.filter(|name| !after.contains_key(*name)).cloned().collect();
        let mut edits = Vec::new();
        for name in rivals {
            if let Some(port) = self.ports.remove(&name) {
                let wanted = port.wanted().copied().collect();
                let service = Service { frontends: Vec::new(), ..Service::clone(&port.service) };
                edits.extend(self.put(rules, name, service, &wanted, Some(port)));
            }
        }
        for (name, (service, wanted)) in after {
            let known = before.remove(&name);
            edits.extend(self.put(rules, name, service, &wanted, known));
        }
        edits.extend(before.into_keys().map(|name| (name, None)));
        edits
    }

    fn put(
        &mut self,
        rules: &Rules<'_>,
        name: Arc<ServicePortName>,
        service: Service,
        wanted: &BTreeSet<Frontend>,
        before: Option<Port>,
    ) -> Option<Edit> {
        let mut notes = Vec::new();
        let (mut frontends, lacks) = self.claims.decide(rules, &name, wanted.iter().copied(), &mut notes);
        frontends.shrink_to_fit();
        let service = Service { frontends, ..service };
        let known = before.map(|port| port.service).filter(|known| **known == service);
        let is_new = known.is_none();
        let service = known.unwrap_or_else(|| Arc::new(service));
        match notes.is_empty() {
            true => drop(self.frontend_notes.remove(&name)),
            false => drop(self.frontend_notes.insert(Arc::clone(&name), notes)),
        }
        let edit = is_new.then(|| (Arc::clone(&name), Some(Arc::clone(&service))));
        self.ports.insert(name, Port { service, lacks: lacks.into() });
        edit
    }
}

/// The Services that these changes are about; `None`: all of them.
fn concerned(store: &Store, news: News<'_>) -> Option<BTreeSet<Name>> {
    let mut names = news.reallocated.clone();
    for Change { before, after } in news.changes {
        let [before, after] = [before, after].map(|object| object.as_ref().and_then(Packed::unpack));
        if weight(before.as_ref()) != weight(after.as_ref()) {
            // Whoever names the pod has its weight; that is not looked up from this side.
            return None;
        }
        for object in before.iter().chain(&after) {
            match object {
                Object::Service(service) => drop(names.insert(service.metadata.full_name())),
                Object::Endpoints(endpoints) => drop(names.insert(endpoints.metadata.full_name())),
                Object::EndpointSlice(slice) => names.extend(service_of(slice)),
                Object::Pod(pod) => names.extend(store.selecting(pod)),
                Object::Node(_) | Object::Deployment(_) | Object::ReplicaSet(_) | Object::StatefulSet(_) => {}
            }
        }
    }
    Some(names)
}

fn weight(object: Option<&Object>) -> Option<&String> {
    match object? {
        Object::Pod(pod) => pod.metadata.annotations.get(labels::WEIGHT),
        _ => None,
    }
}
