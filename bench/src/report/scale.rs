//! `scale` for people.

use std::fmt::Write as _;

use super::plot::{Bar, Plot};
use super::{Section, spread, targets};
use crate::sample::Spread;
use crate::scale::{Measured, Report};

pub(super) fn section(report: &Report) -> Section {
    let mut text = String::new();
    let mut row = |name: &str, cell: &dyn Fn(&Measured) -> String| {
        // Writing to a string never fails.
        let _infallible = write!(text, "| {name} |");
        for measured in &report.settings {
            let _infallible = write!(text, " {} |", cell(measured));
        }
        text.push('\n');
    };
    row("Services × backends", &|m| label(m));
    row("---", &|_| "---".to_owned());
    row("read and check the files", &|m| format!("{:.0} ms", m.steps.parse_ms));
    row("make the desired state", &|m| format!("{:.0} ms", m.steps.model_ms));
    row("plan, from empty maps", &|m| spread(&m.steps.plan_ms, 1, " ms"));
    row("write to the maps", &|m| spread(&m.steps.write_ms, 1, " ms"));
    row("**full load: plan and write**, for each Service", &|m| {
        let ms = m.steps.plan_ms.median + m.steps.write_ms.median;
        format!("**{ms:.0} ms**, {:.1} µs", ms * 1e3 / f64::from(m.setting.services))
    });
    row("entries, calls, KB written", &|m| {
        let load = m.steps.load;
        format!("{}, {}, {:.0}", load.operations, load.calls, load.bytes as f64 / 1e3)
    });
    row("one endpoint changes: read, plan and write", &|m| spread(&m.steps.change_ms, 2, " ms"));
    row("operations, calls, bytes for that", &|m| {
        let change = m.steps.change;
        format!("**{}**, {}, {}", change.operations, change.calls, change.bytes)
    });
    row("agent: start until all is in the maps", &|m| format!("{:.0} ms", m.agent.start_ms));
    row("agent: a file changes, until the map has it", &|m| spread(&m.agent.change_ms, 1, " ms"));
    row("agent: resident memory, its peak", &|m| {
        format!("**{:.0} MiB**, {:.0} MiB", m.agent.resident_mib, m.agent.peak_mib)
    });
    row("memory of the maps", &|m| format!("{:.0} MiB", m.agent.maps_mib));
    let ratio = |ratio: &Spread| format!("**×{:.2}** ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max);
    row("a packet to one Service among these, against one alone", &|m| ratio(&m.packet.among_ratio));
    row("packets to different Services, against one alone", &|m| ratio(&m.packet.apart_ratio));
    let bar =
        |m: &Measured, series: &str, value: Spread| Bar { group: label(m), series: series.to_owned(), value };
    let exactly = |value: f64| Spread { median: value, min: value, max: value };
    let bars = report.settings.iter().flat_map(|m| {
        [
            bar(m, "agent, MiB", exactly(m.agent.resident_mib)),
            bar(m, "full load, ms", exactly(m.steps.plan_ms.median + m.steps.write_ms.median)),
            bar(m, "one change: read, plan and write, ms", m.steps.change_ms),
        ]
    });
    let plot = Plot {
        name: "scale",
        title: "Services × backends: memory and times".to_owned(),
        unit: "",
        bars: bars.collect(),
    };
    text += &targets::scale(report);
    Section { name: "scale", text, plots: vec![plot] }
}

fn label(measured: &Measured) -> String {
    format!("{} × {}", measured.setting.services, measured.setting.backends)
}
