//! The one program that runs in the machines.

use std::path::PathBuf;

use xshell::{Shell, cmd};

use crate::step;

/// Builds it, without anything that it would need to find in the guest: everything but its last step is what the tests are
/// built of anyway.
pub(crate) fn build(sh: &Shell) -> anyhow::Result<PathBuf> {
    step::say("build target/debug/lb-vm, which runs in the machines");
    let command = cmd!(sh, "cargo rustc --quiet --package lb-tests --bin lb-vm");
    step::run(command.args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]))?;
    Ok(step::target().join("debug/lb-vm"))
}
