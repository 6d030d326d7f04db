//! A store that counts what is written to it.

use lb_common::tables::Table;
use lb_userspace::maps::{KernelStore, MapError, MapStore};
use serde::Serialize;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Written {
    /// Entries written or removed: map operations.
    pub(crate) operations: usize,
    /// Calls: neighbours of one table go together.
    pub(crate) calls: usize,
    /// Bytes of keys and values.
    pub(crate) bytes: usize,
}

/// Maps in the kernel, and what was written to them.
#[derive(Debug)]
pub(crate) struct Counting {
    store: KernelStore,
    written: Written,
}

impl Counting {
    /// Nothing was written yet.
    pub(crate) fn new(store: KernelStore) -> Self {
        Self { store, written: Written::default() }
    }

    /// What was written since the last call.
    pub(crate) fn take(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    fn count(&mut self, table: Table, keys: &[u8], values: &[u8]) {
        self.written.operations += keys.len() / table.spec().key_size as usize;
        self.written.calls += 1;
        self.written.bytes += keys.len() + values.len();
    }
}

impl MapStore for Counting {
    fn update(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.count(table, key, value);
        self.store.update(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, MapError> {
        self.count(table, key, &[]);
        self.store.delete(table, key)
    }

    fn lookup(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        self.store.lookup(table, key)
    }

    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), MapError> {
        self.store.scan(table, visit)
    }

    fn capacity(&self, table: Table) -> Result<u32, MapError> {
        self.store.capacity(table)
    }

    fn update_batch(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), MapError> {
        self.count(table, keys, values);
        self.store.update_batch(table, keys, values)
    }

    fn delete_batch(&mut self, table: Table, keys: &[u8]) -> Result<(), MapError> {
        self.count(table, keys, &[]);
        self.store.delete_batch(table, keys)
    }
}
