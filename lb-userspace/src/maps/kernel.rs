//! Maps in the kernel, by descriptor or by pin.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use lb_common::tables::{Kind, SPECS, Spec, Table};

use super::error::ENTRIES;
use super::sys::{Cursor, Map, Shape};
use super::{MapError, MapStore, Operation, check_entry, entries_of};

/// Where the agent pins its maps and links unless told otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/lb";

/// Entries in one batch: large enough that the call itself costs nothing, small enough for a buffer of some 100 KB.
const BATCH: usize = 4096;

/// The maps of the running dataplane.
#[derive(Debug, Default)]
pub struct KernelStore {
    maps: Vec<Option<Map>>,
}

impl KernelStore {
    /// A store without maps; add them with [`insert`](Self::insert).
    pub fn empty() -> Self {
        Self { maps: SPECS.iter().map(|_| None).collect() }
    }

    /// Opens all maps pinned under `pin_dir` (`<pin_dir>/maps/<NAME>`).
    ///
    /// # Errors
    /// [`MapError::Open`] when one is not there or may not be opened, [`MapError::Shape`] when one has another type or
    /// other sizes of key and value than this program. Numbers of entries may differ, see
    /// [`check_capacities`](Self::check_capacities).
    pub fn open_pinned(pin_dir: &Path) -> Result<Self, MapError> {
        let mut store = Self::empty();
        for spec in SPECS {
            let path = pin_dir.join("maps").join(spec.name);
            let map = Map::open(&path).map_err(|source| MapError::Open { path, source })?;
            store.put(spec, map)?;
        }
        Ok(store)
    }

    /// Opens one map pinned under `pin_dir`, whatever the state of the others.
    ///
    /// # Errors
    /// As [`open_pinned`](Self::open_pinned).
    pub fn open_table(pin_dir: &Path, table: Table) -> Result<Self, MapError> {
        let mut store = Self::empty();
        let path = pin_dir.join("maps").join(table.spec().name);
        let map = Map::open(&path).map_err(|source| MapError::Open { path, source })?;
        store.put(table.spec(), map)?;
        Ok(store)
    }

    /// Takes over the descriptor of one map.
    ///
    /// # Errors
    /// [`MapError::Refused`] when it is no map, [`MapError::Shape`] when it has another type or other sizes than the table.
    pub fn insert(&mut self, table: Table, fd: OwnedFd) -> Result<(), MapError> {
        let map =
            Map::from_fd(fd).map_err(|source| MapError::refused(Operation::Lookup, table, &[], source))?;
        self.put(table.spec(), map)
    }

    /// Makes all maps anew, unpinned, with `capacity` giving the number of entries of each.
    ///
    /// # Errors
    /// [`MapError::Refused`] with the kernel's reason.
    pub fn create(capacity: impl Fn(&Spec) -> u32) -> Result<Self, MapError> {
        let mut store = Self::empty();
        for spec in SPECS {
            let entries = capacity(spec);
            let map = Map::create(spec.name, spec.kind, spec.key_size, spec.value_size, entries)
                .map_err(|source| MapError::Create { table: spec.table, entries, source })?;
            store.put(spec, map)?;
        }
        Ok(store)
    }

    /// Pins all maps where [`open_pinned`](Self::open_pinned) looks for them.
    ///
    /// # Errors
    /// [`MapError::Open`], when the directory is not on a bpffs or a name is taken.
    pub fn pin(&self, pin_dir: &Path) -> Result<(), MapError> {
        let dir = pin_dir.join("maps");
        std::fs::create_dir_all(&dir).map_err(|source| MapError::Open { path: dir.clone(), source })?;
        for spec in SPECS {
            let path = dir.join(spec.name);
            self.map(spec.table)?.pin(&path).map_err(|source| MapError::Open { path, source })?;
        }
        Ok(())
    }

    /// Fails unless every map has room for as many entries as `capacity` says: the kernel compares nothing when a pin is reused.
    ///
    /// # Errors
    /// [`MapError::Shape`] for the first that differs.
    pub fn check_capacities(&self, capacity: impl Fn(&Spec) -> u32) -> Result<(), MapError> {
        for spec in SPECS {
            let found = self.map(spec.table)?.shape().max_entries;
            same(spec, ENTRIES, spec.entries(found), spec.entries(capacity(spec)))?;
        }
        Ok(())
    }

    fn put(&mut self, spec: &Spec, map: Map) -> Result<(), MapError> {
        let shape = map.shape();
        same(spec, "type", shape.kind, Shape::kind_number(spec.kind))?;
        same(spec, "key size", shape.key_size, spec.key_size)?;
        same(spec, "value size", shape.value_size, spec.value_size)?;
        if self.maps.is_empty() {
            *self = Self::empty();
        }
        self.maps[spec.table as usize] = Some(map);
        Ok(())
    }

    fn map(&self, table: Table) -> Result<&Map, MapError> {
        self.maps
            .get(table as usize)
            .and_then(Option::as_ref)
            .ok_or(MapError::Missing { table: table.spec().name })
    }

    /// One value, as many times as the map has copies.
    fn spread(&self, table: Table, value: &[u8]) -> Result<Vec<u8>, MapError> {
        let stride = self.map(table)?.stride();
        let mut one = value.to_vec();
        one.resize(value.len().next_multiple_of(8), 0);
        Ok(one.repeat(stride / one.len()))
    }

    fn scan_batches(
        &self,
        table: Table,
        map: &Map,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Scan, MapError> {
        let key_size = table.spec().key_size as usize;
        let mut count = BATCH.min(map.shape().max_entries as usize);
        let mut keys = vec![0; count * key_size];
        let mut values = vec![0; count * map.stride()];
        let mut cursor = Cursor::default();
        let mut begun = false;
        loop {
            match map.lookup_batch(&mut cursor, &mut keys, &mut values, count) {
                Ok((read, end)) => {
                    begun = true;
                    // Most of an array is empty, and this is one comparison.
                    let none = read == 0;
                    let empty = is_array(table) && is_zero(&values[..read * map.stride()]);
                    let read = if empty { 0 } else { read };
                    for (key, value) in
                        keys.chunks_exact(key_size).zip(values.chunks_exact(map.stride())).take(read)
                    {
                        if !absent(table, value) {
                            visit(key, value);
                        }
                    }
                    if end || none {
                        return Ok(Scan::Done);
                    }
                }
                // A bucket of the hash has more entries than the buffer has room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && count < 1 << 20 => {
                    count *= 2;
                    keys.resize(count * key_size, 0);
                    values.resize(count * map.stride(), 0);
                }
                Err(error) if !begun && no_batches(&error) => return Ok(Scan::Unsupported),
                Err(error) => return Err(MapError::refused(Operation::Scan, table, &[], error)),
            }
        }
    }

    fn scan_singly(
        &self,
        table: Table,
        map: &Map,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), MapError> {
        let fail = |source| MapError::refused(Operation::Scan, table, &[], source);
        let mut key: Option<Vec<u8>> = None;
        let mut next = vec![0; table.spec().key_size as usize];
        let mut value = vec![0; map.stride()];
        // A key that goes away under our hands sends the walk back to the start: bound it.
        let mut left = 4 * u64::from(map.shape().max_entries) + 4;
        while left > 0 && map.next_key(key.as_deref(), &mut next).map_err(fail)? {
            left -= 1;
            if map.lookup(&next, &mut value).map_err(fail)? && !absent(table, &value) {
                visit(&next, &value);
            }
            key = Some(next.clone());
        }
        Ok(())
    }
}

enum Scan {
    Done,
    Unsupported,
}

/// Whether the kernel does not know the batch command for this kind of map: EINVAL, ENOTSUPP (524) or EOPNOTSUPP,
/// depending on the version.
fn no_batches(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | 524))
}

fn is_array(table: Table) -> bool {
    table.spec().kind.is_array()
}

fn absent(table: Table, value: &[u8]) -> bool {
    is_array(table) && is_zero(value)
}

/// Whether the first byte is zero and each is like the one before it: a comparison of memory, quick in any build.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.split_first().is_none_or(|(first, rest)| *first == 0 && rest == &bytes[..rest.len()])
}

fn same(spec: &Spec, what: &'static str, found: u32, expected: u32) -> Result<(), MapError> {
    if found == expected { Ok(()) } else { Err(MapError::Shape { table: spec.name, what, found, expected }) }
}

impl MapStore for KernelStore {
    fn update(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        check_entry(table, Operation::Update, key, Some(value))?;
        let fail = |source| MapError::refused(Operation::Update, table, key, source);
        if table.spec().kind == Kind::PerCpuArray {
            let value = self.spread(table, value)?;
            return self.map(table)?.update(key, &value).map_err(fail);
        }
        self.map(table)?.update(key, value).map_err(fail)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, MapError> {
        if is_array(table) {
            let was_there = self.lookup(table, key)?.is_some();
            if was_there {
                self.update(table, key, &vec![0; table.spec().value_size as usize])?;
            }
            return Ok(was_there);
        }
        check_entry(table, Operation::Delete, key, None)?;
        match self.map(table)?.delete(key) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(MapError::refused(Operation::Delete, table, key, error)),
        }
    }

    fn lookup(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        check_entry(table, Operation::Lookup, key, None)?;
        let map = self.map(table)?;
        let mut value = vec![0; map.stride()];
        let found = map
            .lookup(key, &mut value)
            .map_err(|source| MapError::refused(Operation::Lookup, table, key, source))?;
        Ok((found && !absent(table, &value)).then_some(value))
    }

    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), MapError> {
        let map = self.map(table)?;
        match self.scan_batches(table, map, visit)? {
            Scan::Done => Ok(()),
            Scan::Unsupported => self.scan_singly(table, map, visit),
        }
    }

    fn capacity(&self, table: Table) -> Result<u32, MapError> {
        Ok(self.map(table)?.shape().max_entries)
    }

    fn update_batch(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), MapError> {
        let (spec, entries) = (table.spec(), entries_of(table, Operation::Update, keys, Some(values))?);
        let (key_size, value_size) = (spec.key_size as usize, spec.value_size as usize);
        // Per-CPU values would need to be multiplied; they are few.
        let mut singly = matches!(spec.kind, Kind::PerCpuArray | Kind::DeviceHash) || entries < 2;
        let mut done = 0;
        while done < entries && !singly {
            let count = BATCH.min(entries - done);
            let keys = &keys[done * key_size..][..count * key_size];
            let values = &values[done * value_size..][..count * value_size];
            match self.map(table)?.update_batch(keys, values, count) {
                Ok(()) => done += count,
                Err((0, error)) if done == 0 && no_batches(&error) => singly = true,
                Err((written, error)) => {
                    let key = keys.chunks_exact(key_size).nth(written).unwrap_or_default();
                    return Err(MapError::refused(Operation::Update, table, key, error));
                }
            }
        }
        while done < entries {
            self.update(
                table,
                &keys[done * key_size..][..key_size],
                &values[done * value_size..][..value_size],
            )?;
            done += 1;
        }
        Ok(())
    }

    fn delete_batch(&mut self, table: Table, keys: &[u8]) -> Result<(), MapError> {
        let entries = entries_of(table, Operation::Delete, keys, None)?;
        let key_size = table.spec().key_size as usize;
        let mut done = 0;
        while done < entries {
            let count = BATCH.min(entries - done);
            let rest = &keys[done * key_size..][..count * key_size];
            // Whatever the batch did not take (arrays, tries before they had batches, an entry that is not there) goes
            // one by one.
            let removed = if count < 2 || is_array(table) || table.spec().kind == Kind::DeviceHash {
                0
            } else {
                match self.map(table)?.delete_batch(rest, count) {
                    Ok(()) => count,
                    Err((removed, _)) => removed,
                }
            };
            done += removed;
            if removed < count {
                self.delete(table, &keys[done * key_size..][..key_size])?;
                done += 1;
            }
        }
        Ok(())
    }
}
