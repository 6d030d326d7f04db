//! The agent's tables, decoded.

use std::collections::{BTreeMap, BTreeSet};

use bytemuck::Pod;
use lb_common::abi::{
    BackendEntry, ClassKey, FrontendEntry, FrontendKey, ServiceName, Settings, SlotRange, SourceRangeKey,
};
use lb_common::family::{Address, V4Addr, V6Addr};
use lb_common::tables::Table;

use super::op::Op;
use super::words::{FrontendName, frontend_name};
use crate::maps::{MapError, MapStore};

/// A service's name without what its fields have left over: they are made for the longest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortName(Box<[u8]>);

impl ShortName {
    /// Leaves out zeros at the ends of the texts.
    pub fn new(name: &ServiceName) -> Self {
        let mut bytes = vec![name.protocol, name.family];
        bytes.extend(name._pad);
        for text in [&name.namespace[..], &name.name, &name.port] {
            let length = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.push(u8::try_from(length).unwrap_or(u8::MAX));
            bytes.extend(&text[..length]);
        }
        Self(bytes.into())
    }

    /// The name as the table has it.
    pub fn full(&self) -> ServiceName {
        let mut name: ServiceName = bytemuck::Zeroable::zeroed();
        let mut bytes = self.0.iter().copied();
        let mut next = || bytes.next().unwrap_or(0);
        (name.protocol, name.family) = (next(), next());
        name._pad.fill_with(&mut next);
        for text in [&mut name.namespace[..], &mut name.name, &mut name.port] {
            let length = usize::from(next()).min(text.len());
            text[..length].fill_with(&mut next);
        }
        name
    }
}

/// What the planner knows to be in the tables that it writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Frontends and owners of both families.
    pub frontends: BTreeMap<FrontendName, FrontendEntry>,
    /// Slots by index; absent ones at the end are zero.
    pub slots: Vec<u32>,
    /// Backends by number; absent ones at the end are zero.
    pub backends: Vec<BackendEntry>,
    /// Names by service number.
    pub names: BTreeMap<u32, ShortName>,
    /// Classes of addresses.
    pub classes: BTreeMap<ClassKey, u32>,
    /// Words of the filter; absent ones at the end are zero.
    pub filter: Vec<u64>,
    /// Ranges of sources let in.
    pub source_ranges: BTreeSet<SourceRangeKey>,
    /// Settings; zero when never written.
    pub settings: Settings,
}

fn read<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytemuck::try_pod_read_unaligned(bytes).ok()
}

/// Reads all entries of a table. Those of another size than ours cannot be: stores check.
fn scan<K: Pod, V: Pod>(
    store: &dyn MapStore,
    table: Table,
    mut visit: impl FnMut(K, V),
) -> Result<(), MapError> {
    store.scan(table, &mut |key, value| {
        if let (Some(key), Some(value)) = (read(key), read(value)) {
            visit(key, value);
        }
    })
}

fn put<T: Clone + Default>(list: &mut Vec<T>, index: u32, value: T) {
    let index = index as usize;
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    list[index] = value;
}

impl Tables {
    /// Those that the planner reads and writes.
    pub const ALL: [Table; 9] = [
        Table::FrontendsV4,
        Table::FrontendsV6,
        Table::Slots,
        Table::Backends,
        Table::ServiceNames,
        Table::Classes,
        Table::Filter,
        Table::SourceRanges,
        Table::Settings,
    ];

    /// Reads them.
    ///
    /// # Errors
    /// [`MapError`], naming the table.
    pub fn read(store: &dyn MapStore) -> Result<Self, MapError> {
        let mut tables = Self::default();
        scan(store, Table::FrontendsV4, |key: FrontendKey<V4Addr>, entry| {
            tables.add_frontend(&key, entry);
        })?;
        scan(store, Table::FrontendsV6, |key: FrontendKey<V6Addr>, entry| {
            tables.add_frontend(&key, entry);
        })?;
        scan(store, Table::Slots, |index: u32, backend: u32| put(&mut tables.slots, index, backend))?;
        scan(store, Table::Backends, |id: u32, entry: BackendEntry| put(&mut tables.backends, id, entry))?;
        scan(store, Table::ServiceNames, |id: u32, name: ServiceName| {
            tables.names.insert(id, ShortName::new(&name));
        })?;
        scan(store, Table::Classes, |key: ClassKey, class: u32| {
            tables.classes.insert(key, class);
        })?;
        scan(store, Table::Filter, |word: u32, value: u64| put(&mut tables.filter, word, value))?;
        scan(store, Table::SourceRanges, |key: SourceRangeKey, _: u32| {
            tables.source_ranges.insert(key);
        })?;
        scan(store, Table::Settings, |_: u32, settings: Settings| tables.settings = settings)?;
        Ok(tables)
    }

    /// No packet finds a key whose padding is not zero, and no plan writes one.
    fn add_frontend<A: Address>(&mut self, key: &FrontendKey<A>, entry: FrontendEntry) {
        if key._pad == 0 {
            self.frontends.insert(frontend_name(key), entry);
        }
    }

    /// The effect of an operation.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Frontend(name, Some(entry)) => {
                self.frontends.insert(*name, *entry);
            }
            Op::Frontend(name, None) => {
                self.frontends.remove(name);
            }
            Op::Slots(base, slots) => {
                for (index, slot) in (*base..).zip(slots) {
                    put(&mut self.slots, index, *slot);
                }
            }
            Op::Backend(id, entry) => put(&mut self.backends, *id, *entry),
            Op::Name(id, Some(name)) => {
                self.names.insert(*id, ShortName::new(name));
            }
            Op::Name(id, None) => {
                self.names.remove(id);
            }
            Op::Class(key, Some(class)) => {
                self.classes.insert(*key, *class);
            }
            Op::Class(key, None) => {
                self.classes.remove(key);
            }
            Op::Filter(word, value) => put(&mut self.filter, *word, *value),
            Op::SourceRange(key, true) => {
                self.source_ranges.insert(*key);
            }
            Op::SourceRange(key, false) => {
                self.source_ranges.remove(key);
            }
            Op::Settings(settings) => self.settings = *settings,
            Op::ResetStats(_) | Op::ResetOpenFlows(_) | Op::ResetTurns(_) => {}
        }
    }

    /// A word of the filter.
    pub fn filter_word(&self, word: u32) -> u64 {
        self.filter.get(word as usize).copied().unwrap_or(0)
    }

    /// A backend; zero when it was never written.
    pub fn backend(&self, id: u32) -> BackendEntry {
        self.backends.get(id as usize).copied().unwrap_or_default()
    }

    /// The backend numbers in a run of slots; `None` when the run leaves the table.
    pub fn run(&self, range: SlotRange, capacity: u32) -> Option<impl Iterator<Item = u32> + '_> {
        let end = range.base.checked_add(range.count).filter(|end| *end <= capacity)?;
        Some((range.base..end).map(|index| self.slots.get(index as usize).copied().unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_whole_names() {
        let mut name: ServiceName = bytemuck::Zeroable::zeroed();
        assert_eq!(ShortName::new(&name).full(), name);
        bytemuck::bytes_of_mut(&mut name).fill(7);
        assert_eq!(ShortName::new(&name).full(), name);
        name.name[3..].fill(0);
        name.namespace[0] = 0;
        assert_eq!(ShortName::new(&name).full(), name);
        assert!(ShortName::new(&name).0.len() < 100);
    }
}
