//! First packets of flows: frontend, policy, backend, source port, both entries (F, V, A2, A3, C6).

use super::flow::{leads_back, partner_entry, partner_key};
use super::parse::{Wire, tcp_flag};
use super::select::{self, Chosen};
use super::steps::Work;
use super::tables::{Added, FlowCell, Tables};
use super::{checksum, state};
use crate::abi::{
    FlowEntry, FlowKey, FrontendEntry, FrontendKey, SlotRange, address_class, algorithm, flow_flag,
    frontend_flag, protocol,
};
use crate::family::Address;
use crate::reason::Reason;

/// Source ports tried before a flow is given up (C6). With half of the range taken, all 16 are with 2^-16.
const PORT_TRIES: u32 = 16;

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

/// Who may answer, or why nobody does.
#[inline(always)]
fn admit<A: Address, T: Tables>(
    tables: &T,
    src: A,
    frontend: &FrontendEntry,
    external_iface: bool,
) -> Result<(SlotRange, Origin), Reason> {
    let told_apart =
        frontend.flags & frontend_flag::NEEDS_SOURCE_CLASS != 0 || frontend.internal != frontend.external;
    let origin = if told_apart { origin(tables, src, external_iface) } else { Origin::Pod };
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
    Ok((range, origin))
}

/// Whether the source must become the node's (A2, A3).
#[inline(always)]
fn masqueraded<A: Address>(src: A, frontend: &FrontendEntry, origin: Origin, chosen: &Chosen) -> bool {
    let flag = match origin {
        Origin::Pod => frontend_flag::MASQUERADE_POD,
        Origin::Node => frontend_flag::MASQUERADE_NODE,
        Origin::Outside => frontend_flag::MASQUERADE_EXTERNAL,
    };
    frontend.flags & flag != 0 || A::from_words(chosen.backend.addr) == src
}

/// Begins a flow to `work.frontend`; `work.entry` says how to rewrite its packets.
#[inline(always)]
pub fn open<W: Wire, T: Tables>(tables: &T, work: &mut Work<W::Addr>) -> Reason {
    let key = &work.met.key;
    let frontend = &work.frontend;
    let (range, origin) = match admit(tables, key.src, frontend, work.external != 0) {
        Ok(admitted) => admitted,
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
    let masquerade = masqueraded(key.src, frontend, origin, &chosen);
    if let Err(reason) = record::<W, T>(tables, work, &chosen, masquerade) {
        return reason;
    }
    tables.add_open_flows(chosen.id, 1);
    let bytes = work.met.network_bytes();
    tables.count_backend(chosen.id, |stats| {
        stats.flows_opened += 1;
        stats.to_backend.packets += 1;
        stats.to_backend.bytes += bytes;
    });
    Reason::NewFlow
}

/// Makes the entries of both directions in `work` and in the tables.
#[inline(always)]
fn record<W: Wire, T: Tables>(
    tables: &T,
    work: &mut Work<W::Addr>,
    chosen: &Chosen,
    masquerade: bool,
) -> Result<(), Reason> {
    let key = &work.met.key;
    let entry = &mut work.entry;
    let settings = tables.settings().ok_or(Reason::DropTables)?;
    *entry = FlowEntry {
        src: key.src,
        dst: W::Addr::from_words(chosen.backend.addr),
        sport_be: key.sport_be,
        dport_be: chosen.backend.port_be,
        addr_delta: 0,
        port_delta: 0,
        backend_id: chosen.id,
        backend_generation: chosen.backend.generation,
        frontend_id: work.frontend.frontend_id,
        last_seen: tables.now(),
        state: 0,
        flags: 0,
        _pad: 0,
    };
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
        // A masqueraded flow takes its port from the reserved range at once: the node's own connections use the others.
        if masquerade || attempt > 0 {
            if port_count == 0 {
                return Err(Reason::DropNoSourcePort);
            }
            let port = u32::from(settings.snat_port_first) + start.wrapping_add(attempt) % port_count;
            entry.sport_be = (port as u16).to_be();
            entry.flags = flow_flag::SNAT;
        }
        entry.port_delta =
            checksum::half_delta([key.sport_be, key.dport_be], [entry.sport_be, entry.dport_be]);
        work.other_key = partner_key(key, entry);
        work.other = partner_entry(key, entry);
        let added = match tables.add_flow(&work.other_key, &work.other) {
            Added::Exists if replaceable(tables, key, &work.other_key) => {
                tables.put_flow(&work.other_key, &work.other)
            }
            added => added,
        };
        match added {
            Added::Yes => {
                let _full: Added = tables.put_flow(key, entry);
                return Ok(());
            }
            // C5: the packet goes on its way; the flow's next packet tries again.
            Added::Full => return Ok(()),
            Added::Exists => {}
        }
    }
    Err(Reason::DropNoSourcePort)
}

/// Whether the entry in the way is of no use any more: of this very client and frontend, or over.
#[inline(always)]
fn replaceable<A: Address, T: Tables>(tables: &T, key: &FlowKey<A>, reply_key: &FlowKey<A>) -> bool {
    let Some(cell) = tables.flow(reply_key) else {
        return true;
    };
    let entry = cell.get();
    let idle = state::elapsed(tables.now(), entry.last_seen);
    leads_back(key, &entry) || idle > state::lifetime(&tables.config(), key.protocol, entry.state)
}
