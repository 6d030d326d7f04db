//! Rows of area `slices`.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_userspace::model::ModelConfig;
use lb_userspace::model::desired::{Family, ServicePortName};
use lb_userspace::model::endpoints::{Collector, EndpointReader, EndpointsMap, data_changed};
use lb_userspace::source::Objects;
use lb_userspace::source::kube::{EndpointSlice, Name, Object};
use serde_json::Value;

use super::tracker;
use crate::cases::config;
use crate::cases::fields::{Fields, Wrong, equal, list};
use crate::cases::file::State;
use crate::cases::objects;

/// Endpoints as rows write them: by service port, each `endpoint local ready serving terminating`.
pub(super) type Flat = BTreeMap<String, BTreeMap<String, [bool; 4]>>;

/// Who sees the slices.
pub(super) struct View {
    config: ModelConfig,
    pub(super) families: Vec<Family>,
}

impl View {
    /// From `node_name` and `ip_family` of a row, or of the file.
    pub(super) fn take(state: &State<'_>, fields: &mut Fields) -> Result<Self, Wrong> {
        let mut config = state.config.model.clone();
        if let Some(name) = fields.text("node_name")? {
            config.node_name = name;
        }
        let family =
            fields.text("ip_family")?.map(|text| config::family(&text)).transpose()?.or(state.config.family);
        let families = family.map_or_else(|| vec![Family::V4, Family::V6], |family| vec![family]);
        Ok(Self { config, families })
    }

    /// The endpoints of all slices.
    pub(super) fn endpoints(&self, objects: &Objects) -> EndpointsMap {
        let reader = EndpointReader::new(&self.config, objects);
        let mut collector = Collector::default();
        for family in &self.families {
            for slice in objects.slices.values() {
                reader.slice(slice, *family, &mut collector, &mut Vec::new());
            }
        }
        collector.finish().endpoints
    }

    /// The endpoints of some slices.
    pub(super) fn endpoints_of<'a>(
        &self,
        slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    ) -> EndpointsMap {
        self.endpoints(&slices.map(|slice| Object::EndpointSlice(EndpointSlice::clone(slice))).collect())
    }

    /// The `addressType` of slices that are seen.
    pub(super) fn address_type(&self) -> &'static str {
        if self.families.contains(&Family::V4) { "IPv4" } else { "IPv6" }
    }
}

pub(super) fn flat(endpoints: &EndpointsMap, wanted: impl Fn(&ServicePortName) -> bool) -> Flat {
    let mut flat = Flat::new();
    for (name, list) in endpoints.iter().filter(|(name, list)| wanted(name) && !list.is_empty()) {
        let port = flat.entry(name.to_string()).or_default();
        for backend in list.iter().map(|endpoint| &endpoint.backend) {
            let socket = std::net::SocketAddr::new(backend.addr, backend.port);
            port.insert(
                socket.to_string(),
                [backend.local, backend.ready, backend.serving, backend.terminating],
            );
        }
    }
    flat
}

/// What a row expects; service ports without endpoints are as good as absent.
pub(super) fn expected(value: Value) -> Result<Flat, Wrong> {
    let mut flat = Flat::new();
    if value.is_null() {
        return Ok(flat);
    }
    let mut ports = Fields::of(value)?;
    for name in ports.keys().cloned().collect::<Vec<_>>() {
        let items = ports.list(&name)?;
        for item in items {
            let mut fields = Fields::of(item)?;
            let text = fields.text("endpoint")?.ok_or("key endpoint is missing")?;
            let socket: std::net::SocketAddr = text.parse().map_err(|_| format!("{text} is no endpoint"))?;
            let ready = fields.boolean("ready")?.unwrap_or(true);
            let state = [
                fields.boolean("local")?.unwrap_or(false),
                ready,
                fields.boolean("serving")?.unwrap_or(ready),
                fields.boolean("terminating")?.unwrap_or(false),
            ];
            fields.finish()?;
            flat.entry(name.clone()).or_default().insert(socket.to_string(), state);
        }
    }
    Ok(flat)
}

pub(super) fn check(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let view = View::take(state, &mut fields)?;
    if fields.has("before") {
        let before = objects::slice(fields.required("before")?)?;
        let after = objects::slice(fields.required("after")?)?;
        let expect = fields.boolean("expect_changed")?.ok_or("key expect_changed is missing")?;
        fields.finish()?;
        return equal("changed", &expect, &data_changed(&before, &after));
    }
    if fields.has("slice") {
        return tracker::tracker(&view, fields);
    }
    if fields.has("pending") {
        return tracker::checkout(&view, fields);
    }
    let ask_for = fields.text("ask_for")?.map(|text| objects::name(&text)).transpose()?;
    let slices = objects::slices(list("slices", fields.required("slices")?)?)?;
    let expect = expected(fields.required("expect")?)?;
    fields.finish()?;
    let is_asked = |name: &ServicePortName| is_of(ask_for.as_ref(), name);
    equal("endpoints", &expect, &flat(&view.endpoints(&slices), is_asked))
}

fn is_of(service: Option<&Name>, name: &ServicePortName) -> bool {
    service.is_none_or(|service| service.namespace == name.namespace && service.name == name.name)
}
