//! Rows of area `endpoints`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lb_userspace::model::desired::{Backend, Family, Protocol, ServicePortName};
use lb_userspace::model::endpoints::{
    EndpointsMap, ModelEndpoint, changed_services, data_changed, local_ready, service_of,
};
use lb_userspace::source::Objects;
use lb_userspace::source::kube::Name;
use lb_userspace::source::validate::parse_protocol;

use super::slices::{View, expected, flat};
use super::tracker;
use crate::cases::fields::{Fields, Wrong, equal};
use crate::cases::file::{State, sorted};
use crate::cases::objects;

pub(super) fn check(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let view = View::take(state, &mut fields)?;
    if fields.has("ops") {
        return tracker::trigger_times(state, &view, fields);
    }
    if fields.has("endpoints") {
        return local_ready_rows(fields);
    }
    let slices = |fields: &mut Fields, key: &str| objects::slices(fields.list(key)?);
    let (before, after) = (slices(&mut fields, "slices_before")?, slices(&mut fields, "slices_after")?);
    let (old, new) = (view.endpoints(&before), view.endpoints(&after));
    if fields.has("expect_before") {
        equal("endpoints before", &expected(fields.take("expect_before"))?, &flat(&old, |_| true))?;
    }
    if fields.has("expect_after") {
        equal("endpoints after", &expected(fields.take("expect_after"))?, &flat(&new, |_| true))?;
    }
    if let Some(expect) = fields.boolean("expect_conntrack_cleanup")? {
        equal("conntrack cleanup", &expect, &!changed_services(&old, &new, Protocol::Udp).is_empty())?;
    }
    if fields.has("expect_local_ready_counts") {
        let expect = sorted(objects::numbers(&mut fields, "expect_local_ready_counts")?);
        equal("local ready counts", &expect, &counts(&new))?;
    }
    if fields.has("expect_changed_services") {
        let expect: BTreeSet<Name> = fields
            .texts("expect_changed_services")?
            .iter()
            .map(|text| objects::name(text))
            .collect::<Result<_, _>>()?;
        equal("changed services", &expect, &touched(&before, &after))?;
    }
    fields.finish()
}

/// Numbers of local ready addresses by Service.
pub(super) fn counts(endpoints: &EndpointsMap) -> BTreeMap<Name, u64> {
    local_ready(endpoints).into_iter().map(|(name, addresses)| (name, addresses.len() as u64)).collect()
}

/// Services with a slice that came, went or says something new.
fn touched(before: &Objects, after: &Objects) -> BTreeSet<Name> {
    let mut touched = BTreeSet::new();
    for (one, other) in [(before, after), (after, before)] {
        for (name, slice) in &one.slices {
            if other.slices.get(name).is_none_or(|counterpart| data_changed(slice, counterpart)) {
                touched.extend(service_of(slice));
            }
        }
    }
    touched
}

/// `endpoints` by service port -> ready addresses on this node by Service.
fn local_ready_rows(mut fields: Fields) -> Result<(), Wrong> {
    let mut endpoints = EndpointsMap::new();
    for (port, items) in fields.entries("endpoints")? {
        let name = service_port(&port)?;
        let mut list = Vec::new();
        for (socket, [local, ready, serving, terminating]) in
            expected(serde_json::json!({ port: items }))?.into_values().flatten()
        {
            let socket: SocketAddr = socket.parse().map_err(|_| format!("{socket} is no endpoint"))?;
            let backend = Backend {
                addr: socket.ip(),
                port: socket.port(),
                local,
                ready,
                serving,
                terminating,
                weight: 1,
                target: String::new(),
            };
            list.push(ModelEndpoint { backend, zone_hints: BTreeSet::new(), node_hints: BTreeSet::new() });
        }
        endpoints.insert(name, list);
    }
    let key = ["expect_addresses", "expect_local_ready", "expect_local_ready_addresses"]
        .into_iter()
        .find(|key| fields.has(key))
        .unwrap_or("expect");
    if !fields.has(key) {
        return Err("key expect is missing".to_owned());
    }
    let expect = sorted(fields.entries(key)?)
        .into_iter()
        .map(|(service, value)| {
            let texts: BTreeSet<String> = serde_json::from_value(value).map_err(|error| error.to_string())?;
            Ok((objects::name(&service)?, texts))
        })
        .collect::<Result<BTreeMap<_, _>, Wrong>>()?;
    fields.finish()?;
    let actual = local_ready(&endpoints)
        .into_iter()
        .map(|(name, addresses)| (name, addresses.iter().map(ToString::to_string).collect()))
        .collect();
    equal("local ready addresses", &expect, &actual)
}

/// `namespace/name:port/PROTOCOL`.
fn service_port(text: &str) -> Result<ServicePortName, Wrong> {
    let parts = || {
        let (service, port) = text.split_once(':')?;
        let (port, protocol) = port.rsplit_once('/')?;
        Some((service, port, parse_protocol(Some(protocol)).ok()?))
    };
    let (service, port, protocol) = parts().ok_or_else(|| format!("{text} is no service port"))?;
    let service = objects::name(service)?;
    Ok(ServicePortName {
        namespace: service.namespace,
        name: service.name,
        port: port.to_owned(),
        protocol,
        family: Family::V4,
    })
}
