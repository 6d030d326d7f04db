//! The agent of a lab: `lb run` inside the node's namespace.

use std::process::Command;
use std::time::Duration;

use super::dns::DOMAIN;
use super::error::Result;
use super::labs::UPLINK;
use super::netns::Namespace;
use super::process::{self, Process};
use super::state::{Places, State};

/// How long the first full sync may take: loading the programs is most of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options that say what the lab is like, as `lb run` and `lb explain` both have them.
pub(super) fn describe(command: &mut Command, places: &Places, state: &State) {
    for manifests in &state.manifests {
        command.arg("--manifests").arg(manifests);
    }
    command.arg("--manifests").arg(places.manifests());
    // The user's manifests may be what another cluster said of itself.
    command.arg("--pods-from").arg(places.manifests());
    command.args(["--node-name", &state.node]);
    for cidr in &state.pod_cidrs {
        command.args(["--pod-cidr", &cidr.to_string()]);
    }
    for cidr in &state.service_cidrs {
        command.args(["--service-cidr", &cidr.to_string()]);
    }
    for pool in &state.load_balancer_pool {
        command.args(["--load-balancer-pool", &pool.to_string()]);
    }
    command.arg("--state-file").arg(places.agent_state());
}

/// The agent's command line.
///
/// # Errors
/// When the process has no descriptor left.
pub(super) fn command(node: &Namespace, places: &Places, state: &State) -> Result<Command> {
    let mut command = node.command(&state.program)?;
    command.arg("run");
    describe(&mut command, places, state);
    command.args(["--iface", "veth*", "--iface", UPLINK, "--external-iface", UPLINK]);
    if !state.dns_addresses.is_empty() {
        for address in &state.node_addresses {
            command.args(["--dns-listen", &address.to_string()]);
        }
        command.args(["--cluster-domain", DOMAIN]);
    }
    command.arg("--pin-dir").arg(places.pins());
    command.arg("--ready-file").arg(places.agent_ready());
    for (option, value) in [("--hook", &state.hook), ("--forwarding", &state.forwarding)] {
        if let Some(value) = value {
            command.args([option, value]);
        }
    }
    Ok(command)
}

/// Starts the agent and waits until the first full sync is in the kernel.
///
/// # Errors
/// When it does not come up; the message has the end of its log.
pub(super) fn start(node: &Namespace, places: &Places, state: &State) -> Result<Process> {
    let log = places.agent_log();
    let mut child = process::start(command(node, places, state)?, &log)?;
    process::wait_ready("the agent", &mut child, &places.agent_ready(), &log, PATIENCE)?;
    Process::of("agent", child.id().cast_signed())
}
