//! Rows of area `services`.

use std::collections::{BTreeMap, BTreeSet};

use lb_userspace::model::desired::{Family, ServicePortName};
use lb_userspace::model::services::{
    ServiceMap, ServicePortInfo, health_check_node_ports, is_ours, service_ports,
};
use lb_userspace::model::{Allocations, Built};
use lb_userspace::source::kube::Name;
use serde_json::{Value, json};

use crate::cases::config;
use crate::cases::fields::{Fields, Wrong, equal};
use crate::cases::file::{State, sorted};
use crate::cases::objects;

pub(super) fn check(state: &State<'_>, fields: Fields) -> Result<(), Wrong> {
    if fields.has("service") {
        return map(state, fields);
    }
    if fields.has("objects") {
        return seen(fields);
    }
    counts(state, fields)
}

/// One Service -> its service ports in one family.
fn map(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let family = fields.text("ip_family")?.map(|text| config::family(&text)).transpose()?;
    let family = family.or(state.config.family).unwrap_or(Family::V4);
    let ports: ServiceMap = match fields.required("service")? {
        Value::Null => ServiceMap::new(),
        value => service_ports(&objects::service(value)?, family, &Allocations::default(), &mut Vec::new())
            .into_iter()
            .collect(),
    };
    let expect = sorted(fields.entries("expect")?);
    fields.finish()?;
    let names: BTreeSet<_> = ports.keys().map(ToString::to_string).collect();
    equal("service ports", &expect.keys().cloned().collect(), &names)?;
    for (name, info) in &ports {
        let Some(expect) = expect.get(&name.to_string()) else { continue };
        port(name, info, Fields::of(expect.clone())?).map_err(|wrong| format!("{name}: {wrong}"))?;
    }
    Ok(())
}

fn port(name: &ServicePortName, info: &ServicePortInfo, mut expect: Fields) -> Result<(), Wrong> {
    fn texts<T: ToString>(items: &[T]) -> Value {
        items.iter().map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect()
    }
    let policy = |local: bool| json!(if local { "Local" } else { "Cluster" });
    let actual = [
        ("internal_policy", policy(info.internal_local)),
        ("external_policy", policy(info.external_local)),
        ("session_affinity", json!(if info.affinity_timeout_s.is_some() { "ClientIP" } else { "None" })),
        ("affinity_timeout_s", json!(info.affinity_timeout_s)),
        ("cluster_ip", json!(info.cluster_ip.to_string())),
        ("port", json!(info.port)),
        ("protocol", json!(name.protocol.to_string())),
        ("node_port", json!(info.node_port)),
        ("health_check_node_port", json!(info.health_check_node_port)),
        ("external_ips", texts(&info.external_ips)),
        ("lb_vips", texts(&info.lb_vips)),
        ("source_ranges", texts(&info.source_ranges)),
    ];
    for (key, actual) in actual {
        if !expect.has(key) {
            continue;
        }
        let mut wanted = expect.take(key);
        if let Value::Array(items) = &mut wanted {
            items.sort_by_key(ToString::to_string);
        }
        equal(key, &wanted, &actual)?;
    }
    expect.finish()
}

/// Objects -> whether they are looked at at all.
fn seen(mut fields: Fields) -> Result<(), Wrong> {
    let objects = objects::objects(fields.list("objects")?)?;
    if let Some(expect) = fields.boolean("expect_service_seen")? {
        let actual = objects.services.values().any(|service| is_ours(&service.metadata));
        equal("service seen", &expect, &actual)?;
    }
    if let Some(expect) = fields.boolean("expect_slice_seen")? {
        let actual = objects.slices.values().any(|slice| is_ours(&slice.metadata));
        equal("slice seen", &expect, &actual)?;
    }
    fields.finish()
}

/// Numbers about the objects of a step.
fn counts(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let family = state.config.family.unwrap_or(Family::V4);
    let now = of_family(Some(&state.built), family);
    if let Some(expect) = fields.number("expect_service_ports")? {
        equal("service ports", &expect, &(now.len() as u64))?;
    }
    if fields.has("expect_health_check_node_ports") {
        let expect = sorted(objects::numbers(&mut fields, "expect_health_check_node_ports")?);
        let actual: BTreeMap<_, _> =
            health_check_node_ports(&now).into_iter().map(|(name, port)| (name, u64::from(port))).collect();
        equal("health check node ports", &expect, &actual)?;
    }
    if fields.has("expect_updated_services") {
        let expect: BTreeSet<Name> = fields
            .texts("expect_updated_services")?
            .iter()
            .map(|text| objects::name(text))
            .collect::<Result<_, _>>()?;
        let before = of_family(state.before.as_ref(), family);
        let changed = now.keys().chain(before.keys()).filter(|name| now.get(*name) != before.get(*name));
        let actual: BTreeSet<_> = changed.map(|name| Name::new(&name.namespace, &name.name)).collect();
        equal("updated services", &expect, &actual)?;
    }
    fields.finish()
}

fn of_family(built: Option<&Built>, family: Family) -> ServiceMap {
    let services = built.into_iter().flat_map(|built| &built.services);
    services
        .filter(|(name, _)| name.family == family)
        .map(|(name, info)| (name.clone(), info.clone()))
        .collect()
}
