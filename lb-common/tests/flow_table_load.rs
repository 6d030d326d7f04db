//! How full the flow table gets before entries make way that others could have made room for.

use std::mem::offset_of;

use lb_common::abi::{FlowEntry, FlowKey, FlowWay};
use lb_common::engine::flow_table::{Wrote, change, get, insert, remove_if};
use lb_common::engine::flow_tags::Tags;
use lb_common::family::{Address, V4Addr, V6Addr};
use lb_common::memory_flows::MemoryFlows;

/// Entries that had to make way while the table was filled with both directions of connections from a few clients.
fn evicted<A: Address>(sets: u32, connections: u32, addr: fn(u32) -> A) -> u32 {
    let table = MemoryFlows::<A>::new(sets, 0x5eed);
    let mut room = (bytemuck::Zeroable::zeroed(), bytemuck::Zeroable::zeroed());
    let mut evicted = 0;
    for n in 0..connections {
        let mut key: FlowKey<A> = bytemuck::Zeroable::zeroed();
        (key.src, key.dst, key.protocol) = (addr(0x0a01_0000 + n / 1024), addr(0x0a60_000a), 6);
        (key.sport_be, key.dport_be) = ((1024 + (n % 1024) as u16).to_be(), 80_u16.to_be());
        let mut back = key;
        (back.src, back.dst) = (addr(0x0a02_0000 + n % 16), key.src);
        (back.sport_be, back.dport_be) = (8080_u16.to_be(), key.sport_be);
        let entry: FlowEntry<A> = bytemuck::Zeroable::zeroed();
        for key in [key, back] {
            evicted += u32::from(insert(&table, &key, &entry, |_| false, &mut room) == Wrote::Evicted);
        }
    }
    evicted
}

#[test]
fn a_half_full_table_has_room_for_everybody() {
    let v4 = evicted::<V4Addr>(16_384, 16_384, |n| n.to_be());
    let v6 = evicted::<V6Addr>(16_384, 16_384, |n| [0xfd00_u32.to_be(), 0, 0, n.to_be()]);
    assert!(v4 <= 32 && v6 <= 32, "of 32,768 entries in 65,536 places, {v4} (IPv4) and {v6} (IPv6) made way");
}

/// Entries are found where they are, those in second sets too, and nothing is left of them once they are removed.
fn found_and_gone<A: Address>(addr: fn(u32) -> A) {
    let table = MemoryFlows::<A>::new(1024, 0x5eed);
    let mut room = (bytemuck::Zeroable::zeroed(), bytemuck::Zeroable::zeroed());
    let keys: Vec<FlowKey<A>> = (0..1536_u32)
        .map(|n| FlowKey { src: addr(n), dst: addr(!n), protocol: 6, ..bytemuck::Zeroable::zeroed() })
        .collect();
    for (n, key) in keys.iter().enumerate() {
        let entry = FlowEntry { backend_id: n as u32, ..bytemuck::Zeroable::zeroed() };
        assert_eq!(insert(&table, key, &entry, |_| false, &mut room), Wrote::Free, "entry {n}");
    }
    let tags = || (0..table.len()).map(|set| table.bytes(set).map_or(0, |bytes| tags_in::<A>(&bytes)));
    assert!(tags().filter(|tags| Tags(*tags).elsewhere()).count() > 10, "no entry is in its second set");
    for (n, key) in keys.iter().enumerate() {
        let mut entry = bytemuck::Zeroable::zeroed();
        assert!(get(&table, key, &mut entry).is_some(), "entry {n} is not found");
        assert_eq!(entry.backend_id, n as u32);
        assert_eq!(change(&table, key, |entry| entry.backend_id), Some(n as u32));
    }
    for key in &keys {
        remove_if(&table, key, |_| true);
        assert!(get(&table, key, &mut bytemuck::Zeroable::zeroed()).is_none());
    }
    assert!(tags().all(|tags| tags == 0), "something is left");
}

/// The tags in a set's bytes.
fn tags_in<A>(set: &[u8]) -> u32 {
    bytemuck::pod_read_unaligned(&set[offset_of!(FlowWay<A>, tags)..][..4])
}

#[test]
fn every_entry_is_found_and_nothing_is_left_of_it() {
    found_and_gone::<V4Addr>(|n| n);
    found_and_gone::<V6Addr>(|n| [n; 4]);
}
