//! `cargo xtask soak`: mixed traffic, changes of backends and restarts of the agent, for as long as wanted.

use xshell::{Shell, cmd};

use crate::step;

/// Arguments of `soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For how long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
}

/// Fails when anything failed meanwhile; says every ten seconds how far it is.
pub(crate) fn run(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    let _seconds = sh.push_env("LB_SOAK_SECONDS", (args.minutes * 60).to_string());
    step::run(cmd!(sh, "cargo test --quiet --package lb-tests --test soak -- --nocapture --test-threads 1"))
}
