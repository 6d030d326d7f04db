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
            for (key, family) in [("IPv4", Family::V4), ("IPv6", Family::V6)] {
                if !expect.has(key) {
                    continue;
                }
                let selection = select(&wanted, addresses.iter().copied(), family);
                let mut expect = Fields::of(expect.take(key))?;
                if let Some(match_all) = expect.boolean("match_all")? {
                    equal(&format!("{key}: match_all"), &match_all, &selection.match_all)?;
                }
                if expect.has("ips") {
                    let texts = expect.texts("ips")?;
                    let ips: BTreeSet<IpAddr> =
                        texts.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
                    equal(&format!("{key}: ips"), &ips, &selection.addresses.into_iter().collect())?;
                }
                expect.finish()?;
            }
            expect.finish()?;
        }
    }
    fields.finish()
}

pub(super) fn check_service_ranges(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let family = fields.text("ip_family")?.map(|text| config::family(&text)).transpose()?;
    let family = family.or(state.config.family).unwrap_or(Family::V4);
    let config = ModelConfig {
        service_cidrs: ranges("service_cidrs", fields.take("service_cidrs"))?,
        ..state.config.model.clone()
    };
    let expect = ranges("expect", fields.required("expect")?)?;
    fields.finish()?;
    let sorted = |ranges: Vec<IpNet>| ranges.into_iter().collect::<BTreeSet<_>>();
    equal("service ranges", &sorted(expect), &sorted(config.service_cidrs(family)))
}
