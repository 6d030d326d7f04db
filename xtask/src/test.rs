//! `cargo xtask test`: everything, root-needing tests included.

use lb_build::{find_program, search_path};
use xshell::{Shell, cmd};

use crate::step;

/// Arguments of `test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Fails at once, before anything is installed or built, for users who cannot run the tests.
pub(crate) fn needs_root(sh: &Shell) -> anyhow::Result<()> {
    anyhow::ensure!(
        step::is_root(sh)?,
        "the tests make network namespaces and load kernel programs: run them as root, e.g. \
         sudo -E env \"PATH=$PATH\" cargo xtask test"
    );
    Ok(())
}

/// Runs the tests of the workspace.
pub(crate) fn run(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    // The tests run the binary that ships.
    let _binary = sh.push_env("LB_BIN", step::target().join("release/lb"));
    let filter = args.filter.as_deref();
    if find_program("cargo-nextest", &search_path()).is_some() {
        step::say("tests, by cargo nextest");
        step::run(cmd!(sh, "cargo nextest run --workspace --no-fail-fast {filter...}"))?;
        step::say("tests in documentation");
        step::run(cmd!(sh, "cargo test --workspace --doc --quiet {filter...}"))
    } else {
        step::say("tests, by cargo test (a test needing root runs alone: slower than cargo nextest)");
        step::run(cmd!(sh, "cargo test --workspace --exclude lb-tests --no-fail-fast {filter...}"))?;
        step::run(cmd!(sh, "cargo test --package lb-tests --no-fail-fast {filter...} -- --test-threads=1"))
    }
}
