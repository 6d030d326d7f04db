//! `checks`: rows that are not packets, each put to the component it is about.

mod addresses;
mod conntrack;
mod endpoints;
pub(super) mod health;
pub(super) mod healthz;
mod metrics;
mod misc;
mod moments;
mod node;
mod services;
mod slices;
mod topology;
mod tracker;
pub(super) mod writes;

use super::fields::{Fields, Wrong};
use super::file::State;

/// Areas that are known.
pub(super) const AREAS: [&str; 22] = [
    "addresses",
    "badips",
    "clusterip",
    "conntrack",
    "endpoints",
    "etp",
    "healthcheck",
    "ipmode",
    "itp",
    "loadbalancer",
    "localhost",
    "masquerade",
    "metrics",
    "nodeport",
    "noendpoints",
    "overall",
    "servicecidr",
    "services",
    "slices",
    "sync",
    "terminating",
    "topology",
];

/// Runs a row.
pub(super) fn run(area: &str, state: &State<'_>, fields: Fields) -> Result<(), Wrong> {
    // A loopback row may say yes or no by another word; all others expect something by name.
    if area != "addresses" && !fields.keys().any(|key| key.starts_with("expect")) {
        return Err("nothing is expected".to_owned());
    }
    match area {
        "topology" => topology::check(state, fields),
        "slices" => slices::check(state, fields),
        "endpoints" => endpoints::check(state, fields),
        "services" => services::check(state, fields),
        "conntrack" => conntrack::check(state, fields),
        "healthcheck" => health::check(state, fields),
        "metrics" => metrics::check(state, fields),
        "addresses" => addresses::check(state, fields),
        "servicecidr" => addresses::check_service_ranges(state, fields),
        _ => misc::check(state, fields),
    }
}
