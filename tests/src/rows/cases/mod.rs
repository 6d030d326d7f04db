//! The rows, by rule group.

mod addresses;
mod backends;
mod checksums;
mod connections;
mod fragments;
mod frontends;
mod headers;
mod icmp;
mod malformed;
mod selection;
mod verdicts;

use super::row::{Row, Rows};

/// Writes the rows of a group.
type Write = fn(&mut Rows);

/// Name of a rule group, and its rows.
pub const GROUPS: &[(&str, Write)] = &[
    ("frontends", frontends::rows),
    ("backends", backends::rows),
    ("selection", selection::rows),
    ("connections", connections::rows),
    ("verdicts", verdicts::rows),
    ("malformed", malformed::rows),
    ("addresses", addresses::rows),
    ("icmp", icmp::rows),
    ("fragments", fragments::rows),
    ("headers", headers::rows),
    ("checksums", checksums::rows),
];

/// The rows of one group.
///
/// # Panics
/// There is no such group.
pub fn group(name: &str) -> Vec<Row> {
    let (_, write) = GROUPS.iter().find(|(group, _)| *group == name).expect("a rule group");
    let mut rows = Rows::default();
    write(&mut rows);
    rows.finish()
}

/// All rows.
pub fn all() -> Vec<Row> {
    GROUPS.iter().flat_map(|(name, _)| group(name)).collect()
}
