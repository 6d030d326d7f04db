//! Where the packet path may be cut in pieces.
//!
//! On the host the pieces simply follow each other. In the kernel each is a function of its own that the verifier
//! checks once, whatever led there; what one leaves for the next lies in [`Work`], because the 512 bytes of stack are
//! shared by all of them.

use core::mem::offset_of;
use core::ops::DerefMut;
use core::ptr;

use bytemuck::Zeroable;

use super::flow::Other;
use super::packet::Packet;
use super::parse::{Fragment, Met, Wire};
use super::tables::Tables;
use super::{first_packet, flow, open, without_ports};
use crate::abi::{FlowEntry, FlowKey, FrontendEntry};
use crate::family::Address;
use crate::reason::Reason;

/// A direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// That of the packet in hand.
    Own = 0,
    /// The other one.
    Other = 1,
}

/// What is known of the packet in hand, and room for what is made of it. Key and entry lie equally far apart for both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Work<A> {
    /// The packet as it was met.
    pub met: Met<A>,
    /// Entry of the packet's own direction.
    pub entry: FlowEntry<A>,
    /// Key of the other direction.
    pub other_key: FlowKey<A>,
    /// The frontend it is for, once found.
    pub frontend: FrontendEntry,
    /// The backend chosen for a new flow.
    pub backend: u32,
    /// 1: the new flow's source becomes the node's.
    pub masquerade: u8,
    /// 1: came in over an interface marked external (F9).
    pub external: u8,
    /// 1: leaving the host.
    pub egress: u8,
    /// Entry of the other direction.
    pub other: FlowEntry<A>,
}

impl<A> Work<A> {
    /// Bytes from what is the packet's own direction's to what is the other's.
    const BETWEEN: usize = {
        let between = offset_of!(Self, other_key) - offset_of!(Self, met.key);
        assert!(offset_of!(Self, other) - offset_of!(Self, entry) == between);
        between
    };

    /// Key and entry of a direction. By arithmetic: the verifier would follow each arm of a branch with all that comes behind it.
    #[inline(always)]
    pub fn side(&self, direction: u32) -> (&FlowKey<A>, &FlowEntry<A>) {
        // SAFETY: asserted above; both are inside of `self`.
        unsafe {
            let side = ptr::from_ref(self).byte_add((direction as usize & 1) * Self::BETWEEN);
            (
                &*side.byte_add(offset_of!(Self, met.key)).cast(),
                &*side.byte_add(offset_of!(Self, entry)).cast(),
            )
        }
    }
}

impl<A: Address> Work<A> {
    /// Everything zero.
    pub fn new() -> Self {
        let met = Met {
            key: FlowKey::zeroed(),
            offset: 0,
            transport: 0,
            end: 0,
            checksum: 0,
            fragment: Fragment::WHOLE,
            flags: 0,
        };
        Self {
            met,
            frontend: FrontendEntry::zeroed(),
            entry: FlowEntry::zeroed(),
            other_key: FlowKey::zeroed(),
            other: FlowEntry::zeroed(),
            backend: 0,
            masquerade: 0,
            external: 0,
            egress: 0,
        }
    }
}

impl<A: Address> Default for Work<A> {
    fn default() -> Self {
        Self::new()
    }
}

/// The pieces of the packet path.
pub trait Steps<P: Packet>: Tables + Sized {
    /// Room for one packet.
    type Room<A: Address>: DerefMut<Target = Work<A>>;

    /// Room for one packet; `None` when there is none.
    fn work<W: Wire>(&self) -> Option<Self::Room<W::Addr>>;

    /// See [`super::first_packet`].
    fn first_packet<W: Wire>(&self, work: &mut Work<W::Addr>) -> Reason {
        first_packet::<W, Self>(self, work)
    }

    /// See [`open::record`].
    fn record<W: Wire>(&self, work: &mut Work<W::Addr>) -> Reason {
        open::record::<W, Self>(self, work)
    }

    /// See [`super::without_ports`].
    fn without_ports<W: Wire>(&self, packet: &mut P, work: &mut Work<W::Addr>) -> Reason {
        without_ports::<W, P, Self>(packet, self, work)
    }

    /// See [`flow::refresh`]; with what is due then.
    fn refresh<W: Wire>(&self, work: &mut Work<W::Addr>, learned: u8) {
        match flow::refresh::<W::Addr, Self>(self, work, learned) {
            Other::There => {}
            Other::Evicted => flow::restore::<W::Addr, Self>(self, work),
            Other::Lost => flow::forget::<W::Addr, Self>(self, work),
        }
    }

    /// See [`flow::make_way`].
    fn make_way<W: Wire>(&self, work: &mut Work<W::Addr>) {
        flow::make_way::<W::Addr, Self>(self, work);
    }

    /// See [`flow::forget`].
    fn forget<W: Wire>(&self, work: &mut Work<W::Addr>) {
        flow::forget::<W::Addr, Self>(self, work);
    }
}
