//! The host build of the engine.

use lb_common::abi::{Config, Counter};
use lb_common::engine::answer::answer;
use lb_common::engine::{Position, process};
use lb_common::memory::{Memory, MemoryPacket};
use lb_common::reason::Class;
use lb_common::tables::Table;
use lb_userspace::maps::{MapError, MapStore};

use super::Error;
use super::body::{Body, Hook, Outcome};

/// The engine over tables in memory.
#[derive(Debug)]
pub struct Host {
    tables: HostTables,
}

impl Host {
    /// Empty tables, and a clock that is about to wrap.
    pub fn new() -> Self {
        Self::begin(Memory::new())
    }

    /// The same with flow tables of `sets` sets, a power of two above 1.
    pub fn with_flow_sets(sets: u32) -> Self {
        let mut config = Config::with_ticks_per_second(100);
        (config.flow_mask_v4, config.flow_mask_v6) = (sets - 1, sets - 1);
        Self::begin(Memory::new().with_config(config))
    }

    /// The clock is about to go round.
    fn begin(memory: Memory) -> Self {
        memory.set_now(u32::MAX - 500);
        Self { tables: HostTables(memory) }
    }

    /// Its tables.
    pub fn memory(&self) -> &Memory {
        &self.tables.0
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Body for Host {
    fn hook(&self) -> Hook {
        Hook::Host
    }

    fn store(&mut self) -> &mut dyn MapStore {
        &mut self.tables
    }

    fn run(&mut self, frame: &[u8], position: Position) -> Result<Outcome, Error> {
        let memory = &self.tables.0;
        let mut packet = MemoryPacket(frame.to_vec());
        let reason = process(&mut packet, &memory, position);
        let counted = !position.egress || reason.class() == Class::Forwarded;
        if counted {
            let index = reason as u32;
            let mut counter: Counter = memory.get(Table::IfaceStats, &index).unwrap_or_default();
            counter.packets += 1;
            counter.bytes += frame.len() as u64;
            memory.put(Table::IfaceStats, &index, &counter);
        }
        if reason.class() == Class::Answered {
            // Without an answer it is dropped, however it looks.
            let _answered = answer(&mut packet, reason);
        }
        Ok(Outcome { reason: counted.then_some(reason), action: 0, frame: packet.0 })
    }

    fn advance(&mut self, seconds: u32) -> Result<(), Error> {
        self.tables.0.advance(seconds);
        Ok(())
    }
}

/// A [`Memory`] as the control plane sees it.
#[derive(Debug)]
struct HostTables(Memory);

fn is_array(table: Table) -> bool {
    table.spec().kind.is_array()
}

fn absent(table: Table, value: &[u8]) -> bool {
    is_array(table) && value.iter().all(|byte| *byte == 0)
}

impl MapStore for HostTables {
    fn update(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.0.update(table, key, value);
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, MapError> {
        Ok(self.0.delete(table, key))
    }

    fn lookup(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        Ok(self.0.lookup(table, key).filter(|value| !absent(table, value)))
    }

    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), MapError> {
        for (key, value) in self.0.dump(table) {
            if !absent(table, &value) {
                visit(&key, &value);
            }
        }
        Ok(())
    }

    fn capacity(&self, table: Table) -> Result<u32, MapError> {
        Ok(table.spec().max_entries)
    }
}
