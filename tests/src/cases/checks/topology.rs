//! Rows of area `topology`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_userspace::model::desired::Backend;
use lb_userspace::model::endpoints::ModelEndpoint;
use lb_userspace::model::labels;
use lb_userspace::model::services::ServicePortInfo;
use lb_userspace::model::topology::{Question, categorize};
use serde_json::Value;

use crate::cases::config::address;
use crate::cases::fields::{Fields, Wrong, equal, list};
use crate::cases::file::State;

pub(super) fn check(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let info = service(Fields::of(fields.required("service")?)?)?;
    let endpoints: Vec<_> = fields.list("endpoints")?.into_iter().map(endpoint).collect::<Result<_, _>>()?;
    let mut node_labels = Fields::of(match fields.take("node_labels") {
        Value::Null => Value::Object(serde_json::Map::new()),
        labels => labels,
    })?;
    let zone = node_labels.text(labels::ZONE)?.unwrap_or_default();
    let node_name = fields.text("node_name")?.unwrap_or_else(|| state.config.model.node_name.clone());
    let question = Question {
        uses_cluster: info.uses_cluster(),
        uses_local: info.uses_local(),
        node_name: &node_name,
        zone: &zone,
        node_hints: fields.boolean("node_hints_enabled")?.unwrap_or(true),
    };
    let lists = categorize(question, &endpoints);
    let named = |indices: &[usize]| -> BTreeSet<SocketAddr> {
        let backends = indices.iter().map(|index| &endpoints[*index].backend);
        backends.map(|backend| SocketAddr::new(backend.addr, backend.port)).collect()
    };

    let mut expect = Fields::of(fields.required("expect")?)?;
    fields.finish()?;
    for (key, actual) in [("cluster_endpoints", &lists.cluster), ("local_endpoints", &lists.local)] {
        if expect.has(key) {
            equal(key, &sockets(expect.take(key))?, &actual.as_deref().map(named))?;
        }
    }
    let reachable = named(&lists.reachable());
    let wanted = if expect.has("all_endpoints") {
        let wanted = sockets(expect.take("all_endpoints"))?.unwrap_or_default();
        equal("all_endpoints", &wanted, &reachable)?;
        wanted
    } else {
        reachable
    };
    // The flag says why nobody can be reached; where somebody can, it says nothing.
    if let Some(only_remote) = expect.boolean("only_remote")?.filter(|_| wanted.is_empty()) {
        equal("only_remote", &only_remote, &lists.has_any_endpoints)?;
    }
    if let Some(any) = expect.boolean("has_any_endpoints")? {
        equal("has_any_endpoints", &any, &lists.has_any_endpoints)?;
    }
    expect.finish()
}

fn sockets(value: Value) -> Result<Option<BTreeSet<SocketAddr>>, Wrong> {
    if value.is_null() {
        return Ok(None);
    }
    let socket = |item: Value| {
        item.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{item} is no endpoint"))
    };
    list("endpoints", value)?.into_iter().map(socket).collect::<Result<_, _>>().map(Some)
}

fn service(mut fields: Fields) -> Result<ServicePortInfo, Wrong> {
    let mut local = |key: &str| match fields.text(key)?.as_deref() {
        None | Some("Cluster" | "") => Ok(false),
        Some("Local") => Ok(true),
        Some(other) => Err(format!("{key} {other} is not known")),
    };
    let (internal_local, external_local) = (local("internal_policy")?, local("external_policy")?);
    let addresses =
        |texts: Vec<String>| texts.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>();
    let node_port = fields.number("node_port")?.unwrap_or(0);
    let info = ServicePortInfo {
        cluster_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: 80,
        node_port: u16::try_from(node_port).map_err(|_| format!("node_port {node_port} is out of range"))?,
        external_ips: addresses(fields.texts("external_ips")?)?,
        lb_vips: addresses(fields.texts("lb_vips")?)?,
        source_ranges: Vec::new(),
        internal_local,
        external_local,
        affinity_timeout_s: None,
        health_check_node_port: 0,
        algorithm: None,
    };
    fields.finish()?;
    Ok(info)
}

fn endpoint(value: Value) -> Result<ModelEndpoint, Wrong> {
    let mut fields = Fields::of(value)?;
    let text = fields.text("endpoint")?.ok_or("key endpoint is missing")?;
    let socket: SocketAddr = text.parse().map_err(|_| format!("{text} is no endpoint"))?;
    let ready = fields.boolean("ready")?.unwrap_or(true);
    let endpoint = ModelEndpoint {
        backend: Backend {
            addr: socket.ip(),
            port: socket.port(),
            local: fields.boolean("local")?.unwrap_or(false),
            ready,
            serving: fields.boolean("serving")?.unwrap_or(ready),
            terminating: fields.boolean("terminating")?.unwrap_or(false),
            weight: 1,
            target: String::new(),
        },
        zone_hints: fields.texts("zone_hints")?.into_iter().collect(),
        node_hints: fields.texts("node_hints")?.into_iter().collect(),
    };
    fields.finish()?;
    Ok(endpoint)
}
