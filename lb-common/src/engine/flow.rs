//! Packets of known flows (C1–C4).

use super::parse::{Met, Wire, tcp_flag};
use super::state;
use super::tables::{Added, FlowCell, Tables};
use super::{checksum, packet::Packet, rewrite::rewrite};
use crate::abi::{FlowEntry, FlowKey, backend_flag, flow_flag, protocol};
use crate::family::Address;
use crate::reason::Reason;

/// The key that packets of the other direction have.
#[inline(always)]
pub fn partner_key<A: Address>(key: &FlowKey<A>, entry: &FlowEntry<A>) -> FlowKey<A> {
    FlowKey {
        src: entry.dst,
        dst: entry.src,
        sport_be: entry.dport_be,
        dport_be: entry.sport_be,
        protocol: key.protocol,
        _pad: [0; 3],
    }
}

/// The entry of the other direction: it takes back what this one does.
#[inline(always)]
pub fn partner_entry<A: Address>(key: &FlowKey<A>, entry: &FlowEntry<A>) -> FlowEntry<A> {
    FlowEntry {
        src: key.dst,
        dst: key.src,
        sport_be: key.dport_be,
        dport_be: key.sport_be,
        addr_delta: checksum::negate(entry.addr_delta),
        port_delta: checksum::negate(entry.port_delta),
        flags: entry.flags ^ flow_flag::REPLY,
        ..*entry
    }
}

/// Removes both directions.
///
/// Never inlined, like [`refresh`]: rare, and the kernel's stack is small.
#[inline(never)]
pub fn forget<A: Address, T: Tables>(tables: &T, key: &FlowKey<A>, cell: &T::Flow<A>) {
    let entry = cell.get();
    tables.remove_flow(&partner_key(key, &entry));
    tables.remove_flow(key);
    if !state::is_closing(entry.state) {
        tables.add_open_flows(entry.backend_id, -1);
    }
}

/// Whether a flow's backend is still the one it began with.
#[inline(always)]
fn backend_has<A, T: Tables>(tables: &T, entry: &FlowEntry<A>, flags: u16) -> bool {
    tables.backend(entry.backend_id).is_some_and(|backend| {
        backend.generation == entry.backend_generation && backend.flags & flags == flags
    })
}

/// Whether a known flow is over for this packet, so that the packet is treated as the first of a new one.
#[inline(always)]
fn is_over<A, T: Tables>(tables: &T, protocol: u8, tcp_flags: u8, entry: &FlowEntry<A>, now: u32) -> bool {
    let idle = state::elapsed(now, entry.last_seen);
    if idle > state::lifetime(&tables.config(), protocol, entry.state) {
        return true;
    }
    if entry.flags & flow_flag::REPLY != 0 {
        return false;
    }
    if protocol == protocol::UDP {
        // C4: forgotten as soon as the backend no longer serves.
        return !backend_has(tables, entry, backend_flag::SERVING);
    }
    // C3: the client uses its port again.
    tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
        && (state::is_closing(entry.state) || !backend_has(tables, entry, backend_flag::ALIVE))
}

/// Handles a packet of a known flow: `None` when there is none, or when it is over.
#[inline(always)]
pub fn established<W: Wire, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    met: &Met<W::Addr>,
) -> Option<Reason> {
    let key = &met.key;
    let cell = tables.flow(key)?;
    let entry = cell.get();
    let now = tables.now();
    if is_over(tables, key.protocol, met.flags, &entry, now) {
        forget(tables, key, &cell);
        return None;
    }
    let reply = entry.flags & flow_flag::REPLY != 0;
    let learned = state::learned(entry.state, key.protocol, met.flags, reply);
    if learned != 0 || state::elapsed(now, entry.last_seen) >= tables.config().ticks_per_second {
        refresh(tables, key, &cell, learned);
    }
    count(tables, &entry, met.network_bytes(), reply);
    if rewrite::<W, P>(packet, met, &entry).is_none() {
        return Some(Reason::DropTables);
    }
    Some(if reply { Reason::FromBackend } else { Reason::ToBackend })
}

/// Writes time and newly learned state to both directions, and restores the other one if it has been evicted (C1).
#[inline(never)]
fn refresh<A: Address, T: Tables>(tables: &T, key: &FlowKey<A>, cell: &T::Flow<A>, learned: u8) {
    let mut entry = cell.get();
    let (old_state, new_state, now) = (entry.state, entry.state | learned, tables.now());
    cell.set_last_seen(now);
    cell.set_state(new_state);
    let other_key = partner_key(key, &entry);
    if let Some(other) = tables.flow(&other_key) {
        other.set_last_seen(now);
        other.set_state(new_state);
    } else {
        (entry.last_seen, entry.state) = (now, new_state);
        let _full: Added = tables.add_flow(&other_key, &partner_entry(key, &entry));
    }
    if state::is_closing(new_state) && !state::is_closing(old_state) {
        tables.add_open_flows(entry.backend_id, -1);
        tables.count_backend(entry.backend_id, |stats| stats.flows_closed += 1);
    }
}

/// Counts a packet for its backend.
#[inline(always)]
fn count<A, T: Tables>(tables: &T, entry: &FlowEntry<A>, bytes: u64, reply: bool) {
    tables.count_backend(entry.backend_id, |stats| {
        let counter = if reply { &mut stats.from_backend } else { &mut stats.to_backend };
        counter.packets += 1;
        counter.bytes += bytes;
    });
}
