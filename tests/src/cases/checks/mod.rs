//! `checks`: rows that are not packets, each put to the component it is about.

mod addresses;
mod conntrack;
mod endpoints;
pub(super) mod health;
mod metrics;
mod misc;
mod services;
mod slices;
mod topology;
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
