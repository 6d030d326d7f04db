//! Rows and steps of area `healthcheck`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use lb_userspace::model::NodePortAddresses;
use lb_userspace::model::desired::Family;
use lb_userspace::model::health::ServiceHealth;
use lb_userspace::source::kube::Name;
use serde_json::Value;

use super::endpoints::counts;
use crate::cases::config::CaseConfig;
use crate::cases::fields::{Fields, Wrong, equal};
use crate::cases::file::{State, sorted};
use crate::cases::objects;

/// Rows about the endpoints of a step.
pub(super) fn check(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let actual = counts(&state.built.endpoints);
    if let Some(expect) = fields.number("expect_services_with_local_ready")? {
        equal("services with local ready endpoints", &expect, &(actual.len() as u64))?;
    }
    if fields.has("expect_local_ready_counts") {
        let expect = sorted(objects::numbers(&mut fields, "expect_local_ready_counts")?);
        equal("local ready counts", &expect, &actual)?;
    }
    fields.finish()
}

/// Steps that change what is known and ask what is answered.
pub(in crate::cases) struct HealthSteps {
    health: ServiceHealth,
    ranges: Vec<IpNet>,
    addresses: Vec<IpAddr>,
    family: Family,
}

impl HealthSteps {
    pub(in crate::cases) fn new(config: &CaseConfig) -> Self {
        let ranges = match &config.model.nodeport_addresses {
            NodePortAddresses::Primary => Vec::new(),
            NodePortAddresses::Ranges(ranges) => ranges.clone(),
        };
        // Every node has loopback, whether or not the file lists it.
        let mut addresses = config.model.node_addresses();
        addresses.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        Self {
            health: ServiceHealth::default(),
            ranges,
            addresses,
            family: config.family.unwrap_or(Family::V4),
        }
    }

    pub(in crate::cases) fn is_one(fields: &Fields) -> bool {
        let asks = |key: &str| {
            let keys = ["known_services", "open_listeners", "replies"];
            keys.iter().any(|asked| fields.peek(key).and_then(|expect| expect.get(asked)).is_some())
        };
        fields.keys().any(|key| key.starts_with("set_")) || asks("expect")
    }

    pub(in crate::cases) fn step(&mut self, mut fields: Fields) -> Result<(), Wrong> {
        if fields.has("set_services") {
            let ports = objects::numbers(&mut fields, "set_services")?.into_iter().map(|(name, port)| {
                u16::try_from(port)
                    .map(|port| (name, port))
                    .map_err(|_| format!("port {port} is out of range"))
            });
            self.health.set_services(&ports.collect::<Result<_, _>>()?);
        }
        if fields.has("set_local_endpoints") {
            let counts = objects::numbers(&mut fields, "set_local_endpoints")?;
            let counts: BTreeMap<Name, usize> = counts
                .into_iter()
                .map(|(name, count)| (name, usize::try_from(count).unwrap_or(usize::MAX)))
                .collect();
            self.health.set_local_ready(&counts);
        }
        if let Some(healthy) = fields.boolean("set_proxy_healthy")? {
            self.health.set_healthy(healthy);
        }
        if fields.has("expect") {
            self.expect(Fields::of(fields.take("expect"))?)?;
        }
        fields.finish()
    }

    fn expect(&self, mut expect: Fields) -> Result<(), Wrong> {
        if let Some(known) = expect.number("known_services")? {
            equal("known services", &known, &(self.health.services().count() as u64))?;
        }
        if expect.has("open_listeners") {
            let wanted: BTreeSet<SocketAddr> = expect
                .texts("open_listeners")?
                .iter()
                .map(|text| text.parse().map_err(|_| format!("{text} is no listener")))
                .collect::<Result<_, _>>()?;
            equal("listeners", &wanted, &self.health.listeners(&self.ranges, &self.addresses, self.family))?;
        }
        for reply in expect.list("replies")? {
            self.reply(Fields::of(reply)?)?;
        }
        expect.finish()
    }

    fn reply(&self, mut expect: Fields) -> Result<(), Wrong> {
        let service = expect.text("service")?.ok_or("key service is missing")?;
        let reply =
            self.health.reply(&objects::name(&service)?).ok_or_else(|| format!("{service} is not known"))?;
        if let Some(status) = expect.number("status")? {
            equal(&format!("{service}: status"), &status, &u64::from(reply.status))?;
        }
        if expect.has("json") {
            equal(&format!("{service}: body"), &expect.take("json"), &reply.body)?;
        }
        for (header, value) in expect.entries("headers")? {
            let actual = reply.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(&header));
            let actual = actual.map_or(Value::Null, |(_, value)| Value::String(value.clone()));
            equal(&format!("{service}: {header}"), &value, &actual)?;
        }
        expect.finish()
    }
}
