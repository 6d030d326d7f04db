//! Maps in ordinary memory.

use std::collections::BTreeMap;
use std::io;

use lb_common::tables::{Kind, SPECS, Table};

use super::{MapError, MapStore, Operation, check_entry};

/// A store in memory: behaves as the kernel's maps do, with one CPU.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    tables: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
    capacities: Vec<u32>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            tables: vec![BTreeMap::new(); SPECS.len()],
            capacities: SPECS.iter().map(|spec| spec.max_entries).collect(),
        }
    }
}

impl MemoryStore {
    /// Empty tables of the usual sizes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with another size for one table.
    #[must_use]
    pub fn with_capacity(mut self, table: Table, max_entries: u32) -> Self {
        self.capacities[table as usize] = max_entries;
        self
    }

    /// Number of entries in a table; those of arrays that are not zero.
    pub fn len(&self, table: Table) -> usize {
        self.tables[table as usize].len()
    }

    /// Whether no table has an entry.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    fn check_index(&self, table: Table, operation: Operation, key: &[u8]) -> Result<(), MapError> {
        if !is_array(table) {
            return Ok(());
        }
        let (index, capacity) = (index(key), self.capacities[table as usize]);
        if index < capacity {
            return Ok(());
        }
        // As the kernel does it.
        let errno = if operation == Operation::Update { libc::E2BIG } else { libc::ENOENT };
        Err(MapError::refused(operation, table, key, io::Error::from_raw_os_error(errno)))
    }
}

fn is_array(table: Table) -> bool {
    table.spec().kind.is_array()
}

fn index(key: &[u8]) -> u32 {
    bytemuck::try_pod_read_unaligned(key).unwrap_or(u32::MAX)
}

impl MapStore for MemoryStore {
    fn update(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        check_entry(table, Operation::Update, key, Some(value))?;
        self.check_index(table, Operation::Update, key)?;
        let entries = &mut self.tables[table as usize];
        if is_array(table) && value.iter().all(|byte| *byte == 0) {
            entries.remove(key);
            return Ok(());
        }
        let capacity = self.capacities[table as usize] as usize;
        if entries.len() >= capacity && !entries.contains_key(key) {
            let errno = if table.spec().kind == Kind::LpmTrie { libc::ENOSPC } else { libc::E2BIG };
            let source = io::Error::from_raw_os_error(errno);
            return Err(MapError::refused(Operation::Update, table, key, source));
        }
        let mut value = value.to_vec();
        if table.spec().kind == Kind::PerCpuArray {
            value.resize(value.len().next_multiple_of(8), 0);
        }
        entries.insert(key.to_vec(), value);
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, MapError> {
        check_entry(table, Operation::Delete, key, None)?;
        self.check_index(table, Operation::Delete, key)?;
        Ok(self.tables[table as usize].remove(key).is_some())
    }

    fn lookup(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        check_entry(table, Operation::Lookup, key, None)?;
        Ok(self.tables[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), MapError> {
        for (key, value) in &self.tables[table as usize] {
            visit(key, value);
        }
        Ok(())
    }

    fn capacity(&self, table: Table) -> Result<u32, MapError> {
        Ok(self.capacities[table as usize])
    }
}
