//! Results for people and for programs.

mod packet;
mod path;
mod plot;
mod scale;
mod section;
mod tables;
mod targets;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use self::plot::Plot;
use crate::machine::Machine;
use crate::packet::Report as Packet;
use crate::path::Report as PathReport;
use crate::sample::Spread;
use crate::scale::Report as Scale;
use crate::tables::Report as Tables;

/// Version of the keys of [`Results`].
const SCHEMA: u32 = 1;

/// Everything that was measured. Its keys are documented in docs/benchmarks.md.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    schema: u32,
    /// Fewer rounds.
    pub(crate) quick: bool,
    /// Where.
    pub(crate) machine: Machine,
    /// `packet`, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packet: Option<Packet>,
    /// `tables`, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tables: Option<Tables>,
    /// `path`, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathReport>,
    /// `scale`, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scale: Option<Scale>,
}

impl Results {
    /// None yet.
    pub(crate) fn new(quick: bool, machine: Machine) -> Self {
        Self { schema: SCHEMA, quick, machine, packet: None, tables: None, path: None, scale: None }
    }
}

/// What is written about one kind of measurement.
struct Section {
    name: &'static str,
    text: String,
    plots: Vec<Plot>,
}

fn sections(results: &Results) -> Vec<Section> {
    let mut sections = Vec::new();
    if let Some(report) = &results.packet {
        sections.push(packet::section(report));
    }
    if let Some(report) = &results.tables {
        sections.push(tables::section(report));
    }
    if let Some(report) = &results.path {
        sections.push(path::section(report));
    }
    if let Some(report) = &results.scale {
        sections.push(scale::section(report));
    }
    for section in &mut sections {
        section.text = format!("{}\n\n{}", where_it_was(results), section.text);
    }
    sections
}

/// One line on the conditions.
fn where_it_was(results: &Results) -> String {
    let Machine { cpu, cpus, kernel, load } = &results.machine;
    let quick = if results.quick { " Few rounds (`--quick`)." } else { "" };
    format!("{cpu}, {cpus} CPUs, kernel {kernel}, load {load:.2} when it began.{quick}")
}

/// For people.
pub(crate) fn text(results: &Results) -> String {
    let mut text = String::new();
    for section in sections(results) {
        // Writing to a string never fails.
        let _infallible = writeln!(text, "## {}\n\n{}", section.name, section.text);
    }
    text
}

/// Puts the generated parts of benchmarks.md and its plots into `docs`.
pub(crate) fn write(results: &Results, docs: &Path) -> anyhow::Result<()> {
    let page = docs.join("benchmarks.md");
    let mut text = match fs::read_to_string(&page) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", page.display())),
    };
    let plots = docs.join("benchmarks");
    fs::create_dir_all(&plots).with_context(|| format!("make {}", plots.display()))?;
    for section in sections(results) {
        let mut part = section.text;
        for plot in &section.plots {
            let file = format!("{}.svg", plot.name);
            let path = plots.join(&file);
            fs::write(&path, plot.svg()).with_context(|| format!("write {}", path.display()))?;
            let _infallible = write!(part, "\n![{}](benchmarks/{file})\n", plot.title);
        }
        text = section::with_part(&text, section.name, &part);
    }
    fs::write(&page, text).with_context(|| format!("write {}", page.display()))
}

/// A value with its extremes.
fn spread(value: &Spread, digits: usize, unit: &str) -> String {
    let Spread { median, min, max } = value;
    format!("{median:.digits$}{unit} ({min:.digits$}–{max:.digits$})")
}
