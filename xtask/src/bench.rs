//! `cargo xtask bench`: how fast it is.

use xshell::{Shell, cmd};

use crate::step;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure: packet, path, scale or all; `--help` after `--` has the rest
    #[arg(default_value = "all")]
    what: String,
    /// Fewer rounds: within a minute, less exact, and docs/benchmarks.md stays as it is
    #[arg(long)]
    quick: bool,
    /// How results are printed: text or json
    #[arg(long, default_value = "text")]
    output: String,
}

/// Fails at once for users who cannot load kernel programs.
pub(crate) fn needs_root(sh: &Shell) -> anyhow::Result<()> {
    anyhow::ensure!(
        step::is_root(sh)?,
        "the measurements load kernel programs and make network namespaces: run them as root, e.g. \
         sudo -E env \"PATH=$PATH\" cargo xtask bench"
    );
    Ok(())
}

/// Builds and measures.
pub(crate) fn run(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    // Standard output is for results.
    eprintln!("==> build the measurements");
    step::run(cmd!(
        sh,
        "cargo build --release --quiet --package lb-userspace --package lb-bench --bin lb --bin lb-bench"
    ))?;
    let docs = if args.quick { step::target().join("bench") } else { step::workspace().join("docs") };
    let program = step::target().join("release/lb-bench");
    let Args { what, output, quick } = args;
    let quick = quick.then_some("--quick");
    step::run(cmd!(sh, "{program} {what} {quick...} --output {output} --docs {docs}"))?;
    eprintln!("==> written to {}", docs.join("benchmarks.md").display());
    Ok(())
}
