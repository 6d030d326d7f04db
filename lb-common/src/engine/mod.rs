//! The packet logic: one piece of generic code, compiled for XDP, for tc and for the host.
//!
//! [`process`] reads a packet, asks the tables, rewrites the packet and names the reason. The reason's
//! [class](crate::reason::Class) says what the hook has to do: send on, leave alone, answer or drop.
//! Nothing here knows about sockets, interfaces or maps.

pub mod answer;
pub mod checksum;
pub mod filter;
pub mod flow;
pub mod flow_table;
pub mod flow_tags;
pub mod forward;
pub mod icmp;
pub mod open;
pub mod packet;
pub mod parse;
pub mod rewrite;
pub mod route;
mod sctp;
pub mod select;
pub mod socket;
pub mod state;
pub mod steps;
pub mod tables;

use self::filter::Seen;
use self::open::Origin;
use self::packet::Packet;
use self::parse::{Fragment, Met, Part, Transport, V4, V6, Wire, tcp_flag};
use self::rewrite::rewrite;
use self::steps::{Steps, Work};
use self::tables::Tables;
use crate::abi::{
    FlowKey, FragmentEntry, FragmentKey, FrontendEntry, address_class, frontend_flag, protocol, settings_flag,
};
use crate::family::Address;
use crate::reason::{Class, Reason};

/// Where on its way a packet is met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    /// Leaving the host: only replies of the host's own sockets are looked at.
    pub egress: bool,
    /// Came in over an interface marked external (F9).
    pub external: bool,
}

/// Decides about one packet, and rewrites it if it is to be sent on.
///
/// Answered packets are left as they came; [`answer::answer`] makes the answer where the hook can change their length.
#[inline(always)]
pub fn process<P: Packet, S: Steps<P>>(packet: &mut P, steps: &S, position: Position) -> Reason {
    let Some((ethertype, offset)) = parse::link(packet) else {
        return Reason::Malformed;
    };
    let reason = match ethertype {
        parse::ETHERTYPE_IPV4 => process_ip::<V4, P, S>(packet, steps, offset, position),
        parse::ETHERTYPE_IPV6 => process_ip::<V6, P, S>(packet, steps, offset, position),
        _ => Reason::NotIp,
    };
    // Counted apart: it is no packet that came in.
    if position.egress && reason.class() == Class::Forwarded { Reason::FromHost } else { reason }
}

#[inline(always)]
fn process_ip<W: Wire, P: Packet, S: Steps<P>>(
    packet: &mut P,
    steps: &S,
    offset: usize,
    position: Position,
) -> Reason {
    let ip = match W::parse(packet, offset, true) {
        Ok(ip) => ip,
        Err(reason) => return reason,
    };
    let has_ports = matches!(ip.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    let mut transport = Transport::default();
    let (mut seen, mut direct) = (Seen::Maybe, false);
    if has_ports {
        if ip.fragment.part != Part::Later {
            transport = match parse::transport(packet, &ip) {
                Ok(transport) => transport,
                Err(reason) => return reason,
            };
        }
        let to_backend;
        (seen, to_backend) = filter::look(steps, ip.src, ip.dst);
        direct = to_backend && transport.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        if seen == Seen::NotOurs && !direct {
            return Reason::NotOurs;
        }
    }
    let Some(mut room) = steps.work::<W>() else {
        return Reason::DropTables;
    };
    let work: &mut Work<W::Addr> = &mut room;
    work.met = Met::new(&ip);
    work.external = u8::from(position.external);
    work.egress = u8::from(position.egress);
    if !has_ports {
        return steps.without_ports::<W>(packet, work);
    }
    work.met.set_transport(transport);
    if let Fragment { part: Part::Later, id } = ip.fragment
        && !recall_fragment(steps, &mut work.met.key, id)
    {
        return Reason::LateFragment;
    }
    if direct {
        steps.make_way::<W>(work);
    }
    if seen == Seen::NotOurs {
        return Reason::NotOurs;
    }
    let reason = match flow::established::<W, P, S>(steps, work) {
        Some(reason) => reason,
        None if position.egress || seen == Seen::MaybeReply => return Reason::NotOurs,
        None => match steps.first_packet::<W>(work) {
            Reason::NewFlow => steps.record::<W>(work),
            reason => return reason,
        },
    };
    if reason.class() != Class::Forwarded {
        return reason;
    }
    if rewrite::<W, P>(packet, &work.met, &work.entry).is_none() {
        return Reason::DropTables;
    }
    if let Fragment { part: Part::First, id } = work.met.fragment {
        remember_fragment(steps, &work.met.key, id);
    }
    reason
}

#[inline(always)]
fn fragment_key<A: Address>(key: &FlowKey<A>, id: u32) -> FragmentKey {
    FragmentKey { src: key.src.widen(), dst: key.dst.widen(), id_be: id, protocol: u32::from(key.protocol) }
}

/// Puts the ports that a datagram's first fragment had into `key`; whether they are known.
#[inline(never)]
fn recall_fragment<A: Address, T: Tables>(tables: &T, key: &mut FlowKey<A>, id: u32) -> bool {
    let Some(entry) = tables.fragment(&fragment_key(key, id)) else {
        return false;
    };
    (key.sport_be, key.dport_be) = (entry.sport_be, entry.dport_be);
    state::elapsed(tables.now(), entry.last_seen) <= tables.config().lifetime_fragment
}

/// Remembers the ports of a datagram's first fragment for the later ones (A5).
#[inline(never)]
fn remember_fragment<A: Address, T: Tables>(tables: &T, key: &FlowKey<A>, id: u32) {
    let entry = FragmentEntry { sport_be: key.sport_be, dport_be: key.dport_be, last_seen: tables.now() };
    tables.set_fragment(&fragment_key(key, id), &entry);
}

/// The first packet of what may become a flow: for a frontend, for another port of a service address, or not ours.
///
/// After [`Reason::NewFlow`] comes [`open::record`].
#[inline(always)]
pub fn first_packet<W: Wire, T: Tables>(tables: &T, work: &mut Work<W::Addr>) -> Reason {
    if work.met.fragment.part == Part::Later {
        return Reason::LateFragment;
    }
    let key = &work.met.key;
    if tables.frontend(&open::frontend_key(key.dst, key.dport_be, key.protocol), &mut work.frontend) {
        open::choose::<W, T>(tables, work)
    } else {
        not_a_frontend(tables, key, work.external != 0, &mut work.frontend, Reason::NotOurs)
    }
}

/// A packet without ports: ICMP about our flows or to our addresses, or something that Services do not have.
#[inline(always)]
pub fn without_ports<W: Wire, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Work<W::Addr>,
) -> Reason {
    let (at, end) = (work.met.transport, work.met.end);
    let echo = if work.met.key.protocol == W::ICMP && work.met.fragment.part != Part::Later {
        if at + 8 > end || !packet.ensure(at + 8) {
            return Reason::Malformed;
        }
        let Some(message) = packet.byte(at) else {
            return Reason::Malformed;
        };
        if let Some(reason) = icmp::translate_error::<W, P, T>(packet, tables, work, message) {
            return reason;
        }
        icmp::is_echo_request(work.met.key.protocol, message) && work.met.fragment.part == Part::Whole
    } else {
        false
    };
    if work.egress != 0 {
        return Reason::OtherProtocol;
    }
    let external = work.external != 0;
    match not_a_frontend(tables, &work.met.key, external, &mut work.frontend, Reason::OtherProtocol) {
        Reason::RejectedPort => {
            let silent = tables.settings().is_some_and(|s| s.flags & settings_flag::NO_VIP_PING != 0);
            // There is no port that could be unreachable: what is no ping is left to the host.
            if echo && !silent { Reason::Ping } else { Reason::OtherProtocol }
        }
        reason => reason,
    }
}

/// What happens to a packet that is for no frontend: an owned ClusterIP rejects (V5), or drops what comes from outside
/// (F9); an unowned address of the service range swallows (V6); anything else is not ours.
#[inline(always)]
fn not_a_frontend<A: Address, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    external: bool,
    room: &mut FrontendEntry,
    otherwise: Reason,
) -> Reason {
    let owned = tables.frontend(&open::frontend_key(key.dst, 0, 0), room);
    if owned && room.flags & frontend_flag::OWNER != 0 {
        let closed = room.flags & frontend_flag::DROP_EXTERNAL != 0
            && open::origin(tables, key.src, external) == Origin::Outside;
        return if closed { Reason::DropExternal } else { Reason::RejectedPort };
    }
    if tables.class(key.dst) & address_class::SERVICE_CIDR != 0 {
        return Reason::DropUnowned;
    }
    otherwise
}
