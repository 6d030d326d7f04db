//! Who gets which frontend: each (address, protocol, port) is one service port's only.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::addresses::node_port_addresses;
use super::build::Note;
use super::config::ModelConfig;
use super::desired::{Family, Frontend, FrontendKind, Protocol, ServicePortName};
use super::services::{ServiceMap, ServicePortInfo, port_text};
use crate::source::kube::Name;

/// Who comes first: nobody's external address can take another's cluster address. Among equals names decide.
pub(super) const KINDS: [FrontendKind; 4] =
    [FrontendKind::ClusterIp, FrontendKind::NodePort, FrontendKind::LoadBalancer, FrontendKind::ExternalIp];

/// What this node has to say about frontends.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    config: &'a ModelConfig,
    node_addresses: Vec<IpAddr>,
    /// Addresses that serve node ports, IPv4 and IPv6.
    node_ports: [Vec<IpAddr>; 2],
}

/// Why somebody who wants a frontend does not get it, or what comes of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Remark<'a> {
    /// Somebody else has it.
    Taken(&'a ServicePortName),
    /// Nobody may have it.
    Protected,
    /// The node loses a port of its own by it.
    Hides,
}

impl<'a> Rules<'a> {
    pub(super) fn new(config: &'a ModelConfig) -> Self {
        Self {
            config,
            node_addresses: config.node_addresses(),
            node_ports: [Family::V4, Family::V6].map(|family| node_port_addresses(config, family)),
        }
    }

    /// The frontends of a kind that a service port wants.
    pub(super) fn wanted<'s>(
        &'s self,
        kind: FrontendKind,
        name: &ServicePortName,
        info: &'s ServicePortInfo,
    ) -> impl Iterator<Item = Frontend> + use<'s, 'a> {
        let (addresses, port) = match kind {
            FrontendKind::ClusterIp => (std::slice::from_ref(&info.cluster_ip), info.port),
            FrontendKind::NodePort if info.node_port == 0 => (&[][..], 0),
            FrontendKind::NodePort => {
                (&*self.node_ports[usize::from(name.family == Family::V6)], info.node_port)
            }
            FrontendKind::LoadBalancer => (&*info.lb_vips, info.port),
            FrontendKind::ExternalIp => (&*info.external_ips, info.port),
        };
        addresses.iter().map(move |&addr| Frontend { addr, port, kind })
    }

    /// What there is to say about a frontend that nobody has.
    pub(super) fn remark(&self, frontend: &Frontend, protocol: Protocol) -> Option<Remark<'static>> {
        self.node_addresses.binary_search(&frontend.addr).ok()?;
        if self.config.protected_ports.contains(&(protocol, frontend.port)) {
            Some(Remark::Protected)
        } else {
            (frontend.kind != FrontendKind::NodePort).then_some(Remark::Hides)
        }
    }
}

impl Remark<'_> {
    pub(super) fn note(self, name: &ServicePortName, frontend: &Frontend) -> Note {
        let field = match frontend.kind {
            FrontendKind::ClusterIp => "spec.clusterIP",
            FrontendKind::NodePort => "spec.ports[].nodePort",
            FrontendKind::ExternalIp => "spec.externalIPs",
            FrontendKind::LoadBalancer => "status.loadBalancer.ingress",
        };
        let (addr, port) = (frontend.addr, port_text(frontend.port, name.protocol));
        let reason = match self {
            Self::Taken(owner) => format!("{addr} port {port} is taken by {owner}: not served"),
            Self::Protected => {
                format!("{addr} port {port} would lock this node's operator out: not served (F8)")
            }
            Self::Hides => {
                format!(
                    "{addr} is an address of this node: its own port {port} can no longer be reached (F8)"
                )
            }
        };
        Note::service(&Name::new(&name.namespace, &name.name), field, reason)
    }
}

/// Gives all frontends to those who come first.
pub(super) fn frontends<'a>(
    rules: &Rules<'_>,
    services: &'a ServiceMap,
    notes: &mut Vec<Note>,
) -> BTreeMap<&'a ServicePortName, Vec<Frontend>> {
    let mut owners: HashMap<(IpAddr, Protocol, u16), &ServicePortName> = HashMap::new();
    let mut frontends: BTreeMap<&ServicePortName, Vec<Frontend>> = BTreeMap::new();
    for kind in KINDS {
        for (name, info) in services {
            for frontend in rules.wanted(kind, name, info) {
                let key = (frontend.addr, name.protocol, frontend.port);
                let remark = match owners.get(&key) {
                    Some(owner) if *owner == name => continue,
                    Some(owner) => Some(Remark::Taken(owner)),
                    None => rules.remark(&frontend, name.protocol),
                };
                notes.extend(remark.map(|remark| remark.note(name, &frontend)));
                if matches!(remark, None | Some(Remark::Hides)) {
                    owners.insert(key, name);
                    frontends.entry(name).or_default().push(frontend);
                }
            }
        }
    }
    for list in frontends.values_mut() {
        list.sort_unstable();
    }
    frontends
}
