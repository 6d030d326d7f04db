//! Node ports, and the ports of health checks, which are from the same range.

use std::collections::HashSet;

use super::super::build::Note;
use super::super::desired::Protocol;
use super::super::services::{is_headless, is_ours, port_number, wants_health_check};
use super::range::stable_hash;
use super::{Allocations, Allocator};
use crate::source::Objects;
use crate::source::kube::{Name, Service};
use crate::source::validate::parse_protocol;

/// Who a port is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Want {
    /// A service port, by its name and protocol.
    Port { index: usize, port: String, protocol: Protocol },
    /// The health check of a load balancer (H1).
    HealthCheck,
}

impl Want {
    fn field(&self) -> String {
        match self {
            Self::Port { index, .. } => format!("spec.ports[{index}].nodePort"),
            Self::HealthCheck => "spec.healthCheckNodePort".to_owned(),
        }
    }

    /// What goes without when there is no port.
    fn loss(&self) -> &'static str {
        match self {
            Self::Port { .. } => "no node port",
            Self::HealthCheck => "no health check",
        }
    }

    fn earlier(&self, name: &Name, given: &Allocations) -> Option<u16> {
        match self {
            Self::Port { port, protocol, .. } => {
                given.node_ports.get(&(name.clone(), port.clone(), *protocol)).copied()
            }
            Self::HealthCheck => given.health_check_node_ports.get(name).copied(),
        }
    }

    fn keep(self, name: &Name, number: u16, given: &mut Allocations) {
        match self {
            Self::Port { port, protocol, .. } => {
                given.node_ports.insert((name.clone(), port, protocol), number);
            }
            Self::HealthCheck => {
                given.health_check_node_ports.insert(name.clone(), number);
            }
        }
    }

    fn hash(&self, name: &Name) -> u64 {
        match self {
            Self::Port { port, protocol, .. } => {
                stable_hash(&[&name.namespace, &name.name, port, &protocol.to_string()])
            }
            // No port has a name with a space.
            Self::HealthCheck => stable_hash(&[&name.namespace, &name.name, "health check"]),
        }
    }
}

impl Allocator {
    /// Puts node ports and ports of health checks into `given`.
    pub(super) fn ports(&self, objects: &Objects, given: &mut Allocations, notes: &mut Vec<Note>) {
        let range = &self.ranges.node_ports;
        let mut used: HashSet<u16> = HashSet::new();
        let mut wanted: Vec<(&Name, Want)> = Vec::new();
        for (name, service) in &objects.services {
            let needs_ports = needs_node_ports(service);
            let gets_ports = is_ours(&service.metadata) && !is_headless(service);
            for (index, port) in service.spec.ports.iter().enumerate() {
                if let Some(number) = port.node_port.and_then(port_number) {
                    used.insert(number);
                    if needs_ports && !range.contains(&number) {
                        let (low, high) = (range.start(), range.end());
                        let reason = format!(
                            "{number} is outside the node port range {low}-{high}: used all the same"
                        );
                        notes.push(Note::service(name, &format!("spec.ports[{index}].nodePort"), reason));
                    }
                } else if needs_ports
                    && gets_ports
                    && let Ok(protocol) = parse_protocol(port.protocol.as_deref())
                {
                    let port = port.name.clone().unwrap_or_default();
                    wanted.push((name, Want::Port { index, port, protocol }));
                }
            }
            match service.spec.health_check_node_port.and_then(port_number) {
                Some(number) => {
                    used.insert(number);
                }
                None if gets_ports && wants_health_check(service) => wanted.push((name, Want::HealthCheck)),
                None => {}
            }
        }
        wanted.retain(|(name, want)| match want.earlier(name, &self.given) {
            Some(number) if range.contains(&number) => {
                let free = used.insert(number);
                if free {
                    want.clone().keep(name, number, given);
                } else {
                    let reason =
                        format!("another Service asks for {number}, which this one had: it gets another");
                    notes.push(Note::service(name, &want.field(), reason));
                }
                !free
            }
            _ => true,
        });
        for (name, want) in wanted {
            match self.free_port(want.hash(name), &used) {
                Some(number) => {
                    used.insert(number);
                    want.keep(name, number, given);
                }
                None => {
                    let (low, high) = (range.start(), range.end());
                    let reason = format!("no port left in {low}-{high}: {}", want.loss());
                    notes.push(Note::service(name, &want.field(), reason));
                }
            }
        }
    }

    fn free_port(&self, hash: u64, used: &HashSet<u16>) -> Option<u16> {
        let range = &self.ranges.node_ports;
        let (low, count) = (u64::from(*range.start()), range.len() as u64);
        (0..count)
            .filter_map(|step| u16::try_from(low + (hash % count + step) % count).ok())
            .find(|number| !used.contains(number))
    }
}

fn needs_node_ports(service: &Service) -> bool {
    match service.spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => service.spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}
