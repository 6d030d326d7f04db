//! `cargo xtask verifier`: what the kernel's verifier says of the programs, against what is recorded.

use xshell::{Shell, cmd};

use crate::step;

/// Arguments of `verifier`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Record what it is now in docs/verifier.json
    #[arg(long)]
    update: bool,
}

/// Compares, or records.
pub(crate) fn run(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    let _update = args.update.then(|| sh.push_env("UPDATE_BUDGET", "1"));
    step::run(cmd!(sh, "cargo test --quiet --package lb-tests --test verifier -- --nocapture"))
}
