//! What happens to a first packet, straight from the rules (groups F, V and A), slow and obvious.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_userspace::model::desired::{Desired, Family, Frontend, FrontendKind, Service};

use super::probe::{Observed, Probe, Prober, Verdict};

/// The rules as they are written, over a desired state.
#[derive(Debug, Default)]
pub struct Reference {
    desired: Desired,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Pod,
    Node,
    External,
}

impl Prober for Reference {
    fn name(&self) -> &str {
        "reference"
    }

    fn prepare(&mut self, desired: &Desired) -> Result<(), String> {
        self.desired = desired.clone();
        Ok(())
    }

    fn probe(&mut self, probe: &Probe) -> Result<Observed, String> {
        let nothing = |verdict| Observed { verdict, masqueraded: BTreeMap::new() };
        let found =
            self.desired.services.iter().filter(|(name, _)| name.protocol == probe.protocol).find_map(
                |(_, service)| {
                    let frontend =
                        service.frontends.iter().find(|f| f.addr == probe.to && f.port == probe.port)?;
                    Some((service, *frontend))
                },
            );
        match found {
            Some((service, frontend)) => Ok(self.to_frontend(probe, service, frontend)),
            None if self.is_cluster_ip(probe.to) => Ok(nothing(Verdict::Reject)),
            None if self.is_service_address(probe.to) => Ok(nothing(Verdict::Drop)),
            None => Ok(nothing(Verdict::Untouched)),
        }
    }
}

impl Reference {
    /// V5.
    fn is_cluster_ip(&self, address: IpAddr) -> bool {
        let mut frontends = self.desired.services.values().flat_map(|service| &service.frontends);
        frontends.any(|frontend| frontend.kind == FrontendKind::ClusterIp && frontend.addr == address)
    }

    /// V6.
    fn is_service_address(&self, address: IpAddr) -> bool {
        self.desired.surroundings.service_cidrs.iter().any(|range| range.contains(&address))
    }

    fn client(&self, address: IpAddr) -> Client {
        let surroundings = &self.desired.surroundings;
        if surroundings.node_addresses.contains(&address) || address.is_loopback() {
            Client::Node
        } else if surroundings.pod_cidrs.iter().any(|range| range.contains(&address)) {
            Client::Pod
        } else {
            Client::External
        }
    }

    /// Pods can be told from others in this family.
    fn knows_pods(&self, family: Family) -> bool {
        self.desired.surroundings.pod_cidrs.iter().any(|range| Family::of(range.addr()) == family)
    }

    fn to_frontend(&self, probe: &Probe, service: &Service, frontend: Frontend) -> Observed {
        let drop = |verdict| Observed { verdict, masqueraded: BTreeMap::new() };
        let client = self.client(probe.from);
        let cluster_ip = frontend.kind == FrontendKind::ClusterIp;
        let external = client == Client::External;
        // F9
        if cluster_ip && external && !self.desired.surroundings.allow_external_cluster_ip {
            return drop(Verdict::Drop);
        }
        // V3, V4
        let local = if cluster_ip { service.internal_local } else { service.external_local && external };
        let list = if local { &service.local } else { &service.cluster };
        let backends: Vec<SocketAddr> = list
            .iter()
            .flatten()
            .filter_map(|index| service.backends.get(*index))
            .map(|backend| SocketAddr::new(backend.addr, backend.port))
            .collect();
        // V7 comes first, as kube-proxy's firewall does: who may not ask is told nothing.
        if frontend.kind == FrontendKind::LoadBalancer && !self.may_dial(probe, service, frontend) {
            return drop(Verdict::Drop);
        }
        // V1
        if backends.is_empty() && !service.has_any_endpoints {
            return drop(Verdict::Reject);
        }
        // V2
        if backends.is_empty() {
            return drop(Verdict::Drop);
        }
        // A2
        let masquerade = self.desired.surroundings.masquerade_all && cluster_ip
            || if cluster_ip {
                self.knows_pods(Family::of(probe.to)) && client != Client::Pod
            } else {
                !service.external_local || client == Client::Node
            };
        // A3
        let masqueraded = backends.iter().map(|backend| (*backend, masquerade || backend.ip() == probe.from));
        Observed {
            masqueraded: masqueraded.collect(),
            verdict: Verdict::Forward(backends.into_iter().collect()),
        }
    }

    fn may_dial(&self, probe: &Probe, service: &Service, frontend: Frontend) -> bool {
        let ranges = &service.source_ranges;
        let holds = |address: IpAddr| ranges.iter().any(|range| range.contains(&address));
        let own = self.desired.surroundings.masquerade_addresses.iter();
        ranges.is_empty() || holds(probe.from) || (probe.from == frontend.addr && own.copied().any(holds))
    }
}
