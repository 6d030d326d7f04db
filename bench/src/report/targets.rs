//! What was aimed at, beside what was measured.

use std::fmt::Write as _;

use crate::packet::Report as Packet;
use crate::path::Report as Path;
use crate::scale::Report as Scale;

/// One aim: a value that is not to be greater, or not to be less.
struct Target {
    what: &'static str,
    bound: Bound,
    value: Option<f64>,
    unit: &'static str,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

fn at_most(what: &'static str, bound: f64, unit: &'static str, value: Option<f64>) -> Target {
    Target { what, bound: Bound::AtMost(bound), value, unit }
}

fn at_least(what: &'static str, bound: f64, value: Option<f64>) -> Target {
    Target { what, bound: Bound::AtLeast(bound), value, unit: " ×" }
}

/// A table of those that were measured.
fn table(targets: &[Target]) -> String {
    let mut text = "\n| aim | | measured | met |\n|---|---|---|---|\n".to_owned();
    for Target { what, bound, value, unit } in targets {
        let Some(value) = value else { continue };
        let (sign, limit, met) = match bound {
            Bound::AtMost(limit) => ('≤', limit, value <= limit),
            Bound::AtLeast(limit) => ('≥', limit, value >= limit),
        };
        let digits = if *unit == " ×" { 2 } else { 1 };
        let met = if met { "yes" } else { "no" };
        // Writing to a string never fails.
        let _infallible =
            writeln!(text, "| {what} | {sign} {limit}{unit} | {value:.digits$}{unit} | {met} |");
    }
    text
}

/// Aims for a packet, XDP and IPv4 TCP: in ns more than doing nothing.
pub(super) fn packet(report: &Packet) -> String {
    let own = |family: &str, case: &str| {
        let found = report.cases.iter().find(|timed| {
            (timed.hook, timed.family, timed.protocol.as_str(), timed.case.as_str())
                == ("xdp", family, "TCP", case)
        });
        found.map(|timed| timed.own_ns.median)
    };
    let v6 = |case| Some(own("IPv6", case)? / own("IPv4", case)?);
    table(&[
        at_most("established, one flow", 15.0, " ns", own("IPv4", "established-1")),
        at_most("established, 65,536 flows", 154.0, " ns", own("IPv4", "established-65536")),
        at_most("new flow, both directions recorded", 462.0, " ns", own("IPv4", "new-flow")),
        at_most("not ours", 7.0, " ns", own("IPv4", "not-ours-1")),
        at_most("IPv6 against IPv4, established", 1.25, " ×", v6("established-1")),
    ])
}

/// Aims between pods, for tc with direct forwarding.
pub(super) fn path(report: &Path) -> String {
    let of = |contender: &str, load: &str| {
        report.results.iter().find(|o| o.contender == contender && o.load == load && o.mtu == 1_500)
    };
    let cpu = |load| Some(of("lb-tc-direct", load)?.ratio.cpu.median);
    let p50_of = |contender, load| Some(of(contender, load)?.ratio.p50?.median);
    let p50 = |load| p50_of("lb-tc-direct", load);
    let rules = |load| {
        let (ours, theirs) = (of("lb-tc-direct", load)?, of("nftables-5000", load)?);
        Some((theirs.p50_us?.median / ours.p50_us?.median, theirs.cpu.median / ours.cpu.median))
    };
    let connections = rules("connections-1");
    table(&[
        at_most("lb-tc-direct against direct: bulk, CPU time", 1.0, " ×", cpu("bulk")),
        at_most("lb-tc-direct against direct: requests, p50", 1.0, " ×", p50("requests")),
        at_most("lb-tc-direct against direct: connections, p50", 0.95, " ×", p50("connections-1")),
        at_least(
            "nftables-5000 against lb-tc-direct: connections, p50",
            1.3,
            connections.map(|(p50, _)| p50),
        ),
        at_least(
            "nftables-5000 against lb-tc-direct: connections, CPU time",
            1.25,
            connections.map(|(_, cpu)| cpu),
        ),
        at_most(
            "lb-socket against direct: connections, p50",
            1.03,
            " ×",
            p50_of("lb-socket", "connections-1"),
        ),
    ])
}

/// Aims at 10,000 Services.
pub(super) fn scale(report: &Scale) -> String {
    let found = report.settings.iter().find(|measured| measured.setting.services == 10_000);
    let of = |value: fn(&crate::scale::Measured) -> f64| found.map(value);
    table(&[
        at_most(
            "10,000 Services: plan and write all",
            400.0,
            " ms",
            of(|m| m.steps.plan_ms.median + m.steps.write_ms.median),
        ),
        at_most(
            "10,000 Services: read, plan and write one change",
            1.0,
            " ms",
            of(|m| m.steps.change_ms.median),
        ),
        at_most("10,000 Services: operations for it", 8.0, "", of(|m| m.steps.change.operations as f64)),
        at_most("10,000 Services: the agent's memory", 40.0, " MiB", of(|m| m.agent.resident_mib)),
        at_most("10,000 Services: a packet, against one", 1.05, " ×", of(|m| m.packet.among_ratio.median)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_count_from_their_own_side() {
        let met = |target: Target| table(&[target]).contains("| yes |");
        assert!(met(at_most("", 1.0, " ×", Some(1.0))) && !met(at_most("", 1.0, " ×", Some(1.01))));
        assert!(met(at_least("", 1.3, Some(1.3))) && !met(at_least("", 1.3, Some(1.2))));
        assert!(!table(&[at_most("what", 1.0, " ×", None)]).contains("what"));
    }
}
