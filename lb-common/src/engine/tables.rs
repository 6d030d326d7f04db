//! How the engine reaches tables, clock and chance.

use core::ops::Deref;

use super::flow_table::FlowSets;
use super::steps::{Direction, Work};
use crate::abi::{
    AffinityEntry, AffinityKey, BackendEntry, BackendStats, Config, FragmentEntry, FragmentKey,
    FrontendEntry, FrontendKey, Settings,
};
use crate::family::Address;

/// What came of adding a flow entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    Yes,
    /// It is there now, in the place of another: [`Tables::evict`] is due.
    Evicted,
    /// Another entry has this key.
    Exists,
    /// No room.
    Full,
}

/// The tables of [`crate::tables`], in the kernel or in memory.
pub trait Tables: FlowSets + Sized {
    /// Ticks, counting up and wrapping.
    fn now(&self) -> u32;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// Constants.
    fn config(&self) -> &Config;
    /// An element of an array, in its place if possible: stack is short in the kernel.
    type Ref<V: Copy + 'static>: Deref<Target = V>;

    /// Settings of the agent.
    fn settings(&self) -> Option<Self::Ref<Settings>>;

    /// A word of the filter.
    fn filter(&self, word: u32) -> u64;
    /// Copies what stands behind a frontend; whether there is one.
    fn frontend<A: Address>(&self, key: &FrontendKey<A>, entry: &mut FrontendEntry) -> bool;
    /// The backend number in a slot.
    fn slot(&self, index: u32) -> Option<u32>;
    /// A backend.
    fn backend(&self, id: u32) -> Option<Self::Ref<BackendEntry>>;
    /// Takes a number from a round-robin counter: 0, 1, 2, …
    fn take_turn(&self, index: u32) -> u32;
    /// Open flows of a backend.
    fn open_flows(&self, backend: u32) -> u32;
    /// Changes the number of open flows of a backend by +1 or -1.
    fn add_open_flows(&self, backend: u32, change: i64);
    /// Classes of an address, bits of [`crate::abi::address_class`].
    fn class<A: Address>(&self, addr: A) -> u32;
    /// Whether a service's source ranges let an address in (V7).
    fn source_allowed<A: Address>(&self, service_id: u32, addr: A) -> bool;

    /// A client's remembered backend.
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry>;
    /// Remembers a client's backend.
    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry);

    /// The ports of a fragmented datagram.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry>;
    /// Remembers the ports of a fragmented datagram.
    fn set_fragment(&self, key: &FragmentKey, entry: &FragmentEntry);

    /// Writes the flow entry of a direction with [`flow::write`](super::flow::write).
    fn write_flow<A: Address>(&self, work: &Work<A>, direction: Direction, replace: bool) -> Added;
    /// After [`Added::Evicted`]: tells the flow of the entry that had to make way, with [`flow::evict`](super::flow::evict).
    fn evict<A: Address>(&self);

    /// Changes the statistics of a backend.
    fn count_backend(&self, id: u32, change: impl FnOnce(&mut BackendStats));
}
