//! The flow tables, entry by entry: in the maps they lie in sets.

use std::mem::{offset_of, size_of};

use lb_common::abi::{FlowEntry, FlowKey, FlowWay};
use lb_common::engine::flow_tags::Tags;
use lb_common::family::Address;
use lb_common::tables::Table;

use super::{MapError, MapStore};

/// The flow table of a family.
pub const fn flow_table<A: Address>() -> Table {
    if A::WORDS == 1 { Table::FlowsV4 } else { Table::FlowsV6 }
}

/// The key and entry in a way's bytes; `None` when nobody has it, or it was being written.
fn entry_in<A: Address>(way: &[u8]) -> Option<(FlowKey<A>, FlowEntry<A>)> {
    let way: FlowWay<A> = bytemuck::try_pod_read_unaligned(way).ok()?;
    (way.key.protocol != 0 && way.version & 1 == 0).then_some((way.key, way.entry))
}

/// Visits all entries of a family's flow table. Entries that change meanwhile may be missed or seen as they were.
///
/// # Errors
/// As [`MapStore::scan`].
pub fn scan_flows<A: Address>(
    store: &dyn MapStore,
    visit: &mut dyn FnMut(&FlowKey<A>, &FlowEntry<A>),
) -> Result<(), MapError> {
    store.scan(flow_table::<A>(), &mut |_, set| {
        for (key, entry) in set.chunks_exact(size_of::<FlowWay<A>>()).filter_map(entry_in) {
            visit(&key, &entry);
        }
    })
}

/// Lets `change` change all entries of a family's flow table, and remove those for which it returns false. For tables that no
/// program uses meanwhile: it writes whole sets.
///
/// # Errors
/// As [`MapStore::scan`] and [`MapStore::update`].
pub fn change_flows<A: Address>(
    store: &mut dyn MapStore,
    change: &mut dyn FnMut(&FlowKey<A>, &mut FlowEntry<A>) -> bool,
) -> Result<(), MapError> {
    let table = flow_table::<A>();
    for (index, mut set) in store.dump(table)? {
        let tags_at = offset_of!(FlowWay<A>, tags)..offset_of!(FlowWay<A>, tags) + size_of::<u32>();
        let mut tags = Tags(bytemuck::pod_read_unaligned(&set[tags_at.clone()]));
        for (i, way) in set.chunks_exact_mut(size_of::<FlowWay<A>>()).enumerate() {
            let Some((key, mut entry)) = entry_in(way) else {
                continue;
            };
            if change(&key, &mut entry) {
                let at = offset_of!(FlowWay<A>, entry);
                way[at..at + size_of::<FlowEntry<A>>()].copy_from_slice(bytemuck::bytes_of(&entry));
            } else {
                way.fill(0);
                tags = tags.set(i, 0);
            }
        }
        // In the first way, which may be free by now.
        set[tags_at].copy_from_slice(&tags.0.to_ne_bytes());
        store.update(table, &index, &set)?;
    }
    Ok(())
}

/// Puts an entry into a set's first way, as if its hash led there: for tests of what reads the table.
///
/// # Errors
/// As [`MapStore::update`].
pub fn put_flow<A: Address>(
    store: &mut dyn MapStore,
    set: u32,
    key: &FlowKey<A>,
    entry: &FlowEntry<A>,
) -> Result<(), MapError> {
    let table = flow_table::<A>();
    let mut bytes = vec![0; table.spec().value_size as usize];
    bytes[offset_of!(FlowWay<A>, key)..][..size_of::<FlowKey<A>>()].copy_from_slice(bytemuck::bytes_of(key));
    bytes[offset_of!(FlowWay<A>, entry)..][..size_of::<FlowEntry<A>>()]
        .copy_from_slice(bytemuck::bytes_of(entry));
    store.update(table, &set.to_ne_bytes(), &bytes)
}
