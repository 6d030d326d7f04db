//! The flow table in ordinary memory.

use std::cell::UnsafeCell;
use std::mem::{offset_of, size_of};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use bytemuck::Zeroable;

use crate::abi::{FlowSet, FlowWay};
use crate::engine::flow_table::FlowSets;
use crate::family::Address;

/// Sets of a family's flow table. Threads may share it, as CPUs share the kernel's.
#[derive(Debug)]
pub struct MemoryFlows<A> {
    sets: Box<[UnsafeCell<FlowSet<A>>]>,
    seed: u32,
}

// SAFETY: the sets are reached through `flow_table` only, whose functions are made for several CPUs.
unsafe impl<A: Address + Sync> Sync for MemoryFlows<A> {}

impl<A: Address> MemoryFlows<A> {
    /// An empty table of at least `sets` sets.
    pub fn new(sets: u32, seed: u32) -> Self {
        let sets = sets.max(2).next_power_of_two();
        Self { sets: (0..sets).map(|_| UnsafeCell::new(FlowSet::zeroed())).collect(), seed }
    }

    /// Number of sets.
    pub fn len(&self) -> u32 {
        self.sets.len() as u32
    }

    /// Never: there is a set at least.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// A set's bytes, as in a map; `None` behind the end.
    pub fn bytes(&self, index: u32) -> Option<Vec<u8>> {
        let cell = self.sets.get(index as usize)?;
        // SAFETY: valid; a copy of plain integers.
        let set = unsafe { ptr::read(cell.get()) };
        let mut bytes = vec![0; size_of::<FlowSet<A>>()];
        for (way, bytes) in set.ways.iter().zip(bytes.chunks_exact_mut(size_of::<FlowWay<A>>())) {
            let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
            put(offset_of!(FlowWay<A>, key), bytemuck::bytes_of(&way.key));
            put(offset_of!(FlowWay<A>, lock), &way.lock.to_ne_bytes());
            put(offset_of!(FlowWay<A>, version), &way.version.to_ne_bytes());
            put(offset_of!(FlowWay<A>, tags), &way.tags.to_ne_bytes());
            put(offset_of!(FlowWay<A>, entry), bytemuck::bytes_of(&way.entry));
        }
        Some(bytes)
    }

    /// Overwrites a set; whether there is one.
    pub fn set_bytes(&self, index: u32, bytes: &[u8]) -> bool {
        let (Some(cell), Ok(set)) =
            (self.sets.get(index as usize), bytemuck::try_pod_read_unaligned::<FlowSet<A>>(bytes))
        else {
            return false;
        };
        // SAFETY: valid for writes.
        unsafe { ptr::write(cell.get(), set) };
        true
    }
}

// SAFETY: the sets live as long as the table, are aligned, and nothing else hands out pointers to them.
unsafe impl<A: Address> FlowSets for MemoryFlows<A> {
    fn set<B: Address>(&self, index: u32) -> Option<NonNull<FlowSet<B>>> {
        // A family's sets have the layout of their own kind only.
        if A::WORDS != B::WORDS {
            return None;
        }
        NonNull::new(self.sets.get(index as usize)?.get().cast())
    }

    fn mask<B: Address>(&self) -> u32 {
        self.len() - 1
    }

    fn seed(&self) -> u32 {
        self.seed
    }

    unsafe fn exchange(word: *mut u32, value: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { AtomicU32::from_ptr(word) }.swap(value, Ordering::AcqRel)
    }

    unsafe fn release(word: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { AtomicU32::from_ptr(word) }.store(0, Ordering::Release);
    }

    fn order() {
        fence(Ordering::SeqCst);
    }

    fn hidden(number: usize, _unknown: u32) -> usize {
        number
    }
}
