//! What runs the engine: the host build, or a kernel program.

use lb_common::engine::Position;
use lb_common::engine::answer::NOTE_MAGIC;
use lb_common::reason::{Class, Reason};
use lb_common::tables::Table;
use lb_userspace::dataplane::kernel_at_least;
use lb_userspace::maps::MapStore;

use super::Error;
use super::row::Given;

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

    /// Whether a test run takes this frame, by its length: the kernel wants an Ethernet header, at tc the network header
    /// that the EtherType promises as well, and in programs of one buffer no more than fits one.
    pub fn takes(self, frame: &[u8]) -> bool {
        let least = match (self, frame.get(12..14)) {
            (Self::Host, _) => 0,
            (Self::Tc, Some([0x08, 0x00])) => 34,
            (Self::Tc, Some([0x86, 0xdd])) => 54,
            (Self::Tc, _) => 15,
            (Self::Xdp | Self::XdpFrags, _) => 14,
        };
        let most = match self {
            Self::Host | Self::XdpFrags => usize::MAX,
            Self::Xdp | Self::Tc => ONE_BUFFER,
        };
        (least..=most).contains(&frame.len())
    }

    /// Whether the field alone tells whether a checksum is partial. At tc the kernel knows, and says "no" in a test run.
    pub const fn guesses_partial(self) -> bool {
        !matches!(self, Self::Tc)
    }

    /// What the program must return for a packet, and how the packet must look afterwards; `None`: it is dropped, and may
    /// look anyhow. `sent` is how it looks when it is forwarded, `answer` the answer to it.
    ///
    /// XDP leaves answering to the tc program of the same interface: a note stands in front of the packet.
    pub fn after(self, given: &Given, sent: &[u8], answer: Option<&[u8]>) -> (u32, Option<Vec<u8>>) {
        const XDP_DROP: u32 = 1;
        const XDP_PASS: u32 = 2;
        const TC_ACT_UNSPEC: u32 = -1_i32 as u32;
        const TC_ACT_SHOT: u32 = 2;
        const TC_ACT_REDIRECT: u32 = 7;
        let class = given.reason.class();
        let frame = match class {
            Class::Forwarded => sent,
            Class::Passed | Class::Answered | Class::Dropped => &given.frame,
        };
        let left = Some(frame.to_vec());
        if given.position.egress {
            return (if self == Self::Host { 0 } else { TC_ACT_UNSPEC }, left);
        }
        match (self, class) {
            (Self::Host, Class::Answered) => (0, answer.map(<[u8]>::to_vec)),
            (Self::Host, _) => (0, left),
            (Self::Xdp | Self::XdpFrags, Class::Forwarded | Class::Passed) => (XDP_PASS, left),
            (Self::Xdp | Self::XdpFrags, Class::Answered) => {
                let note = [NOTE_MAGIC, given.reason as u32].map(u32::to_ne_bytes).concat();
                // Test runs show what stands in front of a packet from kernel 5.14 on.
                let note: &[u8] = if kernel_at_least(5, 14) { &note } else { &[] };
                (XDP_PASS, Some([note, frame].concat()))
            }
            (Self::Xdp | Self::XdpFrags, Class::Dropped) => (XDP_DROP, left),
            (Self::Tc, Class::Forwarded | Class::Passed) => (TC_ACT_UNSPEC, left),
            (Self::Tc, Class::Answered) => {
                (if answer.is_some() { TC_ACT_REDIRECT } else { TC_ACT_SHOT }, answer.map(<[u8]>::to_vec))
            }
            (Self::Tc, Class::Dropped) => (TC_ACT_SHOT, left),
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
