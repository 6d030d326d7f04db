//! Maps that are looked through quickly: arrays have many entries, rows write few of them, and into those of the agent
//! nobody else writes.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::tables::{Kind, Table, Writer};
use lb_userspace::maps::{KernelStore, MapError, MapStore};

/// Maps in the kernel, and which entries of the agent's arrays may be other than zero. All were zero at the beginning.
#[derive(Debug)]
pub struct Written {
    maps: KernelStore,
    keys: BTreeMap<Table, BTreeSet<Vec<u8>>>,
}

impl From<KernelStore> for Written {
    fn from(maps: KernelStore) -> Self {
        Self { maps, keys: BTreeMap::new() }
    }
}

impl Written {
    fn note(&mut self, table: Table, keys: &[u8]) {
        if is_noted(table) {
            let keys = keys.chunks_exact(table.spec().key_size as usize).map(<[u8]>::to_vec);
            self.keys.entry(table).or_default().extend(keys);
        }
    }

    fn forget(&mut self, table: Table, keys: &[u8]) {
        if let Some(noted) = self.keys.get_mut(&table) {
            for key in keys.chunks_exact(table.spec().key_size as usize) {
                noted.remove(key);
            }
        }
    }
}

fn is_noted(table: Table) -> bool {
    let spec = table.spec();
    spec.writer == Writer::Agent && spec.kind == Kind::Array
}

impl MapStore for Written {
    fn update(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.note(table, key);
        self.maps.update(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, MapError> {
        let was_there = self.maps.delete(table, key)?;
        self.forget(table, key);
        Ok(was_there)
    }

    fn lookup(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        self.maps.lookup(table, key)
    }

    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), MapError> {
        if !is_noted(table) {
            return self.maps.scan(table, visit);
        }
        for key in self.keys.get(&table).into_iter().flatten() {
            if let Some(value) = self.maps.lookup(table, key)? {
                visit(key, &value);
            }
        }
        Ok(())
    }

    fn capacity(&self, table: Table) -> Result<u32, MapError> {
        self.maps.capacity(table)
    }

    fn update_batch(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), MapError> {
        self.note(table, keys);
        self.maps.update_batch(table, keys, values)
    }

    fn delete_batch(&mut self, table: Table, keys: &[u8]) -> Result<(), MapError> {
        self.maps.delete_batch(table, keys)?;
        self.forget(table, keys);
        Ok(())
    }
}
