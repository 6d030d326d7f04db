//! `lb doctor`: what on this machine stands in the way, and what to do.

use clap::Args as ClapArgs;

/// Arguments.
#[derive(Debug, ClapArgs)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Always: not there yet.
pub fn execute(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("not implemented yet")
}
