//! Rows of area `slices`.

use std::collections::BTreeMap;

use lb_userspace::model::ModelConfig;
use lb_userspace::model::desired::{Family, ServicePortName};
use lb_userspace::model::endpoints::{Collector, EndpointReader, EndpointsMap, data_changed, service_of};
use lb_userspace::model::services::is_ours;
use lb_userspace::source::Objects;
use lb_userspace::source::kube::{EndpointSlice, Name, Object};
use serde_json::Value;

use crate::cases::config;
use crate::cases::fields::{Fields, Wrong, equal, list};
use crate::cases::file::State;
use crate::cases::objects;

/// Endpoints as rows write them: by service port, each `endpoint local ready serving terminating`.
pub(super) type Flat = BTreeMap<String, BTreeMap<String, [bool; 4]>>;

/// Who sees the slices.
pub(super) struct View {
    config: ModelConfig,
    families: Vec<Family>,
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
        collector.finish()
    }

    /// True when a proxy of these families looks at a slice.
    fn sees(&self, slice: &EndpointSlice) -> bool {
        let family = match slice.address_type.as_deref() {
            Some("IPv4") => Family::V4,
            Some("IPv6") => Family::V6,
            _ => return false,
        };
        self.families.contains(&family) && is_ours(&slice.metadata) && service_of(slice).is_some()
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
        return tracker(&view, fields);
    }
    if fields.has("pending") {
        return checkout(&view, fields);
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

/// One event after others.
fn tracker(view: &View, mut fields: Fields) -> Result<(), Wrong> {
    let mut applied = objects::slices(fields.list("already_applied")?)?;
    let event = fields.text("event")?.unwrap_or_default();
    let slice = objects::slice(fields.required("slice")?)?;
    let removes = match event.as_str() {
        "remove" | "removed" | "delete" | "deleted" => true,
        "" | "add" | "added" | "update" | "updated" | "apply" | "upsert" | "set" => false,
        other => return Err(format!("event {other} is not known")),
    };
    let name = slice.metadata.full_name();
    let service = service_of(&slice);
    let earlier = applied.slices.get(&name).cloned();
    let changed = view.sees(&slice)
        && match &earlier {
            Some(earlier) => removes || data_changed(earlier, &slice),
            None => !removes,
        };
    if removes {
        applied.slices.remove(&name);
    } else {
        applied.insert(Object::EndpointSlice(slice).into());
    }
    let expect_changed = fields.boolean("expect_changed")?;
    let expect_after = fields.take("expect_after");
    fields.finish()?;
    if let Some(expect) = expect_changed {
        equal("changed", &expect, &changed)?;
    }
    if expect_after.is_null() {
        return Ok(());
    }
    let after = flat(&view.endpoints(&applied), |name| is_of(service.as_ref(), name));
    equal("endpoints after", &expected(expect_after)?, &after)
}

/// Several events taken together.
fn checkout(view: &View, mut fields: Fields) -> Result<(), Wrong> {
    let applied = objects::slices(fields.list("already_applied")?)?;
    let mut after = applied.clone();
    for value in fields.list("pending")? {
        // A slice, or a slice with what happens to it.
        let (slice, removes) = match value.get("slice") {
            None => (value, false),
            Some(_) => {
                let mut event = Fields::of(value)?;
                let slice = event.required("slice")?;
                let removes = match event.text("event")?.as_deref() {
                    Some("remove" | "removed" | "delete" | "deleted") => true,
                    None | Some("add" | "update" | "apply" | "set") => false,
                    Some(other) => return Err(format!("event {other} is not known")),
                };
                let removes = removes || event.boolean("remove")?.unwrap_or(false);
                event.finish()?;
                (slice, removes)
            }
        };
        let slice = objects::slice(slice)?;
        if removes {
            after.slices.remove(&slice.metadata.full_name());
        } else {
            after.insert(Object::EndpointSlice(slice).into());
        }
    }
    let ask_for = fields.text("ask_for")?.map(|text| objects::name(&text)).transpose()?;
    let mut expect = Fields::of(fields.required("expect")?)?;
    fields.finish()?;
    for (key, objects) in [("previous", &applied), ("current", &after)] {
        let actual = flat(&view.endpoints(objects), |name| is_of(ask_for.as_ref(), name));
        equal(key, &expected(expect.take(key))?, &actual)?;
    }
    expect.finish()
}
