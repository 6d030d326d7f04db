//! `path` for people.

use std::fmt::Write as _;

use super::plot::{Bar, Plot};
use super::{Section, spread, targets};
use crate::path::{Outcome, Report};
use crate::sample::Spread;

/// Loads, what their numbers are called, and the units of rate and CPU time.
const LOADS: [(&str, &str, &str, &str); 4] = [
    ("bulk", "Bulk, one connection", " Gbit/s", " ms/GB"),
    ("requests", "Requests on one connection", "/s", " µs"),
    ("connections-1", "Connect, one request, close", "/s", " µs"),
    ("connections-32", "The same, 32 at once", "/s", " µs"),
];

pub(super) fn section(report: &Report) -> Section {
    let mut text = String::new();
    // Writing to a string never fails, here and below.
    let _infallible = writeln!(
        text,
        "Medians of {} rounds of {} ms with least and most; ratios (×) are against `direct` in the same round.",
        report.rounds, report.sample_ms
    );
    for (load, title, rate_unit, cpu_unit) in LOADS {
        let mut mtus: Vec<u32> = of(report, load).map(|outcome| outcome.mtu).collect();
        mtus.sort_unstable();
        mtus.dedup();
        for mtu in mtus {
            let _infallible = writeln!(text, "\n{title}, MTU {mtu}:\n");
            let timed = of(report, load).any(|outcome| outcome.p50_us.is_some());
            let (head, line) = if timed { (" p50 |", "---|") } else { ("", "") };
            let _infallible = writeln!(text, "| who | rate |{head} CPU time |\n|---|---|{line}---|");
            for outcome in of(report, load).filter(|outcome| outcome.mtu == mtu) {
                row(&mut text, outcome, rate_unit, cpu_unit);
            }
        }
    }
    for Outcome { contender, load, broken, .. } in report.results.iter().filter(|o| o.broken > 0) {
        let _infallible = writeln!(text, "\n{contender}, {load}: {broken} connections were reset.");
    }
    for skipped in &report.skipped {
        let _infallible = writeln!(text, "\n{} was left out: {}", skipped.contender, skipped.reason);
    }
    let plots = vec![
        plot(report, "path-cpu", "CPU time against direct (1), median with least and most", |outcome| {
            Some(outcome.ratio.cpu)
        }),
        plot(
            report,
            "path-p50",
            "Median time of a unit against direct (1), with least and most",
            |outcome| outcome.ratio.p50,
        ),
    ];
    text += &targets::path(report);
    Section { name: "path", text, plots }
}

fn of<'a>(report: &'a Report, load: &'a str) -> impl Iterator<Item = &'a Outcome> {
    report.results.iter().filter(move |outcome| outcome.load == load)
}

fn row(text: &mut String, outcome: &Outcome, rate_unit: &str, cpu_unit: &str) {
    let cell = |value: &Spread, ratio: &Spread, unit: &str| {
        let digits = if value.median < 100.0 { 1 } else { 0 };
        format!("{}, **×{:.2}** |", spread(value, digits, unit), ratio.median)
    };
    let _infallible =
        write!(text, "| {} | {}", outcome.contender, cell(&outcome.rate, &outcome.ratio.rate, rate_unit));
    if let (Some(p50), Some(ratio)) = (&outcome.p50_us, &outcome.ratio.p50) {
        let _infallible = write!(text, " {}", cell(p50, ratio, " µs"));
    }
    let _infallible = writeln!(text, " {}", cell(&outcome.cpu, &outcome.ratio.cpu, cpu_unit));
}

fn plot(
    report: &Report,
    name: &'static str,
    title: &str,
    value: impl Fn(&Outcome) -> Option<Spread>,
) -> Plot {
    let bars = report.results.iter().filter(|outcome| outcome.contender != "direct");
    let bars = bars.filter_map(|outcome| {
        let jumbo = if outcome.mtu > 1500 { format!(", MTU {}", outcome.mtu) } else { String::new() };
        Some((format!("{}{jumbo}", outcome.load), outcome.contender.clone(), value(outcome)?))
    });
    let mut bars: Vec<Bar> = bars.map(|(group, series, value)| Bar { group, series, value }).collect();
    // Bars of a group stand together.
    bars.sort_by(|one, other| one.group.cmp(&other.group));
    Plot { name, title: title.to_owned(), unit: "×", bars }
}
