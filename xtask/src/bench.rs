//! `cargo xtask bench`: how fast it is.

use lb_build::{find_program, search_path};
use xshell::{Shell, cmd};

use crate::{packages, step};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure: packet, tables, path, scale or all
    #[arg(default_value = "all")]
    what: String,
    /// Fewer rounds: within a minute, less exact, and docs/benchmarks.md stays as it is
    #[arg(long)]
    quick: bool,
    /// Of `packet`, only cases whose names contain this, as `xdp IPv4 TCP established-1`
    #[arg(long)]
    case: Option<String>,
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
    // Only measured against, so the other verbs do without.
    if find_program("iptables-restore", &search_path()).is_none()
        && let Err(error) = packages::install(sh, &["iptables"])
    {
        eprintln!("==> measuring without iptables: {error:#}");
    }
    // Standard output is for results.
    eprintln!("==> build the measurements");
    step::run(cmd!(
        sh,
        "cargo build --release --quiet --package lb-userspace --package lb-bench --bin lb --bin lb-bench"
    ))?;
    let docs = if args.quick { step::target().join("bench") } else { step::workspace().join("docs") };
    let program = step::target().join("release/lb-bench");
    let Args { what, output, quick, case } = args;
    let case = case.iter().flat_map(|case| ["--case", case]);
    let quick = quick.then_some("--quick");
    step::run(cmd!(sh, "{program} {what} {quick...} {case...} --output {output} --docs {docs}"))?;
    if args.case.is_none() {
        eprintln!("==> written to {}", docs.join("benchmarks.md").display());
    }
    Ok(())
}
