//! A store that fails on purpose, to see that what stands on it copes.

use std::cell::RefCell;
use std::io;

use lb_common::tables::Table;

use super::{MapError, MapStore, Operation, entries_of};

/// One call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// What is to be done.
    pub operation: Operation,
    /// To which table.
    pub table: Table,
    /// How many calls came before it.
    pub number: u64,
}

/// Decides about a call: the errno to fail with, or `None` to let it through.
pub type Fault = Box<dyn FnMut(Call) -> Option<i32>>;

/// Lets calls through to another store, unless the fault says otherwise. Batches are taken apart, so that they may fail in
/// the middle as the kernel's do.
pub struct FaultyStore<S> {
    inner: S,
    state: RefCell<State>,
}

struct State {
    fault: Fault,
    calls: u64,
}

impl<S> FaultyStore<S> {
    /// Asks `fault` before every call.
    pub fn new(inner: S, fault: impl FnMut(Call) -> Option<i32> + 'static) -> Self {
        Self { inner, state: RefCell::new(State { fault: Box::new(fault), calls: 0 }) }
    }

    /// Lets `calls` writes and removals through and fails all later ones with `errno`. Reads always work.
    pub fn failing_after(inner: S, calls: u64, errno: i32) -> Self {
        let mut left = calls;
        Self::new(inner, move |call| {
            if matches!(call.operation, Operation::Lookup | Operation::Scan) {
                return None;
            }
            if left == 0 {
                return Some(errno);
            }
            left -= 1;
            None
        })
    }

    /// Fails `per_mille` of 1,000 calls with `errno`, the same ones for the same `seed`.
    pub fn failing_at_random(inner: S, per_mille: u32, seed: u64, errno: i32) -> Self {
        // Any odd generator does; SplitMix64 (Steele, Lea, Flood, 2014) needs one word of state.
        let mut state = seed;
        Self::new(inner, move |_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % 1000 < u64::from(per_mille)).then_some(errno)
        })
    }

    /// The store behind.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The store behind, for good.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn ask(&self, operation: Operation, table: Table, key: &[u8]) -> Result<(), MapError> {
        let mut state = self.state.borrow_mut();
        let call = Call { operation, table, number: state.calls };
        state.calls += 1;
        match (state.fault)(call) {
            None => Ok(()),
            Some(errno) => Err(MapError::refused(operation, table, key, io::Error::from_raw_os_error(errno))),
        }
    }
}

impl<S: MapStore> MapStore for FaultyStore<S> {
    fn update(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.ask(Operation::Update, table, key)?;
        self.inner.update(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, MapError> {
        self.ask(Operation::Delete, table, key)?;
        self.inner.delete(table, key)
    }

    fn lookup(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        self.ask(Operation::Lookup, table, key)?;
        self.inner.lookup(table, key)
    }

    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), MapError> {
        self.ask(Operation::Scan, table, &[])?;
        self.inner.scan(table, visit)
    }

    fn capacity(&self, table: Table) -> Result<u32, MapError> {
        self.inner.capacity(table)
    }

    fn delete_batch(&mut self, table: Table, keys: &[u8]) -> Result<(), MapError> {
        entries_of(table, Operation::Delete, keys, None)?;
        for key in keys.chunks_exact(table.spec().key_size as usize) {
            self.delete(table, key)?;
        }
        Ok(())
    }
}
