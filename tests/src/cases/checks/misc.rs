//! Small checks beside probes, named by their `expect_` keys.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_userspace::model::desired::{Family, Frontend, FrontendKind, Protocol, Service};
use lb_userspace::source::validate::parse_protocol;

use crate::cases::config::address;
use crate::cases::fields::{Fields, Wrong, equal};
use crate::cases::file::State;

/// Lists of addresses, each of one kind of frontend.
const ADDRESSES: [(&str, FrontendKind); 9] = [
    ("expect_cluster_ips", FrontendKind::ClusterIp),
    ("expect_nodeport_ips", FrontendKind::NodePort),
    ("expect_node_port_ips", FrontendKind::NodePort),
    ("expect_nodeport_addresses", FrontendKind::NodePort),
    ("expect_external_ips", FrontendKind::ExternalIp),
    ("expect_lb_ips", FrontendKind::LoadBalancer),
    ("expect_lb_vips", FrontendKind::LoadBalancer),
    ("expect_load_balancer_ips", FrontendKind::LoadBalancer),
    ("expect_handled_lb_ips", FrontendKind::LoadBalancer),
];

pub(super) fn check(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    if let Some(expect) = fields.boolean("expect_lb_ip_handled")? {
        let wanted = address(&fields.text("lb_ip")?.ok_or("key lb_ip is missing")?)?;
        let mut frontends = frontends(state);
        let handled = frontends.any(|(_, _, f)| f.kind == FrontendKind::LoadBalancer && f.addr == wanted);
        equal("load balancer address handled", &expect, &handled)?;
    }
    if let Some(expect) = fields.number("expect_dataplane_writes")? {
        equal("operations on the maps", &expect, &(state.writes.clone()? as u64))?;
    }
    if let Some(expect) = fields.boolean("expect_dataplane_changed")? {
        equal("operations on the maps", &expect, &(state.writes.clone()? > 0))?;
    }
    for (key, kind) in ADDRESSES {
        if fields.has(key) {
            let texts = fields.texts(key)?;
            let expect: BTreeSet<IpAddr> =
                texts.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
            let actual = frontends(state).filter(|(_, _, f)| f.kind == kind).map(|(_, _, f)| f.addr);
            equal(key, &expect, &actual.collect())?;
        }
    }
    if let Some(expect) = fields.number("expect_service_ports")? {
        let family = state.config.family.unwrap_or(Family::V4);
        let ports = state.built.services.keys().filter(|name| name.family == family).count();
        equal("service ports", &expect, &(ports as u64))?;
    }
    if fields.has("expect_frontends") {
        let expect = fields.texts("expect_frontends")?;
        let expect: BTreeSet<_> = expect.iter().map(|text| frontend(text)).collect::<Result<_, _>>()?;
        let actual = frontends(state).map(|(protocol, _, f)| (f.addr, f.port, protocol));
        equal("frontends", &expect, &actual.collect())?;
    }
    if fields.has("expect_no_endpoints") {
        let expect = fields.texts("expect_no_endpoints")?;
        let expect: BTreeSet<_> = expect.iter().map(|text| frontend(text)).collect::<Result<_, _>>()?;
        let empty = frontends(state).filter(|(_, service, _)| !service.has_any_endpoints);
        equal("frontends without endpoints", &expect, &empty.map(|(p, _, f)| (f.addr, f.port, p)).collect())?;
    }
    fields.finish()
}

/// All frontends of the family that the file is about.
fn frontends<'a>(state: &'a State<'_>) -> impl Iterator<Item = (Protocol, &'a Service, &'a Frontend)> {
    let family = state.config.family;
    let services = state.built.desired.services.iter();
    services
        .filter(move |(name, _)| family.is_none_or(|family| name.family == family))
        .flat_map(|(name, service)| service.frontends.iter().map(move |f| (name.protocol, service, f)))
}

/// `address:port/PROTOCOL`.
fn frontend(text: &str) -> Result<(IpAddr, u16, Protocol), Wrong> {
    let parts = || {
        let (socket, protocol) = text.rsplit_once('/')?;
        let (ip, port) = socket.rsplit_once(':')?;
        let ip = address(ip.trim_matches(['[', ']'])).ok()?;
        Some((ip, port.parse().ok()?, parse_protocol(Some(protocol)).ok()?))
    };
    parts().ok_or_else(|| format!("{text} is no address:port/PROTOCOL"))
}
