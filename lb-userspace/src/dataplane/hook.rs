//! Where programs are attached.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HookChoice {
    /// Native XDP on physical devices whose driver has it, tc elsewhere.
    #[default]
    Auto,
    /// Native XDP: in the driver.
    Xdp,
    /// Generic XDP: in the kernel's receive path, for any device.
    XdpGeneric,
    /// tc: tcx from kernel 6.6 on, a clsact filter before.
    Tc,
}

/// Where a program really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Native XDP.
    Xdp,
    /// Generic XDP.
    XdpGeneric,
    /// tcx, kernel 6.6 and later.
    Tcx,
    /// A filter on a clsact qdisc.
    Clsact,
}

impl Hook {
    /// Name for people and machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// Whether packets are seen at XDP.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::Xdp | Self::XdpGeneric)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
