//! The hooks that packets are timed at.

use crate::bpf::Kind;

/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;
/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// `BPF_XDP`, the attach type aya loads XDP programs with.
const ATTACH_XDP: u32 = 37;
/// `BPF_F_XDP_HAS_FRAGS`.
const HAS_FRAGS: u32 = 1 << 5;

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// XDP, packets of one buffer.
    Xdp,
    /// XDP, packets of several buffers.
    XdpFrags,
    /// tc ingress.
    Tc,
}

impl Hook {
    /// All.
    pub(crate) const ALL: [Self; 3] = [Self::Xdp, Self::XdpFrags, Self::Tc];

    /// Its name in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::XdpFrags => "xdp-frags",
            Self::Tc => "tc",
        }
    }

    /// Our program there.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "lb_xdp",
            Self::XdpFrags => "lb_xdp_frags",
            Self::Tc => "lb_tc_ingress",
        }
    }

    /// What a program returns for a packet that goes on: `XDP_PASS`, `TC_ACT_UNSPEC`.
    pub(crate) const fn pass(self) -> u32 {
        match self {
            Self::Xdp | Self::XdpFrags => 2,
            Self::Tc => u32::MAX,
        }
    }

    /// The type of program.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Xdp => Kind { program_type: XDP, attach_type: ATTACH_XDP, flags: 0 },
            Self::XdpFrags => Kind { program_type: XDP, attach_type: ATTACH_XDP, flags: HAS_FRAGS },
            Self::Tc => Kind { program_type: SCHED_CLS, attach_type: 0, flags: 0 },
        }
    }

    /// Offsets of the packet's pointers in the context: `xdp_md`, `__sk_buff`.
    pub(crate) const fn pointers(self) -> (i16, i16) {
        match self {
            Self::Xdp | Self::XdpFrags => (0, 4),
            Self::Tc => (76, 80),
        }
    }
}
