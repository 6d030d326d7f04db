//! The map layer: bytes in, bytes out, over the tables that [`lb_common::tables::SPECS`] lists.
//!
//! [`MapStore`] has three bodies: [`KernelStore`] over bpf(2), [`MemoryStore`] for tests and for looking ahead, and
//! [`FaultyStore`] which fails on purpose. What the bytes mean is the business of [`crate::plan`].

mod engine;
mod error;
mod faulty;
mod flows;
mod kernel;
mod memory;
mod render;
mod sys;

use bytemuck::Pod;
use lb_common::tables::Table;

pub use error::{MapError, Operation};
pub use faulty::{Call, Fault, FaultyStore};
pub use flows::{change_flows, flow_table, put_flow, scan_flows};
pub use kernel::{DEFAULT_PIN_DIR, KernelStore};
pub use memory::MemoryStore;
pub use render::render_key;
pub(crate) use sys::possible_cpus;
pub use sys::{
    CgroupLinkInfo, LinkInfo, Map as KernelMap, Shape, cgroup_link_info, detach_link, lift_locked_memory,
    link_info, update_link,
};

/// Key and value of an entry.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A set of maps, one for each [`Table`].
///
/// Keys and values have the sizes of the table's [`lb_common::tables::Spec`]. Arrays hold an entry for each index below their size;
/// one that is all zero counts as absent, so that all bodies agree.
///
/// Per-CPU tables: [`update`](Self::update) takes one value and gives it to every CPU; [`lookup`](Self::lookup) and
/// [`scan`](Self::scan) give the values of all CPUs one after another, each rounded up to 8 bytes ([`per_cpu`] takes them apart).
pub trait MapStore {
    /// Writes one entry, whether it exists or not.
    ///
    /// # Errors
    /// [`MapError`], naming table and key; a full table says which option makes it larger.
    fn update(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MapError>;

    /// Removes one entry (sets it to zero in an array) and says whether it was there.
    ///
    /// # Errors
    /// [`MapError`], naming table and key.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, MapError>;

    /// One entry's value.
    ///
    /// # Errors
    /// [`MapError`], naming table and key. An absent entry is no error.
    fn lookup(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MapError>;

    /// Visits all entries, in the order of keys where the body has one. Entries that change meanwhile may be missed or
    /// seen twice.
    ///
    /// # Errors
    /// [`MapError`], naming the table.
    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), MapError>;

    /// How many entries the table has room for.
    ///
    /// # Errors
    /// [`MapError`] when the store does not have the table.
    fn capacity(&self, table: Table) -> Result<u32, MapError>;

    /// All entries, see [`scan`](Self::scan).
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    fn dump(&self, table: Table) -> Result<Vec<Entry>, MapError> {
        let mut entries = Vec::new();
        self.scan(table, &mut |key, value| entries.push((key.to_vec(), value.to_vec())))?;
        Ok(entries)
    }

    /// Writes many entries: keys and values lie one after another. After an error any of them may have been written.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn update_batch(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), MapError> {
        let spec = table.spec();
        let entries = entries_of(table, Operation::Update, keys, Some(values))?;
        for i in 0..entries {
            let key = &keys[i * spec.key_size as usize..][..spec.key_size as usize];
            let value = &values[i * spec.value_size as usize..][..spec.value_size as usize];
            self.update(table, key, value)?;
        }
        Ok(())
    }

    /// Removes many entries; absent ones are passed over. After an error any of them may be gone.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    fn delete_batch(&mut self, table: Table, keys: &[u8]) -> Result<(), MapError> {
        entries_of(table, Operation::Delete, keys, None)?;
        for key in keys.chunks_exact(table.spec().key_size as usize) {
            self.delete(table, key)?;
        }
        Ok(())
    }
}

/// Number of entries in a batch.
///
/// # Errors
/// [`MapError::Length`] when keys and values do not go together.
fn entries_of(
    table: Table,
    operation: Operation,
    keys: &[u8],
    values: Option<&[u8]>,
) -> Result<usize, MapError> {
    let spec = table.spec();
    let entries = keys.len() / spec.key_size as usize;
    let fits = keys.len() == entries * spec.key_size as usize
        && values.is_none_or(|values| values.len() == entries * spec.value_size as usize);
    if fits {
        Ok(entries)
    } else {
        Err(MapError::Length {
            operation,
            table: spec.name,
            key_bytes: keys.len(),
            value_bytes: values.map_or(0, <[u8]>::len),
        })
    }
}

/// Fails unless key (and value) have the sizes of the table.
fn check_entry(table: Table, operation: Operation, key: &[u8], value: Option<&[u8]>) -> Result<(), MapError> {
    match entries_of(table, operation, key, value)? {
        1 => Ok(()),
        _ => Err(MapError::Length {
            operation,
            table: table.spec().name,
            key_bytes: key.len(),
            value_bytes: value.map_or(0, <[u8]>::len),
        }),
    }
}

/// The values of all CPUs, from what [`MapStore::lookup`] and [`MapStore::scan`] give for a per-CPU table.
pub fn per_cpu<T: Pod>(value: &[u8]) -> impl Iterator<Item = T> + '_ {
    let stride = size_of::<T>().next_multiple_of(8).max(8);
    value.chunks_exact(stride).filter_map(|cpu| bytemuck::try_pod_read_unaligned(&cpu[..size_of::<T>()]).ok())
}
