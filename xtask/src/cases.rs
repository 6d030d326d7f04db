//! `cargo xtask cases`: facts about how Services behave, as data, through the real code.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use xshell::{Shell, cmd};

/// Arguments of `cases`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of cases in the format of tests/cases/README.md [default: tests/cases]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only the files of this area
    #[arg(long)]
    area: Option<String>,
    /// json or text
    #[arg(long, default_value = "text", value_parser = ["json", "text"])]
    output: String,
}

/// Prints a line for each failing row and the totals; fails when any row does.
pub(crate) fn run(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    let mut rest: Vec<OsString> = vec!["--output".into(), args.output.as_str().into()];
    if let Some(dir) = &args.dir {
        let dir = std::path::absolute(dir).with_context(|| format!("find {}", dir.display()))?;
        rest.extend(["--dir".into(), dir.into_os_string()]);
    }
    if let Some(area) = &args.area {
        rest.extend(["--area".into(), area.into()]);
    }
    let command = cmd!(sh, "cargo run --quiet --package lb-tests --bin cases -- {rest...}");
    command.quiet().run().context("not all cases hold")
}
