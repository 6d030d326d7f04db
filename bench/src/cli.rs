//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::machine::Machine;
use crate::report::{self, Results};
use crate::{packet, path, scale, tables};

/// Measures lb, as ratios in one run.
#[derive(Debug, Parser)]
#[command(name = "lb-bench")]
pub(crate) struct Cli {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// Fewer rounds: within a minute, less exact, and the project's documents stay as they are
    #[arg(long)]
    quick: bool,
    /// How the results are printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Folder of benchmarks.md and its plots
    #[arg(long, value_name = "DIR")]
    docs: PathBuf,
    /// Of `packet`, only cases whose names contain this, as `xdp IPv4 TCP established-1`; of `path`, `direct` and contenders
    /// whose names contain this, or one of several with commas between. No document is written
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Seed of the order of rounds and packets
    #[arg(long, default_value_t = 1, hide = true)]
    seed: u64,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// What a packet costs each program
    Packet,
    /// What the kernel's hash tables would cost as the flow table
    Tables,
    /// What traffic costs between pods
    Path,
    /// What many Services cost
    Scale,
    /// Everything
    All,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people: Markdown
    Text,
    /// For programs: see docs/benchmarks.md
    Json,
}

impl Cli {
    /// Measures, prints, and writes the documents.
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        let mut results = Results::new(self.quick, Machine::this()?);
        if matches!(self.what, What::Packet | What::All) {
            eprintln!("packet: what a packet costs each program");
            let rounds = if self.quick { 2 } else { 9 };
            results.packet =
                Some(packet::measure(packet::Effort { rounds, seed: self.seed, only: self.case.clone() })?);
        }
        if matches!(self.what, What::Tables | What::All) {
            eprintln!("tables: what the kernel's hash tables would cost as the flow table");
            let rounds = if self.quick { 3 } else { 15 };
            results.tables = Some(tables::measure(tables::Effort { rounds, seed: self.seed })?);
        }
        if matches!(self.what, What::Path | What::All) {
            eprintln!("path: what traffic costs between pods");
            let (rounds, millis) = if self.quick { (3, 60) } else { (9, 300) };
            let sample = Duration::from_millis(millis);
            results.path = Some(path::measure(&path::Effort {
                rounds,
                sample,
                seed: self.seed,
                only: self.case.clone(),
            })?);
        }
        if matches!(self.what, What::Scale | What::All) {
            results.scale = Some(scale::measure(scale::Effort { quick: self.quick, seed: self.seed })?);
        }
        if self.case.is_none() {
            report::write(&results, &self.docs)?;
        }
        match self.output {
            Output::Text => print!("{}", report::text(&results)),
            Output::Json => println!("{}", serde_json::to_string_pretty(&results)?),
        }
        Ok(())
    }
}
