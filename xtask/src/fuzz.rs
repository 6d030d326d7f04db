//! `cargo xtask fuzz`: looks for inputs that are too much for something.

use xshell::{Shell, cmd};

use crate::step;

/// Arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Minutes for each target
    #[arg(long, default_value = "5")]
    minutes: f64,
    /// One target only: packets, sequences, manifests, names or pins
    #[arg(long)]
    target: Option<String>,
    /// Where random numbers begin; by default the time, so that every run looks elsewhere
    #[arg(long)]
    seed: Option<u64>,
}

/// Builds and looks.
pub(crate) fn run(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    let minutes = args.minutes.to_string();
    let target = args.target.iter();
    let seed = args.seed.map(|seed| seed.to_string());
    let seed = seed.iter().flat_map(|seed| ["--seed", seed]);
    step::run(cmd!(
        sh,
        "cargo run --release --quiet --package lb-tests --bin lb-fuzz -- {minutes} {target...} {seed...}"
    ))
}
