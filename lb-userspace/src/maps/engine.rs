//! The tables of the host build of the engine as a store: plans can be applied to them as to the kernel's.

use lb_common::memory::Memory;
use lb_common::tables::Table;

use super::{MapError, MapStore, Operation, check_entry};

impl MapStore for Memory {
    fn update(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        check_entry(table, Operation::Update, key, Some(value))?;
        Memory::update(self, table, key, value);
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, MapError> {
        check_entry(table, Operation::Delete, key, None)?;
        Ok(Memory::delete(self, table, key))
    }

    fn lookup(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        check_entry(table, Operation::Lookup, key, None)?;
        Ok(Memory::lookup(self, table, key).filter(|value| !absent(table, value)))
    }

    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), MapError> {
        for (key, value) in Memory::dump(self, table) {
            if !absent(table, &value) {
                visit(&key, &value);
            }
        }
        Ok(())
    }

    fn capacity(&self, table: Table) -> Result<u32, MapError> {
        Ok(Memory::capacity(self, table))
    }
}

fn absent(table: Table, value: &[u8]) -> bool {
    table.spec().kind.is_array() && value.iter().all(|byte| *byte == 0)
}
