//! The rules as SEMANTICS has them, over a world: slow, and nothing in it is shared with what it judges.
//!
//! Where a rule leaves a choice, the choice made here says so.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::reason::Reason;
use lb_tests::rows::net::Net;

use super::objects::range_of;
use super::probe::{Message, Probe};
use super::world::{Endpoint, Mode, Place, Proto, Range, Service, Slice, Sort, World, node_port, vip};

/// What must happen to a first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It goes to one of these.
    Forward(Forward),
    /// Anything else.
    Verdict(Reason),
}

/// How new flows of one client to one frontend are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// Usable backends, in order, and whether the source is masqueraded on the way to each (A2, A3).
    pub(crate) to: BTreeMap<SocketAddr, bool>,
    /// Each gets its turn (S1).
    pub(crate) in_turn: bool,
    /// Every body chooses alike.
    pub(crate) certain: bool,
    /// What the backend is remembered under (S4): the service port, and the client.
    pub(crate) affinity: Option<(Port, IpAddr)>,
}

/// A service port in one family: number of the Service, name and protocol of the port.
pub(crate) type Port = (usize, String, Proto, Net);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

/// A backend after merging (B1–B4).
#[derive(Clone, Debug)]
struct Backend {
    at: SocketAddr,
    local: bool,
    ready: bool,
    serving: bool,
    terminating: bool,
    zones: Vec<&'static str>,
    nodes: Vec<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Pod,
    Node,
    Outside,
}

impl World {
    /// What must happen to this probe.
    pub(crate) fn truth(&self, probe: &Probe) -> Truth {
        match self.owner(probe) {
            Some((number, service, port, kind)) => self.to_frontend(probe, number, service, port, kind),
            None => Truth::Verdict(self.to_no_frontend(probe)),
        }
    }

    /// Whether it is for a frontend.
    pub(crate) fn is_frontend(&self, probe: &Probe) -> bool {
        self.owner(probe).is_some()
    }

    /// Services that have frontends (F3, F4).
    fn served(&self) -> impl Iterator<Item = (usize, &Service)> {
        let present =
            self.services.iter().enumerate().filter_map(|(n, service)| Some((n, service.as_ref()?)));
        present.filter(|(_, service)| {
            matches!(service.sort, Sort::ClusterIp | Sort::NodePort | Sort::LoadBalancer)
        })
    }

    /// F9, V5, V6, V8.
    fn to_no_frontend(&self, probe: &Probe) -> Reason {
        let owned = self.served().any(|(number, service)| {
            service.families[usize::from(probe.net == Net::V6)] && probe.net.vip(vip(number)) == probe.to
        });
        let in_range = match probe.to {
            // 10.96.0.0/12
            IpAddr::V4(to) => to.octets()[0] == 10 && to.octets()[1] & 0xf0 == 96,
            // fd00:96::/32
            IpAddr::V6(to) => to.segments()[..2] == [0xfd00, 0x96],
        };
        // F9, as for frontends.
        let closed = self.around.pods_known && !self.around.external_cluster_ip;
        if owned && closed && self.client(probe) == Client::Outside {
            return Reason::DropExternal;
        }
        match (owned, in_range, probe.message) {
            (true, _, Message::Echo) if self.around.vip_ping => Reason::Ping,
            (true, _, Message::Echo) => Reason::OtherProtocol,
            (true, _, _) => Reason::RejectedPort,
            (false, true, _) => Reason::DropUnowned,
            (false, false, Message::Echo) => Reason::OtherProtocol,
            (false, false, _) => Reason::NotOurs,
        }
    }

    /// Whose frontend it is: kind by kind, and the first by name (our choice where two Services claim one address).
    fn owner(&self, probe: &Probe) -> Option<(usize, &Service, usize, Kind)> {
        let protocol = match probe.message {
            Message::Syn | Message::Ack | Message::Rst => Proto::Tcp,
            Message::Datagram => Proto::Udp,
            Message::Init => Proto::Sctp,
            Message::Echo => return None,
        };
        let mut by_name: Vec<_> = self.served().collect();
        // Service `i` is n(i mod 2)/s(i).
        by_name.sort_by_key(|(number, _)| (number % 2, *number));
        for kind in [Kind::ClusterIp, Kind::NodePort, Kind::LoadBalancer, Kind::ExternalIp] {
            for &(number, service) in &by_name {
                if !service.families[usize::from(probe.net == Net::V6)] {
                    continue;
                }
                for (index, port) in service.ports.iter().enumerate() {
                    let dialled = if kind == Kind::NodePort { node_port(number, index) } else { port.port };
                    let exists = port.protocol == protocol && dialled == probe.port;
                    if exists && self.addresses(number, service, kind, probe.net).contains(&probe.to) {
                        return Some((number, service, index, kind));
                    }
                }
            }
        }
        None
    }

    /// F2, F5, F6.
    fn addresses(&self, number: usize, service: &Service, kind: Kind, net: Net) -> Vec<IpAddr> {
        match kind {
            Kind::ClusterIp => vec![net.vip(vip(number))],
            Kind::NodePort if service.sort == Sort::ClusterIp => vec![],
            Kind::NodePort if self.around.all_node_addresses => vec![net.node(), net.node_second()],
            Kind::NodePort => vec![net.node()],
            Kind::ExternalIp => service.external_ips.iter().map(|n| net.public(*n)).collect(),
            Kind::LoadBalancer if service.sort != Sort::LoadBalancer => vec![],
            Kind::LoadBalancer => {
                let taken = service.ingress.iter().filter(|(_, mode)| *mode != Mode::Proxy);
                taken.map(|(n, _)| net.public(*n)).collect()
            }
        }
    }

    fn client(&self, probe: &Probe) -> Client {
        let net = probe.net;
        if [net.node(), net.node_second()].contains(&probe.from) {
            return Client::Node;
        }
        let in_pod_range = match probe.from {
            // 10.1.0.0/16
            IpAddr::V4(from) => from.octets()[..2] == [10, 1],
            // fd00:1::/32
            IpAddr::V6(from) => from.segments()[..2] == [0xfd00, 1],
        };
        if self.around.pods_known && in_pod_range && !probe.external { Client::Pod } else { Client::Outside }
    }

    fn to_frontend(&self, probe: &Probe, number: usize, service: &Service, port: usize, kind: Kind) -> Truth {
        let client = self.client(probe);
        let verdict = Truth::Verdict;
        // V7, before all else: who may not ask is told nothing.
        if kind == Kind::LoadBalancer && !self.in_ranges(probe, number, service) {
            return verdict(Reason::DropSourceRange);
        }
        // F9. While no pod range is known nobody can be told to be from outside.
        let closed = self.around.pods_known && !self.around.external_cluster_ip;
        if kind == Kind::ClusterIp && client == Client::Outside && closed {
            return verdict(Reason::DropExternal);
        }
        let backends = self.backends(service, port, probe.net);
        // V3, V4
        let local = match kind {
            Kind::ClusterIp => service.internal_local,
            _ => service.external_local && client == Client::Outside,
        };
        let everywhere = self.under_cluster_policy(&backends);
        let list =
            if local { usable(backends.iter().filter(|backend| backend.local)) } else { everywhere.clone() };
        // V1
        if everywhere.is_empty() {
            return verdict(Reason::RejectedNoBackend);
        }
        // V2
        if list.is_empty() {
            return verdict(Reason::DropNoLocalBackend);
        }
        // C7
        let maglev = service.algorithm == "maglev";
        match probe.message {
            Message::Ack if !maglev => return verdict(Reason::ResetMidFlow),
            Message::Rst if !maglev => return verdict(Reason::DropStrayReset),
            _ => {}
        }
        // A2, as kube-proxy has it: pods are masqueraded too when they dial an address that is for outside under Cluster
        // policy; and --masquerade-all is about ClusterIPs.
        let masquerade = match kind {
            Kind::ClusterIp if self.around.masquerade_all => true,
            Kind::ClusterIp => self.around.pods_known && client != Client::Pod,
            _ => !service.external_local || client == Client::Node,
        };
        let in_turn = matches!(service.algorithm, "" | "round-robin");
        let name = service.port_name(port);
        Truth::Forward(Forward {
            // A3
            to: list.into_iter().map(|at| (at, masquerade || at.ip() == probe.from)).collect(),
            in_turn: in_turn && !service.affinity,
            // A remembered backend may be one that chance had chosen, in the state before.
            certain: !service.affinity && (in_turn || matches!(service.algorithm, "maglev" | "weighted")),
            affinity: service
                .affinity
                .then(|| ((number, name, service.ports[port].protocol, probe.net), probe.from)),
        })
    }

    /// V7. "The frontend's own address" is any of the Service's load balancer addresses, as kube-proxy has it.
    fn in_ranges(&self, probe: &Probe, number: usize, service: &Service) -> bool {
        let of_family: Vec<Range> =
            service.ranges.iter().filter(|(_, net)| *net == probe.net).map(|(range, _)| *range).collect();
        let holds =
            |address: IpAddr| of_family.iter().any(|range| range_of(*range, probe.net).contains(&address));
        let own = || {
            let dialled = Probe { to: probe.from, ..probe.clone() };
            self.owner(&dialled).is_some_and(|(of, _, _, kind)| of == number && kind == Kind::LoadBalancer)
        };
        of_family.is_empty() || holds(probe.from) || (holds(probe.net.node()) && own())
    }

    /// B1–B4: the endpoints of a service port, merged.
    fn backends(&self, service: &Service, port: usize, net: Net) -> Vec<Backend> {
        let wanted = (service.port_name(port), service.ports[port].protocol);
        let mut merged: BTreeMap<SocketAddr, Backend> = BTreeMap::new();
        let ours = |slice: &&Slice| !slice.headless && slice.v6 == (net == Net::V6);
        for slice in service.slices.iter().filter(ours) {
            for (index, protocol, number) in service.slice_ports(slice) {
                // B3, B2
                let Some(number) = number.filter(|number| *number != 0) else { continue };
                if (service.port_name(index), protocol) != wanted {
                    continue;
                }
                for endpoint in slice.endpoints.iter().filter(|endpoint| !endpoint.stray) {
                    let backend = backend(service, endpoint, net, number);
                    let better = merged.get(&backend.at).is_none_or(|known| {
                        // B1; between copies that differ in neither, one that is ready, then one that serves (our choice).
                        let rank = |b: &Backend| (!b.terminating, b.local, b.ready, b.serving);
                        rank(&backend) > rank(known)
                    });
                    if better {
                        merged.insert(backend.at, backend);
                    }
                }
            }
        }
        merged.into_values().collect()
    }

    /// B5, B6.
    fn under_cluster_policy(&self, backends: &[Backend]) -> Vec<SocketAddr> {
        let ready: Vec<&Backend> = backends.iter().filter(|backend| backend.ready).collect();
        let of_node: Vec<&Backend> = ready.iter().copied().filter(|b| b.nodes.contains(&"here")).collect();
        if ready.iter().all(|backend| !backend.nodes.is_empty()) && !of_node.is_empty() {
            return usable(of_node);
        }
        let of_zone: Vec<&Backend> = ready.iter().copied().filter(|b| b.zones.contains(&"z1")).collect();
        let zoned = ready.iter().all(|backend| !backend.zones.is_empty()) && self.around.zone_known;
        if zoned && !of_zone.is_empty() {
            return usable(of_zone);
        }
        usable(backends)
    }
}

/// B2, B4.
fn backend(service: &Service, endpoint: &Endpoint, net: Net, port: u16) -> Backend {
    let ready = endpoint.ready.unwrap_or(true);
    let hints = &service.hints[usize::from(endpoint.pod) - 1];
    Backend {
        at: SocketAddr::new(net.pod(endpoint.pod), port),
        local: endpoint.place == Place::Here,
        ready,
        serving: endpoint.serving.unwrap_or(ready),
        terminating: endpoint.terminating.unwrap_or(false),
        zones: hints.zones.clone(),
        nodes: hints.nodes.clone(),
    }
}

/// B5: of a list those that are ready; if there are none, those that serve while they terminate.
fn usable<'a>(list: impl IntoIterator<Item = &'a Backend>) -> Vec<SocketAddr> {
    let list: Vec<&Backend> = list.into_iter().collect();
    let ready: Vec<SocketAddr> =
        list.iter().filter(|backend| backend.ready).map(|backend| backend.at).collect();
    if !ready.is_empty() {
        return ready;
    }
    list.iter().filter(|backend| backend.serving && backend.terminating).map(|backend| backend.at).collect()
}
