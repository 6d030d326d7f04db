//! The one program that runs in the machines.

use std::path::{Path, PathBuf};

use anyhow::Context;
use xshell::{Shell, cmd};

use crate::step;

/// Builds it, without anything that it would need to find in the guest. Optimised: every instruction of it is emulated. A copy
/// in `folder`: whatever builds the tests next puts its own program in the first one's place.
pub(crate) fn build(sh: &Shell, folder: &Path) -> anyhow::Result<PathBuf> {
    step::say("build target/release/lb-vm, which runs in the machines");
    let command = cmd!(sh, "cargo rustc --release --quiet --package lb-tests --bin lb-vm");
    step::run(command.args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]))?;
    let (built, copy) = (step::target().join("release/lb-vm"), folder.join("lb-vm"));
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    std::fs::copy(&built, &copy).with_context(|| format!("copy {}", built.display()))?;
    Ok(copy)
}
