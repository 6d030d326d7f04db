//! Packets of known flows (C1–C4).

use super::parse::{Wire, tcp_flag};
use super::state;
use super::steps::{Steps, Work};
use super::tables::{Added, FlowCell, Tables};
use super::{checksum, packet::Packet};
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
        _pad: 0,
        _pad2: 0,
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

/// Whether `entry` takes packets back to where those of `key` come from.
#[inline(always)]
pub fn leads_back<A: Address>(key: &FlowKey<A>, entry: &FlowEntry<A>) -> bool {
    entry.dst == key.src
        && entry.src == key.dst
        && entry.dport_be == key.sport_be
        && entry.sport_be == key.dport_be
}

/// Removes both directions of the flow that `work.met` belongs to.
///
/// Once a flow is over, its way back may belong to another by now (C6): that one is left alone.
#[inline(always)]
pub fn forget<A: Address, T: Tables>(tables: &T, work: &mut Work<A>) {
    let key = &work.met.key;
    let Some(cell) = tables.flow(key) else {
        return;
    };
    let entry = cell.get();
    work.other_key = partner_key(key, &entry);
    if tables.flow(&work.other_key).is_some_and(|other| leads_back(key, &other.get())) {
        tables.remove_flow(&work.other_key);
    }
    tables.remove_flow(key);
    if !state::is_closing(entry.state) {
        count_end(tables, &entry);
    }
}

/// Takes a flow that has ended off its backend's open ones, unless the number has been given to another backend since.
#[inline(always)]
fn count_end<A, T: Tables>(tables: &T, entry: &FlowEntry<A>) {
    if backend_has(tables, entry, 0) {
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

/// Handles a packet of a known flow, up to its rewriting: `None` when there is none, or when it is over.
#[inline(always)]
pub fn established<W: Wire, P: Packet, S: Steps<P>>(
    steps: &S,
    work: &mut Work<W::Addr>,
) -> Option<(Reason, FlowEntry<W::Addr>)> {
    let key = &work.met.key;
    let cell = steps.flow(key)?;
    let entry = cell.get();
    let now = steps.now();
    if is_over(steps, key.protocol, work.met.flags, &entry, now) {
        steps.forget::<W>(work);
        return None;
    }
    let reply = entry.flags & flow_flag::REPLY != 0;
    let learned = state::learned(entry.state, key.protocol, work.met.flags, reply);
    if learned != 0 || state::elapsed(now, entry.last_seen) >= steps.config().ticks_per_second {
        steps.refresh::<W>(work, learned);
    }
    count(steps, &entry, work.met.network_bytes(), reply);
    Some((if reply { Reason::FromBackend } else { Reason::ToBackend }, entry))
}

/// Writes time and newly learned state to both directions of the flow that `work.met` belongs to, and restores the other
/// one if it has been evicted (C1).
#[inline(always)]
pub fn refresh<A: Address, T: Tables>(tables: &T, work: &mut Work<A>, learned: u8) {
    let key = &work.met.key;
    let Some(cell) = tables.flow(key) else {
        return;
    };
    work.entry = cell.get();
    let entry = &mut work.entry;
    let old_state = entry.state;
    entry.state |= learned;
    entry.last_seen = tables.now();
    cell.set_last_seen(entry.last_seen);
    cell.set_state(entry.state);
    work.other_key = partner_key(key, entry);
    if let Some(other) = tables.flow(&work.other_key) {
        other.set_last_seen(entry.last_seen);
        other.set_state(entry.state);
    } else {
        work.other = partner_entry(key, entry);
        let _full: Added = tables.add_flow(&work.other_key, &work.other);
    }
    if state::is_closing(entry.state) && !state::is_closing(old_state) {
        count_end(tables, entry);
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
