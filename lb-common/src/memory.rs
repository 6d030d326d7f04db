//! Tables and packets in ordinary memory: the host build of the engine.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use bytemuck::{AnyBitPattern, NoUninit, Pod};

use crate::abi::{
    AffinityEntry, AffinityKey, BackendEntry, BackendStats, ClassKey, Config, FlowEntry, FlowKey,
    FragmentEntry, FragmentKey, FrontendEntry, FrontendKey, Settings, SourceRangeKey,
};
use crate::engine::answer::Resize;
use crate::engine::packet::Packet;
use crate::engine::parse::Wire;
use crate::engine::steps::{Steps, Work};
use crate::engine::tables::{Added, FlowCell, Tables};
use crate::family::Address;
use crate::tables::{Kind, SPECS, Table};

/// Contents of one table: bytes to bytes.
type Contents = HashMap<Vec<u8>, Vec<u8>>;

/// All tables of [`crate::tables::SPECS`], a clock that stands still until it is set, and chance from a seed.
#[derive(Debug)]
pub struct Memory {
    contents: Vec<RefCell<Contents>>,
    config: Config,
    now: Cell<u32>,
    random: Cell<u64>,
}

impl Memory {
    /// Empty tables, a clock of 100 ticks a second at 0.
    pub fn new() -> Self {
        Self {
            contents: SPECS.iter().map(|_| RefCell::default()).collect(),
            config: Config::with_ticks_per_second(100),
            now: Cell::new(0),
            random: Cell::new(0x853c_49e6_748f_ea9b),
        }
    }

    /// The same with other constants.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the clock, in ticks.
    pub fn set_now(&self, ticks: u32) {
        self.now.set(ticks);
    }

    /// Lets `seconds` pass.
    pub fn advance(&self, seconds: u32) {
        self.set_now(self.now.get().wrapping_add(seconds * self.config.ticks_per_second));
    }

    /// Writes an entry.
    pub fn update(&self, table: Table, key: &[u8], value: &[u8]) {
        self.contents[table as usize].borrow_mut().insert(key.to_vec(), value.to_vec());
    }

    /// Removes an entry; whether it was there.
    pub fn delete(&self, table: Table, key: &[u8]) -> bool {
        self.contents[table as usize].borrow_mut().remove(key).is_some()
    }

    /// Reads an entry. Entries of arrays that were never written are zero.
    pub fn lookup(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let spec = table.spec();
        let found = self.contents[table as usize].borrow().get(key).cloned();
        if found.is_none() && matches!(spec.kind, Kind::Array | Kind::PerCpuArray) {
            let index: u32 = bytemuck::pod_read_unaligned(key);
            return (index < spec.max_entries).then(|| vec![0; spec.value_size as usize]);
        }
        found
    }

    /// All entries written, in the order of their keys' bytes.
    pub fn dump(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut entries: Vec<_> =
            self.contents[table as usize].borrow().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        entries.sort();
        entries
    }

    /// Writes an entry, typed.
    pub fn put<K: NoUninit, V: NoUninit>(&self, table: Table, key: &K, value: &V) {
        self.update(table, bytemuck::bytes_of(key), bytemuck::bytes_of(value));
    }

    /// Reads an entry, typed.
    pub fn get<K: NoUninit, V: AnyBitPattern>(&self, table: Table, key: &K) -> Option<V> {
        self.lookup(table, bytemuck::bytes_of(key)).map(|value| bytemuck::pod_read_unaligned(&value))
    }

    fn change<V: Pod>(&self, table: Table, index: u32, change: impl FnOnce(&mut V)) {
        if let Some(mut value) = self.get::<u32, V>(table, &index) {
            change(&mut value);
            self.put(table, &index, &value);
        }
    }

    /// Longest-prefix match over keys that begin with their prefix length in bits.
    fn longest_match(&self, table: Table, key: &[u8]) -> Option<u32> {
        let matches = |prefix: &[u8]| {
            let bits = u32::from_ne_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
            let (whole, rest) = (bits / 8, bits % 8);
            let same = prefix[4..4 + whole] == key[4..4 + whole]
                && (rest == 0 || (prefix[4 + whole] ^ key[4 + whole]) >> (8 - rest) == 0);
            same.then_some(bits)
        };
        let contents = self.contents[table as usize].borrow();
        let best = contents.iter().filter_map(|(prefix, value)| Some((matches(prefix)?, value))).max();
        best.map(|(_, value)| bytemuck::pod_read_unaligned(value))
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

const fn frontends<A: Address>() -> Table {
    if A::WORDS == 1 { Table::FrontendsV4 } else { Table::FrontendsV6 }
}

const fn flows<A: Address>() -> Table {
    if A::WORDS == 1 { Table::FlowsV4 } else { Table::FlowsV6 }
}

/// A flow entry of a [`Memory`].
#[derive(Debug)]
pub struct MemoryFlow<'a, A> {
    memory: &'a Memory,
    key: FlowKey<A>,
}

impl<A: Address> MemoryFlow<'_, A> {
    fn change(&self, change: impl FnOnce(&mut FlowEntry<A>)) {
        let mut entry = self.get();
        change(&mut entry);
        self.memory.put(flows::<A>(), &self.key, &entry);
    }
}

impl<A: Address> FlowCell<A> for MemoryFlow<'_, A> {
    fn get(&self) -> FlowEntry<A> {
        self.memory.get(flows::<A>(), &self.key).expect("a cell is made only for an entry that is there")
    }

    fn set_last_seen(&self, ticks: u32) {
        self.change(|entry| entry.last_seen = ticks);
    }

    fn set_state(&self, state: u8) {
        self.change(|entry| entry.state = state);
    }
}

impl<'a> Tables for &'a Memory {
    type Flow<A: Address> = MemoryFlow<'a, A>;

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn random(&self) -> u32 {
        // PCG-XSH-RR (M. O'Neill, 2014).
        let state = self.random.get();
        self.random
            .set(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        ((((state >> 18) ^ state) >> 27) as u32).rotate_right((state >> 59) as u32)
    }

    fn config(&self) -> Config {
        self.config
    }

    fn settings(&self) -> Option<Settings> {
        self.get(Table::Settings, &0u32)
    }

    fn frontend<A: Address>(&self, key: &FrontendKey<A>) -> Option<FrontendEntry> {
        self.get(frontends::<A>(), key)
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.get(Table::Slots, &index)
    }

    fn backend(&self, id: u32) -> Option<BackendEntry> {
        self.get(Table::Backends, &id)
    }

    fn take_turn(&self, index: u32) -> u32 {
        let turn: u64 = self.get(Table::Turns, &index).unwrap_or(0);
        self.put(Table::Turns, &index, &(turn + 1));
        turn as u32
    }

    fn open_flows(&self, backend: u32) -> u32 {
        self.get::<u32, u64>(Table::OpenFlows, &backend).unwrap_or(0) as u32
    }

    fn add_open_flows(&self, backend: u32, change: i64) {
        self.change(Table::OpenFlows, backend, |open: &mut u64| *open = open.wrapping_add_signed(change));
    }

    fn class<A: Address>(&self, addr: A) -> u32 {
        let key = ClassKey { prefix_len: 128, addr: addr.widen() };
        self.longest_match(Table::Classes, bytemuck::bytes_of(&key)).unwrap_or(0)
    }

    fn source_allowed<A: Address>(&self, service_id: u32, addr: A) -> bool {
        let key = SourceRangeKey { prefix_len: 160, service_id_be: service_id.to_be(), addr: addr.widen() };
        self.longest_match(Table::SourceRanges, bytemuck::bytes_of(&key)).is_some()
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        self.get(Table::Affinity, key)
    }

    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry) {
        self.put(Table::Affinity, key, entry);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        self.get(Table::Fragments, key)
    }

    fn set_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        self.put(Table::Fragments, key, entry);
    }

    fn flow<A: Address>(&self, key: &FlowKey<A>) -> Option<MemoryFlow<'a, A>> {
        self.get::<_, FlowEntry<A>>(flows::<A>(), key).map(|_| MemoryFlow { memory: self, key: *key })
    }

    fn add_flow<A: Address>(&self, key: &FlowKey<A>, entry: &FlowEntry<A>) -> Added {
        if self.flow(key).is_some() { Added::Exists } else { self.put_flow(key, entry) }
    }

    fn put_flow<A: Address>(&self, key: &FlowKey<A>, entry: &FlowEntry<A>) -> Added {
        self.put(flows::<A>(), key, entry);
        Added::Yes
    }

    fn remove_flow<A: Address>(&self, key: &FlowKey<A>) {
        self.delete(flows::<A>(), bytemuck::bytes_of(key));
    }

    fn count_backend(&self, id: u32, change: impl FnOnce(&mut BackendStats)) {
        self.change(Table::BackendStats, id, change);
    }
}

impl<P: Packet> Steps<P> for &Memory {
    type Room<A: Address> = Box<Work<A>>;

    fn work<W: Wire>(&self) -> Option<Box<Work<W::Addr>>> {
        Some(Box::default())
    }
}

/// A packet in a byte vector, reachable as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPacket(pub Vec<u8>);

impl MemoryPacket {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
}

impl Packet for MemoryPacket {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn holds(&self, end: usize) -> bool {
        end <= self.0.len()
    }

    fn ensure(&mut self, end: usize) -> bool {
        self.holds(end)
    }

    fn byte(&self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    fn half(&self, offset: usize) -> Option<u16> {
        self.bytes(offset).map(u16::from_ne_bytes)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (i, word) in words.iter_mut().enumerate() {
            *word = u32::from_ne_bytes(self.bytes(offset + i * 4)?);
        }
        Some(words)
    }

    fn set_half(&mut self, offset: usize, value: u16) -> Option<()> {
        self.0.get_mut(offset..offset.checked_add(2)?)?.copy_from_slice(&value.to_ne_bytes());
        Some(())
    }

    fn set_words<const N: usize>(&mut self, offset: usize, value: [u32; N]) -> Option<()> {
        let bytes = self.0.get_mut(offset..offset.checked_add(N * 4)?)?;
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(value) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }
}

impl Resize for MemoryPacket {
    fn truncate(&mut self, len: usize) -> Option<()> {
        self.0.truncate(len);
        (self.0.len() == len).then_some(())
    }

    fn push_front(&mut self, n: usize) -> Option<()> {
        self.0.splice(..0, std::iter::repeat_n(0, n));
        Some(())
    }
}
