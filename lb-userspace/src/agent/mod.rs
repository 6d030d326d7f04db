//! The agent: `lb run`.

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
