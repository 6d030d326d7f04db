//! Giving rules to the tools that load them.

use std::io::Write;
use std::net::SocketAddrV4;
use std::process::Stdio;

use anyhow::Context;
use lb_userspace::lab::netns::Namespace;

use super::stage::{SERVER, sysctl};
use crate::manifests::{self, POD_PORT};

/// What rules say about one Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its number.
    pub(crate) number: u32,
    /// Its address.
    pub(crate) service: SocketAddrV4,
    /// Its only endpoint.
    pub(crate) endpoint: SocketAddrV4,
}

/// The Service whose endpoint is there: in the middle, where the length of a list is felt by half.
pub(crate) const fn ours(services: u32) -> u32 {
    services / 2
}

/// So many Services; the endpoint of one is there.
pub(crate) fn services(count: u32) -> impl Iterator<Item = Rule> {
    (0..count).map(move |number| {
        let ip = if number == ours(count) { SERVER } else { manifests::pod(number, 1, 0) };
        Rule { number, service: manifests::service(number), endpoint: SocketAddrV4::new(ip, POD_PORT) }
    })
}

/// Loads rules on a node.
pub(crate) fn load(node: &Namespace, tool: &[&str], rules: &str) -> anyhow::Result<()> {
    let (program, arguments) = tool.split_first().context("a tool")?;
    let mut command = node.command(program)?;
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    let mut input = child.stdin.take().context("the tool's input")?;
    let written = input.write_all(rules.as_bytes());
    drop(input);
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let first: String = complaint.lines().take(5).collect::<Vec<_>>().join("; ");
    anyhow::ensure!(output.status.success(), "{program} refuses the rules ({}): {first}", output.status);
    written.with_context(|| format!("give {program} the rules"))?;
    // Connections that are over are forgotten after two minutes otherwise, and so many are made that the table would fill.
    node.run(|| sysctl("netfilter/nf_conntrack_tcp_timeout_time_wait", "5"))?
}
