//! The rows, by rule group.

mod selection;

use super::row::{Row, Rows};

/// Name of a rule group, and its rows.
pub const GROUPS: &[(&str, fn(&mut Rows))] = &[("selection", selection::rows)];

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
