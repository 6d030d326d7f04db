//! Everything that is known before a packet comes.

use std::net::IpAddr;

use std::sync::Arc;

use ipnet::IpNet;

use super::Args;
use crate::agent;
use crate::model::allocate::Allocator;
use crate::model::build::{self, Built};
use crate::model::desired::{Service, ServicePortName};
use crate::model::topology::{Standings, standings};
use crate::model::{Allocations, Interface, ModelConfig, Note};
use crate::source::Objects;
use crate::source::address::parse_ip;
use crate::source::kube::Name;

/// Objects, and the state that follows from them.
#[derive(Debug)]
pub struct Situation {
    /// What the model was told.
    pub config: ModelConfig,
    /// The objects.
    pub objects: Arc<Objects>,
    /// Addresses and node ports given.
    pub allocations: Allocations,
    /// What the model made of them.
    pub built: Built,
    /// Remarks of the model's and the allocator's.
    pub notes: Vec<Note>,
    zone: String,
}

impl Situation {
    /// Builds the desired state as the agent would.
    ///
    /// # Errors
    /// With `--live`, when this node's interfaces cannot be listed.
    pub fn new(args: &Args, objects: Arc<Objects>) -> anyhow::Result<Self> {
        let (interfaces, primary) = if args.live && args.node_address.is_empty() {
            agent::surroundings()?
        } else {
            node(args, &objects)
        };
        let config = args.model.config(interfaces, primary);
        let (mut allocator, _unreadable) = Allocator::open(args.model.ranges(), args.state_file.clone());
        let (allocations, mut notes) = allocator.allocate(&objects);
        let allocations = allocations.clone();
        let built = build::build(&config, &objects, &allocations);
        notes.extend(built.notes.iter().cloned());
        notes.sort();
        notes.dedup();
        let zone = build::zone(&config, &objects.nodes);
        Ok(Self { config, objects, allocations, built, notes, zone })
    }

    /// A service port.
    pub(super) fn service(&self, name: &ServicePortName) -> Option<&Service> {
        self.built.desired.services.get(name)
    }

    /// Why each backend of a service port is in its lists or out of them, in the order of [`Service::backends`].
    pub(super) fn standings(&self, name: &ServicePortName) -> Standings {
        let Some(info) = self.built.services.get(name) else {
            return Standings::default();
        };
        let endpoints = self.built.endpoints.get(name).map_or(&[][..], Vec::as_slice);
        standings(build::question(&self.config, &self.zone, info), endpoints)
    }

    /// The zone of the node, empty when unknown.
    pub(super) fn zone(&self) -> &str {
        &self.zone
    }
}

/// The node as options or, without any, its Node object describe it. The first address of each family is the one on the
/// default route.
fn node(args: &Args, objects: &Objects) -> (Vec<Interface>, Vec<IpAddr>) {
    let mut addresses = args.node_address.clone();
    if addresses.is_empty() {
        let node = objects.nodes.get(&Name::new("", &args.model.node_name));
        let texts = node.into_iter().flat_map(|node| &node.status.addresses).map(|address| &address.address);
        addresses
            .extend(texts.filter_map(|text| parse_ip(text).ok()).map(|parsed| IpNet::from(parsed.value)));
    }
    let first = |v4: bool| addresses.iter().map(IpNet::addr).find(|address| address.is_ipv4() == v4);
    let primary = [first(true), first(false)].into_iter().flatten().collect();
    (vec![Interface { name: "node".to_owned(), addresses }], primary)
}
