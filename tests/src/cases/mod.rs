//! Facts about how Services behave, as data (format: `tests/cases/README.md`), run through the real control plane.
//!
//! Objects become desired state by the model; `probes` ask a [`Prober`] what happens to a packet under that state, `checks`
//! ask the component they are about. A key, area or kind of object that is not known here fails its row: nothing is skipped.

mod checks;
mod config;
mod engine;
mod fields;
mod file;
mod objects;
mod probe;
mod reference;
mod report;

use std::path::{Path, PathBuf};

use anyhow::Context;

pub use engine::{Engine, everywhere};
pub use probe::{Observed, Probe, Prober, SourceKind, Verdict};
pub use reference::Reference;
pub use report::{Report, Row};

/// Runs all case files of a folder, or those of one area.
///
/// # Errors
/// When the folder cannot be read or holds no case of the area. What is wrong within a file is a failing row.
pub fn run(folder: &Path, area: Option<&str>, probers: &mut [Box<dyn Prober>]) -> anyhow::Result<Report> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        files.push(entry.with_context(|| format!("cannot list {}", folder.display()))?.path());
    }
    files.retain(|file: &PathBuf| {
        file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
    });
    files.sort();
    let mut report = Report::default();
    for file in files {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        report.rows.extend(file::run(&name, &text, area, probers));
    }
    anyhow::ensure!(!report.rows.is_empty(), "no rows in {}", folder.display());
    Ok(report)
}
