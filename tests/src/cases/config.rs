//! `config` of a case file.

use std::net::IpAddr;

use ipnet::IpNet;
use lb_userspace::model::desired::Family;
use lb_userspace::model::{Interface, ModelConfig, NodePortAddresses};
use lb_userspace::source::address::{parse_cidr, parse_ip};
use serde_json::Value;

use super::fields::{Fields, Wrong, list};

/// Settings of a file.
#[derive(Clone, Debug)]
pub(super) struct CaseConfig {
    pub(super) model: ModelConfig,
    /// Family of the proxy the facts are about; a fact without one is about IPv4.
    pub(super) family: Option<Family>,
    /// When the proxy started to look at slices.
    pub(super) tracker_started: Option<Value>,
}

pub(super) fn parse(value: Value) -> Result<CaseConfig, Wrong> {
    let mut fields = match value {
        Value::Null => Fields::of(Value::Object(serde_json::Map::new()))?,
        value => Fields::of(value)?,
    };
    let node_ips =
        fields.texts("node_ips")?.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
    let primary = fields.text("primary_node_ip")?.map(|text| address(&text)).transpose()?;
    let family = fields.text("ip_family")?.map(|text| family(&text)).transpose()?;
    let mut addresses: Vec<IpNet> = node_ips.into_iter().map(IpNet::from).collect();
    addresses.extend(primary.filter(|p| !addresses.iter().any(|net| net.addr() == *p)).map(IpNet::from));
    let zone = fields.text("node_zone")?;
    let mode = fields.text("proxy_mode")?;
    if !matches!(mode.as_deref(), None | Some("nftables" | "iptables" | "ipvs")) {
        return Err(format!("proxy_mode {mode:?} is not known"));
    }
    let model = ModelConfig {
        node_name: fields.text("node_name")?.unwrap_or_default(),
        zone,
        interfaces: vec![Interface { name: "node".to_owned(), addresses }],
        primary: primary.into_iter().collect(),
        nodeport_addresses: NodePortAddresses::Ranges(ranges(
            "nodeport_addresses",
            fields.take("nodeport_addresses"),
        )?),
        localhost_nodeports: fields.boolean("localhost_nodeports")?.unwrap_or(false),
        service_cidrs: ranges("service_cidrs", fields.take("service_cidrs"))?,
        pod_cidrs: ranges("cluster_cidr", fields.take("cluster_cidr"))?,
        masquerade_all: fields.boolean("masquerade_all")?.unwrap_or(false),
        // The facts are kube-proxy's: outside clients are let in (F9), no port is protected (F8).
        allow_external_cluster_ip: true,
        protected_ports: Vec::new(),
        ..ModelConfig::default()
    };
    let started =
        ["tracker_started", "tracker_start", "tracker_start_time"].iter().find(|key| fields.has(key));
    let tracker_started = started.map(|key| fields.take(key));
    fields.finish().map_err(|wrong| format!("config: {wrong}"))?;
    Ok(CaseConfig { model, family, tracker_started })
}

pub(super) fn family(text: &str) -> Result<Family, Wrong> {
    match text {
        "IPv4" => Ok(Family::V4),
        "IPv6" => Ok(Family::V6),
        other => Err(format!("ip_family {other} is not known")),
    }
}

pub(super) fn address(text: &str) -> Result<IpAddr, Wrong> {
    parse_ip(text).map(|parsed| parsed.value).map_err(|error| error.to_string())
}

/// A range, a list of ranges, or nothing.
pub(super) fn ranges(key: &str, value: Value) -> Result<Vec<IpNet>, Wrong> {
    let items = match value {
        Value::String(_) => vec![value],
        value => list(key, value)?,
    };
    items
        .iter()
        .flat_map(|item| item.as_str().unwrap_or_default().split(','))
        .map(|text| parse_cidr(text).map(|parsed| parsed.value).map_err(|error| format!("{key}: {error}")))
        .collect()
}
