//! Packets of known flows (C1–C4).

use super::flow_table::{self, Wrote};
use super::parse::{Wire, tcp_flag};
use super::state;
use super::steps::{Direction, Steps, Work};
use super::tables::{Added, Tables};
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

/// Writes key and entry of the other direction, which takes back what this one does. Field by field: whole structures would go by
/// way of the stack, which is short in the kernel.
#[inline(always)]
pub fn partner<A: Address>(
    key: &FlowKey<A>,
    entry: &FlowEntry<A>,
    other_key: &mut FlowKey<A>,
    other: &mut FlowEntry<A>,
) {
    other_key.src = entry.dst;
    other_key.dst = entry.src;
    other_key.sport_be = entry.dport_be;
    other_key.dport_be = entry.sport_be;
    other_key.protocol = key.protocol;
    (other_key._pad, other_key._pad2) = (0, 0);
    other.src = key.dst;
    other.dst = key.src;
    other.sport_be = key.dport_be;
    other.dport_be = key.sport_be;
    other.addr_delta = checksum::negate(entry.addr_delta);
    other.port_delta = checksum::negate(entry.port_delta);
    other.backend_id = entry.backend_id;
    other.backend_generation = entry.backend_generation;
    other.frontend_id = entry.frontend_id;
    other.last_seen = entry.last_seen;
    other.state = entry.state;
    other.flags = (entry.flags ^ flow_flag::REPLY) & !flow_flag::ALONE;
    other._pad = 0;
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
    if flow_table::change(tables, key, |entry| work.entry = *entry).is_none() {
        return;
    }
    let entry = &work.entry;
    work.other_key = partner_key(key, entry);
    flow_table::remove_if(tables, &work.other_key, |other| leads_back(key, other));
    flow_table::remove_if(tables, key, |_| true);
    if !state::is_closing(entry.state) {
        count_end(tables, entry);
    }
}

/// Before a client dials a backend by its own address, from a port with which it reached that backend through a frontend: that
/// flow's way back, should it be over, would take the answers for its own.
#[inline(always)]
pub fn make_way<A: Address, T: Tables>(tables: &T, work: &mut Work<A>) {
    turn(&mut work.met.key);
    let over = flow_table::change(tables, &work.met.key, |entry| {
        entry.flags & flow_flag::REPLY != 0 && state::is_closing(entry.state)
    });
    if over == Some(true) {
        forget(tables, work);
    }
    turn(&mut work.met.key);
}

/// The key of packets the other way, nothing translated.
#[inline(always)]
fn turn<A: Address>(key: &mut FlowKey<A>) {
    (key.src, key.dst) = (key.dst, key.src);
    (key.sport_be, key.dport_be) = (key.dport_be, key.sport_be);
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
    if idle > state::lifetime(tables.config(), protocol, entry.state) {
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

/// Handles a packet of a known flow, up to its rewriting as `work.entry` says: `None` when there is none, or when it is over.
#[inline(always)]
pub fn established<W: Wire, P: Packet, S: Steps<P>>(steps: &S, work: &mut Work<W::Addr>) -> Option<Reason> {
    let key = &work.met.key;
    let flow = flow_table::get(steps, key, &mut work.entry)?;
    let entry = &work.entry;
    let now = steps.now();
    if is_over(steps, key.protocol, work.met.flags, entry, now) {
        steps.forget::<W>(work);
        return None;
    }
    let reply = entry.flags & flow_flag::REPLY != 0;
    count(steps, entry, work.met.network_bytes(), reply);
    let learned = state::learned(entry.state, key.protocol, work.met.flags, reply);
    // The time is written once a tick, for C5's sake; the other direction's entry is looked for less often.
    let due = (now ^ entry.last_seen) >= steps.config().refresh_ticks;
    if learned != 0 || due || entry.flags & flow_flag::ALONE != 0 {
        steps.refresh::<W>(work, learned);
    } else if now != entry.last_seen {
        flow.set_last_seen(now);
    }
    Some(if reply { Reason::FromBackend } else { Reason::ToBackend })
}

/// What [`refresh`] found of the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Other {
    /// It is there.
    There = 0,
    /// It has been evicted: [`restore`] is due (C1).
    Evicted = 1,
    /// Evicted, and the way back is another flow's by now, with the same source port (C6). This flow is to be forgotten: its next
    /// packet is the first of a new one, which gets a port of its own.
    Lost = 2,
}

/// Writes time and newly learned state to both directions of the flow that `work.met` belongs to.
#[inline(always)]
pub fn refresh<A: Address, T: Tables>(tables: &T, work: &mut Work<A>, learned: u8) -> Other {
    let key = &work.met.key;
    let now = tables.now();
    let changed = flow_table::change(tables, key, |entry| {
        let old_state = entry.state;
        entry.state |= learned;
        entry.last_seen = now;
        entry.flags &= !flow_flag::ALONE;
        work.entry = *entry;
        old_state
    });
    let Some(old_state) = changed else {
        return Other::There;
    };
    let entry = &work.entry;
    work.other_key = partner_key(key, entry);
    let ours = flow_table::change(tables, &work.other_key, |other| {
        let ours = leads_back(key, other);
        if ours {
            (other.last_seen, other.state) = (entry.last_seen, entry.state);
        }
        ours
    });
    let entry = &work.entry;
    if state::is_closing(entry.state) && !state::is_closing(old_state) {
        count_end(tables, entry);
        tables.count_backend(entry.backend_id, |stats| stats.flows_closed += 1);
    }
    match ours {
        None => Other::Evicted,
        Some(false) if entry.flags & flow_flag::REPLY == 0 => Other::Lost,
        Some(_) => Other::There,
    }
}

/// Makes the entry of the other direction again (C1).
#[inline(always)]
pub fn restore<A: Address, T: Tables>(tables: &T, work: &mut Work<A>) {
    partner(&work.met.key, &work.entry, &mut work.other_key, &mut work.other);
    let added = tables.write_flow(work, Direction::Other, false);
    if added == Added::Evicted {
        tables.evict::<A>();
    }
    let forward = work.other.flags & flow_flag::REPLY == 0;
    if matches!(added, Added::Yes | Added::Evicted) && forward && !state::is_closing(work.entry.state) {
        tables.add_open_flows(work.entry.backend_id, 1);
    }
}

/// Writes a flow entry. After [`Added::Evicted`], what had to make way is in `evicted`, and [`evict`] is due. With `replace`, an
/// entry that has the key is overwritten when it is of no use any more: of this very client and frontend, or over.
#[inline(always)]
pub fn write<A: Address, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &FlowEntry<A>,
    replace: bool,
    evicted: &mut (FlowKey<A>, FlowEntry<A>),
) -> Added {
    let useless = |before: &FlowEntry<A>| {
        let idle = state::elapsed(entry.last_seen, before.last_seen);
        let same = before.src == entry.src
            && before.dst == entry.dst
            && before.sport_be == entry.sport_be
            && before.dport_be == entry.dport_be;
        replace && (same || idle > state::lifetime(tables.config(), key.protocol, before.state))
    };
    match flow_table::insert(tables, key, entry, useless, evicted) {
        Wrote::Free => Added::Yes,
        Wrote::Evicted => Added::Evicted,
        Wrote::Exists => Added::Exists,
        Wrote::Busy => Added::Full,
    }
}

/// One direction's entry had to make way: the other's next packet restores it (C1).
#[inline(always)]
pub fn evict<A: Address, T: Tables>(tables: &T, (key, entry): &(FlowKey<A>, FlowEntry<A>)) {
    if entry.flags & flow_flag::REPLY == 0 && !state::is_closing(entry.state) {
        count_end(tables, entry);
    }
    flow_table::change(tables, &partner_key(key, entry), |other| {
        if leads_back(key, other) {
            other.flags |= flow_flag::ALONE;
        }
    });
}

/// Counts a packet for its backend.
#[inline(always)]
pub fn count<A, T: Tables>(tables: &T, entry: &FlowEntry<A>, bytes: u64, reply: bool) {
    tables.count_backend(entry.backend_id, |stats| {
        let counter = if reply { &mut stats.from_backend } else { &mut stats.to_backend };
        counter.packets += 1;
        counter.bytes += bytes;
    });
}
