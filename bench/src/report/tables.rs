//! `tables` for people.

use std::fmt::Write as _;

use super::{Section, spread};
use crate::tables::Report;

pub(super) fn section(report: &Report) -> Section {
    let mut text = format!("Medians of {} rounds with least and most.\n\n", report.rounds);
    text += "| case | hash | LRU hash | hash against LRU hash |\n|---|---|---|---|\n";
    for timed in &report.cases {
        // Writing to a string never fails.
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | ×{} |",
            timed.case,
            spread(&timed.hash_ns, 0, " ns"),
            spread(&timed.lru_hash_ns, 0, " ns"),
            spread(&timed.ratio, 2, ""),
        );
    }
    Section { name: "tables", text, plots: Vec::new() }
}
