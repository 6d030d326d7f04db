//! `cargo xtask demo`: a Service at work, without a cluster.

use xshell::Shell;

use crate::step;

/// Shows it.
pub(crate) fn run(sh: &Shell) -> anyhow::Result<()> {
    anyhow::ensure!(step::is_root(sh)?, "x");
    anyhow::bail!("the lab is not there yet")
}
