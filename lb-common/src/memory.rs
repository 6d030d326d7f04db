//! Tables and packets in ordinary memory: the host build of the engine.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};

use crate::abi::{
    AffinityEntry, AffinityKey, BackendEntry, BackendStats, ClassKey, Config, FlowEntry, FlowKey, FlowSet,
    FragmentEntry, FragmentKey, FrontendEntry, FrontendKey, Settings, SourceRangeKey,
};
use crate::engine::answer::Resize;
use crate::engine::flow;
use crate::engine::flow_table::FlowSets;
use crate::engine::packet::Packet;
use crate::engine::parse::Wire;
use crate::engine::steps::{Direction, Steps, Work};
use crate::engine::tables::{Added, Tables};
use crate::family::{Address, V4Addr, V6Addr};
use crate::memory_flows::MemoryFlows;
use crate::tables::{SPECS, Table};

/// Sets of the flow tables: enough for what is run on the host.
const FLOW_SETS: u32 = 1024;

/// Contents of one table: bytes to bytes.
type Contents = HashMap<Vec<u8>, Vec<u8>>;

/// All tables of [`crate::tables::SPECS`], a clock that stands still until it is set, and chance from a seed.
#[derive(Debug)]
pub struct Memory {
    contents: Vec<RefCell<Contents>>,
    flows_v4: MemoryFlows<V4Addr>,
    flows_v6: MemoryFlows<V6Addr>,
    config: Config,
    now: Cell<u32>,
    random: Cell<u64>,
}

impl Memory {
    /// Empty tables, a clock of 100 ticks a second at 0.
    pub fn new() -> Self {
        Self {
            contents: SPECS.iter().map(|_| RefCell::default()).collect(),
            flows_v4: MemoryFlows::new(FLOW_SETS, 0),
            flows_v6: MemoryFlows::new(FLOW_SETS, 0),
            config: Config::with_ticks_per_second(100),
            now: Cell::new(0),
            random: Cell::new(0x853c_49e6_748f_ea9b),
        }
    }

    /// The same with other constants, and flow tables as large as they say, empty.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        let sets = |mask: u32| if mask == 0 { FLOW_SETS } else { mask + 1 };
        self.flows_v4 = MemoryFlows::new(sets(config.flow_mask_v4), config.flow_seed);
        self.flows_v6 = MemoryFlows::new(sets(config.flow_mask_v6), config.flow_seed);
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
        let written = match table {
            Table::FlowsV4 => self.flows_v4.set_bytes(bytemuck::pod_read_unaligned(key), value),
            Table::FlowsV6 => self.flows_v6.set_bytes(bytemuck::pod_read_unaligned(key), value),
            _ => false,
        };
        if written {
            return;
        }
        self.contents[table as usize].borrow_mut().insert(key.to_vec(), value.to_vec());
    }

    /// Removes an entry; whether it was there.
    pub fn delete(&self, table: Table, key: &[u8]) -> bool {
        if matches!(table, Table::FlowsV4 | Table::FlowsV6) {
            self.update(table, key, &vec![0; table.spec().value_size as usize]);
            return true;
        }
        self.contents[table as usize].borrow_mut().remove(key).is_some()
    }

    /// Reads an entry. Entries of arrays that were never written are zero.
    pub fn lookup(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let spec = table.spec();
        match table {
            Table::FlowsV4 => return self.flows_v4.bytes(bytemuck::pod_read_unaligned(key)),
            Table::FlowsV6 => return self.flows_v6.bytes(bytemuck::pod_read_unaligned(key)),
            _ => {}
        }
        let found = self.contents[table as usize].borrow().get(key).cloned();
        if found.is_none() && spec.kind.is_array() {
            let index: u32 = bytemuck::pod_read_unaligned(key);
            return (index < spec.max_entries).then(|| vec![0; spec.value_size as usize]);
        }
        found
    }

    /// Entries that a table has room for.
    pub fn capacity(&self, table: Table) -> u32 {
        match table {
            Table::FlowsV4 => self.flows_v4.len(),
            Table::FlowsV6 => self.flows_v6.len(),
            table => table.spec().max_entries,
        }
    }

    /// All entries written, in the order of their keys' bytes.
    pub fn dump(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let sets = self.capacity(table);
        if matches!(table, Table::FlowsV4 | Table::FlowsV6) {
            let keys = (0..sets).map(|index: u32| index.to_ne_bytes().to_vec());
            return keys.filter_map(|key| Some((key.clone(), self.lookup(table, &key)?))).collect();
        }
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

// SAFETY: as its parts promise.
unsafe impl FlowSets for &Memory {
    fn set<A: Address>(&self, index: u32) -> Option<NonNull<FlowSet<A>>> {
        if A::WORDS == 1 { self.flows_v4.set(index) } else { self.flows_v6.set(index) }
    }

    fn mask<A: Address>(&self) -> u32 {
        if A::WORDS == 1 { self.flows_v4.len() - 1 } else { self.flows_v6.len() - 1 }
    }

    fn seed(&self) -> u32 {
        self.flows_v4.seed()
    }

    unsafe fn exchange(word: *mut u32, value: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { MemoryFlows::<V4Addr>::exchange(word, value) }
    }

    unsafe fn release(word: *mut u32) {
        // SAFETY: as `exchange`.
        unsafe { MemoryFlows::<V4Addr>::release(word) }
    }

    fn order() {
        MemoryFlows::<V4Addr>::order();
    }

    fn hidden(number: usize, unknown: u32) -> usize {
        MemoryFlows::<V4Addr>::hidden(number, unknown)
    }
}

impl Tables for &Memory {
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

    fn config(&self) -> &Config {
        &self.config
    }

    type Ref<V: Copy + 'static> = Box<V>;

    fn settings(&self) -> Option<Box<Settings>> {
        self.get(Table::Settings, &0u32).map(Box::new)
    }

    fn filter(&self, word: u32) -> u64 {
        self.get(Table::Filter, &word).unwrap_or(0)
    }

    fn frontend<A: Address>(&self, key: &FrontendKey<A>, entry: &mut FrontendEntry) -> bool {
        match self.get(frontends::<A>(), key) {
            Some(found) => {
                *entry = found;
                true
            }
            None => false,
        }
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.get(Table::Slots, &index)
    }

    fn backend(&self, id: u32) -> Option<Box<BackendEntry>> {
        self.get(Table::Backends, &id).map(Box::new)
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

    fn write_flow<A: Address>(&self, work: &Work<A>, direction: Direction, replace: bool) -> Added {
        let (key, entry) = work.side(direction as u32);
        let mut evicted = (FlowKey::zeroed(), FlowEntry::zeroed());
        match flow::write(self, key, entry, replace, &mut evicted) {
            Added::Evicted => {
                flow::evict(self, &evicted);
                Added::Yes
            }
            added => added,
        }
    }

    fn evict<A: Address>(&self) {
        unreachable!("`write_flow` has done it");
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
