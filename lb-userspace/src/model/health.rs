//! What health check node ports answer (H1). Free of sockets: who listens asks here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::addresses::select;
use super::build::Built;
use super::desired::Family;
use super::endpoints::local_ready;
use crate::source::kube::Name;

/// The answer to a health check.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
    /// Headers, name and value.
    pub headers: Vec<(&'static str, String)>,
}

/// The health check that a Service wants, and what it is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    port: u16,
    families: BTreeSet<Family>,
    local_ready: usize,
}

/// Health checks that Services want: those of load balancers with Local policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks(BTreeMap<Name, Wanted>);

impl Checks {
    /// What the whole model says.
    pub fn of(built: &Built) -> Self {
        let mut checks = Self::default();
        let ready = local_ready(&built.endpoints);
        for (name, info) in built.services.iter().filter(|(_, info)| info.health_check_node_port != 0) {
            let service = Name::new(&name.namespace, &name.name);
            let local_ready = ready.get(&service).map_or(0, BTreeSet::len);
            let port = info.health_check_node_port;
            let wanted =
                checks.0.entry(service).or_insert(Wanted { port, families: BTreeSet::new(), local_ready });
            wanted.families.insert(name.family);
        }
        checks
    }

    /// Takes what one Service wants: a port, in these families. `local_ready` counts ready endpoints on this node.
    pub(super) fn set(
        &mut self,
        service: &Name,
        check: Option<(u16, BTreeSet<Family>)>,
        local_ready: impl FnOnce() -> usize,
    ) {
        match check {
            None => drop(self.0.remove(service)),
            Some((port, families)) => {
                let wanted = Wanted { port, families, local_ready: local_ready() };
                self.0.insert(service.clone(), wanted);
            }
        }
    }

    /// Ports wanted in one family.
    pub fn ports(&self, family: Family) -> BTreeSet<u16> {
        self.0.values().filter(|wanted| wanted.families.contains(&family)).map(|wanted| wanted.port).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Check {
    port: u16,
    local_ready: usize,
}

/// Health checks of Services whose external policy is Local.
#[derive(Clone, Debug, Default)]
pub struct ServiceHealth {
    checks: BTreeMap<Name, Check>,
    unhealthy: bool,
}

impl ServiceHealth {
    /// Takes what all Services want.
    pub fn set(&mut self, checks: &Checks) {
        self.set_services(&checks.0.iter().map(|(name, wanted)| (name.clone(), wanted.port)).collect());
        self.set_local_ready(
            &checks.0.iter().map(|(name, wanted)| (name.clone(), wanted.local_ready)).collect(),
        );
    }

    /// Takes the whole list of Services and ports. Who is new or has a new port counts nobody until the next counts.
    pub fn set_services(&mut self, ports: &BTreeMap<Name, u16>) {
        self.checks = ports
            .iter()
            .map(|(name, &port)| {
                let kept = self.checks.get(name).copied().filter(|check| check.port == port);
                (name.clone(), kept.unwrap_or(Check { port, local_ready: 0 }))
            })
            .collect();
    }

    /// Takes the ready endpoints on this node, by Service; those not listed have none.
    pub fn set_local_ready(&mut self, counts: &BTreeMap<Name, usize>) {
        for (name, check) in &mut self.checks {
            check.local_ready = counts.get(name).copied().unwrap_or(0);
        }
    }

    /// Whether the dataplane itself works.
    pub fn set_healthy(&mut self, healthy: bool) {
        self.unhealthy = !healthy;
    }

    /// Services known.
    pub fn services(&self) -> impl Iterator<Item = (&Name, u16)> {
        self.checks.iter().map(|(name, check)| (name, check.port))
    }

    /// Where to listen: on the addresses that serve node ports, or on all when those are all of the family.
    pub fn listeners(&self, ranges: &[IpNet], addresses: &[IpAddr], family: Family) -> BTreeSet<SocketAddr> {
        let selection = select(ranges, addresses.iter().copied(), family);
        let any = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let addresses = if selection.match_all { vec![any] } else { selection.addresses };
        let ports = self.checks.values().map(|check| check.port);
        ports.flat_map(|port| addresses.iter().map(move |address| SocketAddr::new(*address, port))).collect()
    }

    /// The answer for a Service, `None` when it has no health check.
    pub fn reply(&self, name: &Name) -> Option<Reply> {
        let check = self.checks.get(name)?;
        let healthy = !self.unhealthy;
        Some(Reply {
            status: if check.local_ready > 0 && healthy { 200 } else { 503 },
            body: json!({
                "service": {"namespace": name.namespace, "name": name.name},
                "localEndpoints": check.local_ready,
                "serviceProxyHealthy": healthy,
            }),
            headers: vec![
                ("Content-Type", "application/json".to_owned()),
                ("X-Content-Type-Options", "nosniff".to_owned()),
                ("X-Load-Balancing-Endpoint-Weight", check.local_ready.to_string()),
            ],
        })
    }
}
