//! Options of `lb run` about sockets.

use std::path::PathBuf;

use caps::Capability;
use clap::{Args, ValueEnum};

/// Whether backends are chosen when a socket dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// Every socket's packets are balanced.
    #[default]
    Off,
    /// Sockets dial backends; the agent does not start if the kernel cannot.
    On,
    /// The same, if the kernel can.
    Auto,
}

/// Options about sockets.
#[derive(Clone, Debug, Args)]
pub struct SocketArgs {
    /// Choose backends when a socket dials, for the processes of a cgroup: their packets need no rewriting, and processes
    /// of the node itself reach Services
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub socket_lb: Choice,

    /// Directory of a cgroup2 whose processes --socket-lb is for; the root, which has all of them, unless given
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,

    /// Network namespace whose sockets --socket-lb leaves alone, by name (of `ip netns`) or path. May be given several times
    #[arg(long, value_name = "NETNS")]
    pub socket_lb_exclude: Vec<String>,
}

impl SocketArgs {
    /// What the agent must be able to do on top: enter network namespaces, and see those of processes.
    pub fn capabilities(&self) -> &'static [Capability] {
        match self.socket_lb {
            Choice::Off => &[],
            Choice::On | Choice::Auto => &[Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE],
        }
    }
}
