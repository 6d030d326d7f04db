//! The agent: `lb run`.
//!
//! [`args`] is the command line, [`network`] tells what interfaces and addresses there are, [`keeper`] holds the
//! programs on the right interfaces, [`rules`] follows the host's packet rules, [`privileges`] and [`fence`] are what it may do,
//! [`wanted`] reads manifests as they change and makes the desired state of them, [`run`] is the loop that brings changes
//! into the kernel.

pub(crate) mod args;
mod devices;
mod fence;
mod keeper;
mod memory;
mod neighbours;
mod network;
mod privileges;
mod rules;
mod run;
mod sockets;
mod wanted;

pub use args::Args;

use std::net::IpAddr;

use crate::model::Interface;

/// The interfaces of the current network namespace, and the addresses on its default routes.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn surroundings() -> anyhow::Result<(Vec<Interface>, Vec<IpAddr>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let network = runtime.block_on(async { network::Watcher::new()?.look().await })?;
    Ok((network.interfaces, network.primary))
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When it cannot start; once it runs it reports and goes on.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    run::mount_bpffs(&args.pin_dir)?;
    privileges::give_up(args.sockets.capabilities())?;
    fence::close()?;
    // One thread: everything it does is short, and map changes keep their order.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run::run(args))
}
