//! `cargo xtask test`: everything, root-needing tests included.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::Context;
use lb_build::{find_program, search_path};
use xshell::{Shell, cmd};

use crate::{step, vm};

/// Arguments of `test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Leaves out other kernels in virtual machines, as a filter does
    #[arg(long)]
    no_vm: bool,
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

/// Runs the tests of the workspace, and the checks on the oldest and the newest kernel.
pub(crate) fn run(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    on_this_kernel(sh, args)?;
    if args.no_vm || args.filter.is_some() {
        return Ok(());
    }
    step::say("the oldest and the newest kernel, in virtual machines");
    vm::run(sh, &vm::Args::in_tests())
}

fn on_this_kernel(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    step::say("build target/debug/lb, which the tests run");
    step::run(cmd!(sh, "cargo build --package lb-userspace --bin lb"))?;
    let filter = args.filter.as_deref();
    if find_program("cargo-nextest", &search_path()).is_some() {
        step::say("tests, by cargo nextest");
        step::run(cmd!(sh, "cargo nextest run --workspace --no-fail-fast {filter...}"))?;
        return step::run(cmd!(sh, "cargo test --workspace --doc --quiet --no-fail-fast {filter...}"));
    }
    step::say("tests, by cargo test (cargo nextest is quicker: cargo install cargo-nextest --locked)");
    let mut counts = Counts::default();
    counts.run(cmd!(sh, "cargo test --workspace --exclude lb-tests --no-fail-fast {filter...}").into())?;
    // Tests in namespaces share one kernel: one at a time.
    let alone = cmd!(
        sh,
        "cargo test --package lb-tests --all-targets --no-fail-fast {filter...} -- --test-threads=1"
    );
    counts.run(alone.into())?;
    println!("==> {} tests passed, {} failed, {} ignored", counts.passed, counts.failed, counts.ignored);
    anyhow::ensure!(counts.failed == 0 && counts.succeeded, "not all tests passed");
    anyhow::ensure!(counts.passed > 0, "no test ran");
    Ok(())
}

/// Sums over the test programs that cargo runs one after the other.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Whether cargo was content: something that does not build is no failed test.
    succeeded: bool,
}

impl Default for Counts {
    fn default() -> Self {
        Self { passed: 0, failed: 0, ignored: 0, succeeded: true }
    }
}

impl Counts {
    /// Runs `cargo test`, showing its output.
    fn run(&mut self, mut command: Command) -> anyhow::Result<()> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
        let output = child.stdout.take().context("cargo test has no output")?;
        for line in BufReader::new(output).lines() {
            let line = line.context("read what cargo test says")?;
            println!("{line}");
            self.add(&line);
        }
        self.succeeded &= child.wait().context("wait for cargo test")?.success();
        Ok(())
    }

    /// Adds a line such as `test result: ok. 5 passed; 0 failed; 0 ignored; …`; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let count = pair[0].parse().unwrap_or(0);
            match pair[1] {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_are_summed() {
        let mut counts = Counts::default();
        for line in [
            "running 5 tests",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.00s",
            "test 7 passed",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 15, failed: 2, ignored: 1, succeeded: true });
    }
}
