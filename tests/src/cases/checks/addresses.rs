//! Rows of areas `addresses` and `servicecidr`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use lb_userspace::model::ModelConfig;
use lb_userspace::model::addresses::{contains_ipv4_loopback, select};
use lb_userspace::model::desired::Family;
use serde_json::Value;

use crate::cases::config::{self, address, ranges};
use crate::cases::fields::{Fields, Wrong, equal};
use crate::cases::file::State;

pub(super) fn check(_state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    // Rows with a family ask that family's proxy; loopback is about IPv4 at any rate.
    let own_family = fields.text("ip_family")?.map(|text| config::family(&text)).transpose()?;
    let wanted = ranges("nodeport_addresses", fields.take("nodeport_addresses"))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (interface, value) in fields.entries("interfaces")? {
        for text in crate::cases::fields::list(&interface, value)? {
            let text = text.as_str().ok_or_else(|| format!("{interface}: {text} is no address"))?.to_owned();
            addresses.push(address(text.split('/').next().unwrap_or_default())?);
        }
    }
    let loopback = |fields: &mut Fields, key: &str| -> Result<(), Wrong> {
        let expect = fields.boolean(key)?.ok_or_else(|| format!("{key}: true or false is wanted"))?;
        equal(key, &expect, &contains_ipv4_loopback(&wanted))
    };
    for key in fields.keys().filter(|key| key.contains("loopback")).cloned().collect::<Vec<_>>() {
        loopback(&mut fields, &key)?;
    }
    match fields.take("expect") {
        Value::Null => {}
        Value::Bool(expect) => equal("loopback", &expect, &contains_ipv4_loopback(&wanted))?,
        value => {
            let mut expect = Fields::of(value)?;
            for key in expect.keys().filter(|key| key.contains("loopback")).cloned().collect::<Vec<_>>() {
                loopback(&mut expect, &key)?;
            }
            let is_flat = ["match_all", "ips"].iter().any(|key| expect.has(key));
            if let Some(family) = own_family.filter(|_| is_flat) {
                return selected(expect, &wanted, &addresses, family).and_then(|()| fields.finish());
            }
            for (key, family) in [("IPv4", Family::V4), ("IPv6", Family::V6)] {
                if !expect.has(key) {
                    continue;
                }
                let expect = Fields::of(expect.take(key))?;
                selected(expect, &wanted, &addresses, family).map_err(|wrong| format!("{key}: {wrong}"))?;
            }
            expect.finish()?;
        }
    }
    fields.finish()
}

/// `match_all` and `ips` of a family.
fn selected(mut expect: Fields, wanted: &[IpNet], addresses: &[IpAddr], family: Family) -> Result<(), Wrong> {
    let selection = select(wanted, addresses.iter().copied(), family);
    if let Some(match_all) = expect.boolean("match_all")? {
        equal("match_all", &match_all, &selection.match_all)?;
    }
    if expect.has("ips") {
        let texts = expect.texts("ips")?;
        let ips: BTreeSet<IpAddr> = texts.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
        equal("ips", &ips, &selection.addresses.into_iter().collect())?;
    }
    expect.finish()
}

pub(super) fn check_service_ranges(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let family = fields.text("ip_family")?.map(|text| config::family(&text)).transpose()?;
    let family = family.or(state.config.family).unwrap_or(Family::V4);
    let config = ModelConfig {
        service_cidrs: ranges("service_cidrs", fields.take("service_cidrs"))?,
        ..state.config.model.clone()
    };
    let keys = ["expect", "expect_kept", "expect_ranges", "expect_service_cidrs"];
    let key = keys.into_iter().find(|key| fields.has(key)).ok_or("key expect is missing")?;
    let expect = fields.take(key);
    fields.finish()?;
    let sorted = |ranges: Vec<IpNet>| ranges.into_iter().collect::<BTreeSet<_>>();
    let kept = |key: &str, value: Value, family: Family| {
        equal(key, &sorted(ranges(key, value)?), &sorted(config.service_cidrs(family)))
    };
    let Value::Object(by_key) = expect else { return kept("service ranges", expect, family) };
    if by_key.is_empty() {
        return Err("nothing is expected".to_owned());
    }
    for (key, value) in by_key {
        match key.as_str() {
            "IPv4" | "IPv6" => kept(&key, value, config::family(&key)?)?,
            "kept" | "ranges" | "service_cidrs" | "cidrs" => kept(&key, value, family)?,
            _ => return Err(format!("unknown key {key}")),
        }
    }
    Ok(())
}
