//! How the engine reaches tables, clock and chance.

use crate::abi::{
    AffinityEntry, AffinityKey, BackendEntry, BackendStats, Config, FlowEntry, FlowKey, FragmentEntry,
    FragmentKey, FrontendEntry, FrontendKey, Settings,
};
use crate::family::Address;

/// What came of adding a flow entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    Yes,
    /// Another entry has this key.
    Exists,
    /// No room.
    Full,
}

/// A flow entry in its place.
pub trait FlowCell<A> {
    /// A copy of the entry.
    fn get(&self) -> FlowEntry<A>;
    /// Writes the time of the last packet, in ticks.
    fn set_last_seen(&self, ticks: u32);
    /// Writes the state bits.
    fn set_state(&self, state: u8);
}

/// The tables of [`crate::tables`], in the kernel or in memory.
pub trait Tables {
    /// A flow entry in its place.
    type Flow<A: Address>: FlowCell<A>;

    /// Ticks, counting up and wrapping.
    fn now(&self) -> u32;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// Constants.
    fn config(&self) -> Config;
    /// Settings of the agent.
    fn settings(&self) -> Option<Settings>;

    /// What stands behind a frontend.
    fn frontend<A: Address>(&self, key: &FrontendKey<A>) -> Option<FrontendEntry>;
    /// The backend number in a slot.
    fn slot(&self, index: u32) -> Option<u32>;
    /// A backend.
    fn backend(&self, id: u32) -> Option<BackendEntry>;
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

    /// A flow entry.
    fn flow<A: Address>(&self, key: &FlowKey<A>) -> Option<Self::Flow<A>>;
    /// Adds a flow entry unless its key is taken.
    fn add_flow<A: Address>(&self, key: &FlowKey<A>, entry: &FlowEntry<A>) -> Added;
    /// Writes a flow entry, whether or not its key is taken.
    fn put_flow<A: Address>(&self, key: &FlowKey<A>, entry: &FlowEntry<A>) -> Added;
    /// Removes a flow entry.
    fn remove_flow<A: Address>(&self, key: &FlowKey<A>);

    /// Changes the statistics of a backend.
    fn count_backend(&self, id: u32, change: impl FnOnce(&mut BackendStats));
}
