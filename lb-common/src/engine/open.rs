//! First packets of flows: frontend, policy, backend, source port, both entries (F, V, A2, A3, C6).

use super::checksum;
use super::flow::{self, partner, partner_key};
use super::flow_table;
use super::parse::{Wire, tcp_flag};
use super::select;
use super::steps::{Direction, Work};
use super::tables::{Added, Tables};
use crate::abi::{
    BackendEntry, FrontendEntry, FrontendKey, SlotRange, address_class, algorithm, flow_flag, frontend_flag,
    protocol,
};
use crate::family::Address;
use crate::reason::Reason;

/// Source ports tried before a flow is given up (C6). With half of the range taken, all 16 are with 2^-16.
const PORT_TRIES: u32 = 16;
/// So many source ports cannot all be tried.
const MANY_PORTS: u32 = 255;

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A pod.
    Pod,
    /// This node.
    Node,
    /// Anywhere else.
    Outside,
}

/// Classifies a source address.
#[inline(always)]
pub fn origin<A: Address, T: Tables>(tables: &T, src: A, external_iface: bool) -> Origin {
    let class = tables.class(src);
    if class & address_class::NODE != 0 {
        Origin::Node
    } else if class & address_class::POD != 0 && !external_iface {
        Origin::Pod
    } else {
        Origin::Outside
    }
}

/// The frontend a packet is for.
#[inline(always)]
pub fn frontend_key<A: Address>(dst: A, dport_be: u16, protocol: u8) -> FrontendKey<A> {
    FrontendKey { addr: dst, port_be: dport_be, protocol, _pad: 0 }
}

/// Where a packet to a frontend comes from, as far as the frontend cares.
#[inline(always)]
fn origin_for<A: Address, T: Tables>(
    tables: &T,
    src: A,
    frontend: &FrontendEntry,
    external_iface: bool,
) -> Origin {
    let told_apart =
        frontend.flags & frontend_flag::NEEDS_SOURCE_CLASS != 0 || frontend.internal != frontend.external;
    if told_apart { origin(tables, src, external_iface) } else { Origin::Pod }
}

/// Who may answer, or why nobody does.
#[inline(always)]
pub fn admit<A: Address, T: Tables>(
    tables: &T,
    src: A,
    frontend: &FrontendEntry,
    origin: Origin,
) -> Result<SlotRange, Reason> {
    if frontend.flags & frontend_flag::SOURCE_RANGES != 0 && !tables.source_allowed(frontend.service_id, src)
    {
        return Err(Reason::DropSourceRange);
    }
    if origin == Origin::Outside && frontend.flags & frontend_flag::DROP_EXTERNAL != 0 {
        return Err(Reason::DropExternal);
    }
    let range = if origin == Origin::Outside { frontend.external } else { frontend.internal };
    if range.count == 0 {
        return Err(if frontend.flags & frontend_flag::REJECT_EMPTY != 0 {
            Reason::RejectedNoBackend
        } else {
            Reason::DropNoLocalBackend
        });
    }
    Ok(range)
}

/// Whether the source must become the node's (A2, A3).
#[inline(always)]
fn masqueraded<A: Address>(src: A, frontend: &FrontendEntry, origin: Origin, backend: &BackendEntry) -> bool {
    let flag = match origin {
        Origin::Pod => frontend_flag::MASQUERADE_POD,
        Origin::Node => frontend_flag::MASQUERADE_NODE,
        Origin::Outside => frontend_flag::MASQUERADE_EXTERNAL,
    };
    frontend.flags & flag != 0 || A::from_words(backend.addr) == src
}

/// Chooses who answers a flow to `work.frontend`: with [`Reason::NewFlow`], [`record`] is to follow.
#[inline(always)]
pub fn choose<W: Wire, T: Tables>(tables: &T, work: &mut Work<W::Addr>) -> Reason {
    let key = &work.met.key;
    let frontend = &work.frontend;
    let origin = origin_for(tables, key.src, frontend, work.external != 0);
    let range = match admit(tables, key.src, frontend, origin) {
        Ok(range) => range,
        Err(reason) => return reason,
    };
    let flags = work.met.flags;
    let first = flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    if key.protocol == protocol::TCP && !first && frontend.algorithm != algorithm::MAGLEV {
        // C7. A reset is never answered with a reset (RFC 9293 section 3.10.7.1).
        let stray = flags & tcp_flag::RST != 0;
        return if stray { Reason::DropStrayReset } else { Reason::ResetMidFlow };
    }
    let Some(chosen) = select::choose(tables, key, frontend, range, origin == Origin::Outside) else {
        return Reason::DropTables;
    };
    work.backend = chosen.id;
    work.masquerade = u8::from(masqueraded(key.src, frontend, origin, &chosen.backend));
    Reason::NewFlow
}

/// Begins the flow to the backend that was chosen; `work.entry` says how to rewrite its packets.
#[inline(always)]
pub fn record<W: Wire, T: Tables>(tables: &T, work: &mut Work<W::Addr>) -> Reason {
    let recorded = match enter::<W, T>(tables, work) {
        Ok(recorded) => recorded,
        Err(reason) => return reason,
    };
    let bytes = work.met.network_bytes();
    if matches!(recorded, Recorded::Known) {
        flow::count(tables, &work.entry, bytes, false);
        return Reason::ToBackend;
    }
    tables.add_open_flows(work.backend, 1);
    tables.count_backend(work.backend, |stats| {
        stats.flows_opened += 1;
        stats.to_backend.packets += 1;
        stats.to_backend.bytes += bytes;
    });
    Reason::NewFlow
}

/// Whose flow has been recorded.
enum Recorded {
    /// This packet's.
    New,
    /// One that began on another CPU meanwhile; `work.entry` is its entry.
    Known,
}

/// Makes the entries of both directions in `work` and in the tables.
#[inline(always)]
fn enter<W: Wire, T: Tables>(tables: &T, work: &mut Work<W::Addr>) -> Result<Recorded, Reason> {
    let key = &work.met.key;
    let entry = &mut work.entry;
    let settings = tables.settings().ok_or(Reason::DropTables)?;
    let backend = tables.backend(work.backend).ok_or(Reason::DropTables)?;
    let masquerade = work.masquerade != 0;
    // Field by field, see `partner`.
    entry.src = key.src;
    entry.dst = W::Addr::from_words(backend.addr);
    entry.sport_be = key.sport_be;
    entry.dport_be = backend.port_be;
    entry.backend_id = work.backend;
    entry.backend_generation = backend.generation;
    entry.frontend_id = work.frontend.frontend_id;
    entry.last_seen = tables.now();
    (entry.state, entry.flags, entry._pad) = (0, 0, 0);
    if masquerade {
        let words = if W::IS_V6 { settings.node_v6 } else { [settings.node_v4, 0, 0, 0] };
        if words == [0; 4] {
            return Err(Reason::DropNoNodeAddress);
        }
        entry.src = W::Addr::from_words(words);
        entry.flags = flow_flag::SNAT;
    }
    entry.addr_delta = checksum::addr_delta([key.src, key.dst], [entry.src, entry.dst]);
    let port_count = u32::from(settings.snat_port_count);
    let start = select::tuple_hash(key);
    for attempt in 0..=PORT_TRIES {
        let (key, entry) = (&work.met.key, &mut work.entry);
        // A masqueraded flow takes its port from the reserved range at once: the node's own connections use the others.
        if masquerade || attempt > 0 {
            if port_count == 0 {
                return Err(Reason::DropNoSourcePort);
            }
            // One after the other, taken ports would clump together: who comes upon one comes upon many.
            let try_this = match port_count {
                0..=MANY_PORTS => start.wrapping_add(attempt),
                _ => start.wrapping_mul(2 * attempt + 1),
            };
            let port = u32::from(settings.snat_port_first) + try_this % port_count;
            entry.sport_be = (port as u16).to_be();
            entry.flags = flow_flag::SNAT;
        }
        entry.port_delta =
            checksum::half_delta([key.sport_be, key.dport_be], [entry.sport_be, entry.dport_be]);
        partner(key, entry, &mut work.other_key, &mut work.other);
        let added = tables.write_flow(work, Direction::Other, true);
        if added == Added::Evicted {
            tables.evict::<W::Addr>();
        }
        match added {
            Added::Yes | Added::Evicted => return Ok(confirm(tables, work)),
            // C5: the packet goes on its way; the flow's next packet tries again.
            Added::Full => return Ok(Recorded::New),
            Added::Exists => {}
        }
    }
    Err(Reason::DropNoSourcePort)
}

/// Adds the entry of the packet's own direction, unless another CPU has met the same flow just now: then its choice counts
/// for this packet too.
#[inline(always)]
fn confirm<A: Address, T: Tables>(tables: &T, work: &mut Work<A>) -> Recorded {
    match tables.write_flow(work, Direction::Own, false) {
        Added::Yes | Added::Full => Recorded::New,
        Added::Evicted => {
            tables.evict::<A>();
            Recorded::New
        }
        Added::Exists => yield_to_first(tables, work),
    }
}

/// Takes the entry that another CPU has made. A function of its own, for the sake of the stack.
#[inline(never)]
fn yield_to_first<A: Address, T: Tables>(tables: &T, work: &mut Work<A>) -> Recorded {
    if flow_table::change(tables, &work.met.key, |first| work.entry = *first).is_none() {
        return Recorded::New;
    }
    if partner_key(&work.met.key, &work.entry) != work.other_key {
        flow_table::remove_if(tables, &work.other_key, |_| true);
    }
    Recorded::Known
}
