//! Who carries the client's packets to the server. To add one: an entry in [`ALL`], and an arm where it differs.

use std::net::SocketAddrV4;

use anyhow::Context;

use super::rules::{self, ours};
use super::stage::{SERVER, Stage};
use super::{iptables, nftables};
use crate::agent::Agent;
use crate::manifests::{self, POD_PORT};

/// A way from client to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The client dials the pod.
    Direct,
    /// `lb run` with these arguments.
    Agent {
        /// Its name in results.
        name: &'static str,
        /// The arguments.
        arguments: &'static [&'static str],
    },
    /// Rules shaped like kube-proxy's nftables mode, for so many Services.
    Nftables(u32),
    /// Rules shaped like kube-proxy's iptables mode, for so many Services.
    Iptables(u32),
}

/// The option by which sockets dial backends, which is for the client's cgroup only.
const SOCKET_LB: &str = "--socket-lb";
/// The hook for which pods are wired in another way.
const XDP: &str = "xdp";

/// Everybody, and whether it is measured with large packets as well.
pub(crate) const ALL: [(Contender, bool); 11] = [
    (Contender::Direct, true),
    (agent("lb-tc-direct", &["--hook", "tc", "--forwarding", "direct"]), true),
    (agent("lb-tc-kernel", &["--hook", "tc", "--forwarding", "kernel"]), false),
    (agent("lb-socket", &["--hook", "tc", "--forwarding", "direct", SOCKET_LB, "on"]), true),
    (agent("lb-xdp", &["--hook", XDP]), true),
    (agent("lb-xdp-direct", &["--hook", XDP, "--forwarding", "direct"]), true),
    (agent("lb-xdp-generic", &["--hook", "xdp-generic"]), false),
    (Contender::Nftables(1), true),
    (Contender::Nftables(5_000), false),
    (Contender::Iptables(1), false),
    (Contender::Iptables(5_000), false),
];

const fn agent(name: &'static str, arguments: &'static [&'static str]) -> Contender {
    Contender::Agent { name, arguments }
}

impl Contender {
    /// Its name in results.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Direct => "direct".to_owned(),
            Self::Agent { name, .. } => name.to_owned(),
            Self::Nftables(services) => format!("nftables-{services}"),
            Self::Iptables(services) => format!("iptables-{services}"),
        }
    }

    /// Whether pods are to be wired for native XDP, as `lb lab up --hook xdp` does.
    pub(crate) fn native_xdp(self) -> bool {
        matches!(self, Self::Agent { arguments, .. } if arguments.contains(&XDP))
    }

    /// Whether pods are to finish checksums themselves, as `lb lab up --hook xdp --forwarding direct` has them do.
    pub(crate) fn finished_checksums(self) -> bool {
        self.native_xdp() && matches!(self, Self::Agent { arguments, .. } if arguments.contains(&"direct"))
    }

    /// What the client dials.
    pub(crate) fn target(self) -> SocketAddrV4 {
        match self {
            Self::Direct => SocketAddrV4::new(SERVER, POD_PORT),
            Self::Agent { .. } => manifests::service(0),
            Self::Nftables(services) | Self::Iptables(services) => manifests::service(ours(services)),
        }
    }

    /// Puts it to work on a stage's node.
    pub(crate) fn set_up(self, stage: &mut Stage) -> anyhow::Result<Option<Agent>> {
        match self {
            Self::Direct => {}
            Self::Agent { arguments, .. } => {
                let folder = stage.folder().join("manifests");
                manifests::write(&folder, 1, |_| vec![SERVER])?;
                let mut arguments = [&["--iface", "veth*"], arguments].concat();
                let cgroup = if arguments.contains(&SOCKET_LB) {
                    Some(stage.make_cgroup().to_str().context("a cgroup with a plain path")?.to_owned())
                } else {
                    None
                };
                if let Some(cgroup) = &cgroup {
                    arguments.extend(["--cgroup", cgroup]);
                }
                let agent = Agent::start(stage.node(), stage.name(), &folder, stage.folder(), &arguments)?;
                return Ok(Some(agent));
            }
            Self::Nftables(services) => {
                let text = nftables::rules(rules::services(services));
                rules::load(stage.node(), &["nft", "-f", "-"], &text)?;
            }
            Self::Iptables(services) => {
                let text = iptables::rules(rules::services(services));
                rules::load(stage.node(), &["iptables-restore"], &text)?;
            }
        }
        Ok(None)
    }
}
