//! What runs the engine: the host build, or a kernel program.

use lb_common::engine::Position;
use lb_common::reason::{Class, Reason};
use lb_common::tables::Table;
use lb_userspace::maps::MapStore;

use super::Error;

/// Longest frame that fits one buffer of a page with what the kernel puts around it, in test runs.
const ONE_BUFFER: usize = 3_400;

/// Where the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The host build.
    Host,
    /// `lb_xdp`.
    Xdp,
    /// `lb_xdp_frags`.
    XdpFrags,
    /// `lb_tc_ingress`.
    Tc,
}

impl Hook {
    /// The program for packets that come in; `None` on the host.
    pub const fn program(self) -> Option<&'static str> {
        match self {
            Self::Host => None,
            Self::Xdp => Some("lb_xdp"),
            Self::XdpFrags => Some("lb_xdp_frags"),
            Self::Tc => Some("lb_tc_ingress"),
        }
    }

    /// Whether a test run takes a frame of this length: the kernel wants an Ethernet header, and programs of one buffer no
    /// more than that.
    pub const fn takes(self, len: usize) -> bool {
        match self {
            Self::Host => true,
            Self::Xdp | Self::Tc => len >= 14 && len <= ONE_BUFFER,
            Self::XdpFrags => len >= 14,
        }
    }

    /// Whether the field alone tells whether a checksum is partial. At tc the kernel knows, and says "no" in a test run.
    pub const fn guesses_partial(self) -> bool {
        !matches!(self, Self::Tc)
    }

    /// What the program must return for a packet of this class.
    pub const fn action(self, class: Class, egress: bool) -> u32 {
        const XDP_DROP: u32 = 1;
        const XDP_PASS: u32 = 2;
        const TC_ACT_UNSPEC: u32 = -1_i32 as u32;
        const TC_ACT_SHOT: u32 = 2;
        if egress {
            return TC_ACT_UNSPEC;
        }
        match (self, class) {
            (Self::Host, _) => 0,
            (Self::Xdp | Self::XdpFrags, Class::Forwarded | Class::Passed) => XDP_PASS,
            (Self::Xdp | Self::XdpFrags, Class::Answered | Class::Dropped) => XDP_DROP,
            (Self::Tc, Class::Forwarded | Class::Passed) => TC_ACT_UNSPEC,
            (Self::Tc, Class::Answered | Class::Dropped) => TC_ACT_SHOT,
        }
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why; `None` when nothing was counted, as at egress for packets that are none of ours.
    pub reason: Option<Reason>,
    /// What the program returned; 0 on the host.
    pub action: u32,
    /// The packet afterwards.
    pub frame: Vec<u8>,
}

/// What runs the engine.
pub trait Body {
    /// Where.
    fn hook(&self) -> Hook;

    /// Its maps.
    fn store(&mut self) -> &mut dyn MapStore;

    /// Runs the engine on one packet.
    ///
    /// # Errors
    /// The run could not be made, or counted what no packet explains.
    fn run(&mut self, frame: &[u8], position: Position) -> Result<Outcome, Error>;

    /// Lets seconds pass, for all that the maps remember.
    ///
    /// # Errors
    /// A map could not be read or written.
    fn advance(&mut self, seconds: u32) -> Result<(), Error>;

    /// Empties all maps.
    ///
    /// # Errors
    /// A map could not be read or written.
    fn clear(&mut self) -> Result<(), Error> {
        for spec in lb_common::tables::SPECS {
            clear(self.store(), spec.table)?;
        }
        Ok(())
    }
}

/// Empties one map.
///
/// # Errors
/// It could not be read or written.
pub fn clear(store: &mut dyn MapStore, table: Table) -> Result<(), Error> {
    for (key, _) in store.dump(table)? {
        store.delete(table, &key)?;
    }
    Ok(())
}
