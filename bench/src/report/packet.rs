//! `packet` for people.

use std::fmt::Write as _;

use super::plot::{Bar, Plot};
use super::{Section, spread, targets};
use crate::packet::{Report, Timed};

pub(super) fn section(report: &Report) -> Section {
    let mut text = String::new();
    // Writing to a string never fails, here and below.
    let _infallible = writeln!(
        text,
        "Medians of {} rounds with least and most: what a packet costs more than with a program that does nothing, and the ratio to that.\n",
        report.rounds
    );
    for harness in &report.harness {
        let _infallible = writeln!(
            text,
            "- {}: doing nothing costs {}; subtracted are the driver's {} for each packet and {} for each call.",
            harness.hook,
            spread(&harness.noop_ns, 1, " ns"),
            spread(&harness.driver_ns, 1, " ns"),
            spread(&harness.call_ns, 0, " ns"),
        );
    }
    for harness in &report.harness {
        table(&mut text, report, harness.hook);
    }
    text += &targets::packet(report);
    Section { name: "packet", text, plots: vec![plot(report)] }
}

/// Cases down, families and transports across.
fn table(text: &mut String, report: &Report, hook: &str) {
    let of_hook: Vec<&Timed> = report.cases.iter().filter(|timed| timed.hook == hook).collect();
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    let mut cases: Vec<&str> = Vec::new();
    for timed in &of_hook {
        let kind = (timed.family, timed.protocol.as_str());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
        if !cases.contains(&timed.case.as_str()) {
            cases.push(&timed.case);
        }
    }
    let _infallible = write!(text, "\n| {hook} |");
    for (family, protocol) in &kinds {
        let _infallible = write!(text, " {family} {protocol} |");
    }
    let _infallible = writeln!(text, "\n|---|{}", "---|".repeat(kinds.len()));
    for case in cases {
        let _infallible = write!(text, "| {case} |");
        for kind in &kinds {
            let found = of_hook.iter().find(|t| t.case == case && (t.family, t.protocol.as_str()) == *kind);
            let cell = found
                .map(|t| format!("**+{}**, ×{:.1}", spread(&t.own_ns, 0, " ns"), t.ratio.median))
                .unwrap_or_default();
            let _infallible = write!(text, " {cell} |");
        }
        text.push('\n');
    }
}

fn plot(report: &Report) -> Plot {
    let shown = report.cases.iter().filter(|timed| timed.family == "IPv4" && timed.protocol == "TCP");
    let bars =
        shown.map(|timed| Bar { group: timed.case.clone(), series: timed.hook.to_owned(), value: timed.ns });
    Plot {
        name: "packet",
        title: "One packet, IPv4 TCP: ns more than doing nothing, median with least and most".to_owned(),
        unit: "ns",
        bars: bars.collect(),
    }
}
