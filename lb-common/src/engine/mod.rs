//! The packet logic: one piece of generic code, compiled for XDP, for tc and for the host.
//!
//! [`process`] reads a packet, asks the tables, rewrites the packet and names the reason. The reason's
//! [class](crate::reason::Class) says what the hook has to do: send on, leave alone, answer or drop.
//! Nothing here knows about sockets, interfaces or maps.

pub mod checksum;
pub mod flow;
pub mod icmp;
pub mod open;
pub mod packet;
pub mod parse;
pub mod rewrite;
mod sctp;
pub mod select;
pub mod state;
pub mod tables;

use self::packet::Packet;
use self::parse::{Fragment, Ip, Met, Transport, V4, V6, Wire};
use self::tables::Tables;
use crate::abi::{FragmentEntry, FragmentKey, address_class, frontend_flag, settings_flag};
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
/// Answered packets are left as they came: making the answer is the hook's business.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T, position: Position) -> Reason {
    let Some((ethertype, offset)) = parse::link(packet) else {
        return Reason::Malformed;
    };
    match ethertype {
        parse::ETHERTYPE_IPV4 => process_ip::<V4, P, T>(packet, tables, offset, position),
        parse::ETHERTYPE_IPV6 => process_ip::<V6, P, T>(packet, tables, offset, position),
        _ => Reason::NotIp,
    }
}

#[inline(always)]
fn process_ip<W: Wire, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    offset: usize,
    position: Position,
) -> Reason {
    let ip = match W::parse(packet, offset, true) {
        Ok(ip) => ip,
        Err(reason) => return reason,
    };
    if ip.protocol == W::ICMP {
        return process_icmp::<W, P, T>(packet, tables, &ip, position);
    }
    let transport = match read_transport(packet, tables, &ip) {
        Ok(transport) => transport,
        Err(Reason::OtherProtocol) if !position.egress => {
            let reason = not_a_frontend(tables, ip.dst, Reason::OtherProtocol);
            // There is no port that could be unreachable: leave it to the host to say so (RFC 1122 section 3.2.2.1).
            return if reason == Reason::RejectedPort { Reason::OtherProtocol } else { reason };
        }
        Err(reason) => return reason,
    };
    let met = Met::new(&ip, &transport);
    let reason = match flow::established::<W, P, T>(packet, tables, &met) {
        Some(reason) => reason,
        None if position.egress => return Reason::NotOurs,
        None if matches!(met.fragment, Fragment::Later(_)) => return Reason::LateFragment,
        None => {
            let frontend_key = open::frontend_key(met.key.dst, met.key.dport_be, met.key.protocol);
            match tables.frontend(&frontend_key) {
                Some(frontend) => open::open::<W, P, T>(packet, tables, &met, &frontend, position.external),
                None => not_a_frontend(tables, met.key.dst, Reason::NotOurs),
            }
        }
    };
    if let Fragment::First(id) = ip.fragment
        && reason.class() == Class::Forwarded
    {
        let entry = FragmentEntry {
            sport_be: transport.sport_be,
            dport_be: transport.dport_be,
            last_seen: tables.now(),
        };
        tables.set_fragment(&fragment_key(&ip, id), &entry);
    }
    reason
}

/// The ports of a packet; those of a later fragment are remembered from the first (A5).
#[inline(always)]
fn read_transport<A: Address, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Transport, Reason> {
    let Fragment::Later(id) = ip.fragment else {
        return parse::transport(packet, ip);
    };
    let entry = tables.fragment(&fragment_key(ip, id)).ok_or(Reason::LateFragment)?;
    if state::elapsed(tables.now(), entry.last_seen) > tables.config().lifetime_fragment {
        return Err(Reason::LateFragment);
    }
    Ok(Transport { sport_be: entry.sport_be, dport_be: entry.dport_be, flags: 0, checksum: 0 })
}

#[inline(always)]
fn fragment_key<A: Address>(ip: &Ip<A>, id: u32) -> FragmentKey {
    FragmentKey { src: ip.src.widen(), dst: ip.dst.widen(), id_be: id, protocol: u32::from(ip.protocol) }
}

#[inline(never)]
fn process_icmp<W: Wire, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ip<W::Addr>,
    position: Position,
) -> Reason {
    if matches!(ip.fragment, Fragment::Later(_)) {
        return Reason::OtherProtocol;
    }
    if ip.transport + 8 > ip.end || !packet.ensure(ip.transport + 8) {
        return Reason::Malformed;
    }
    let Some(message) = packet.byte(ip.transport) else {
        return Reason::Malformed;
    };
    if let Some(reason) = icmp::translate_error::<W, P, T>(packet, tables, ip, message) {
        return reason;
    }
    if position.egress {
        return Reason::NotOurs;
    }
    if !icmp::is_echo_request(ip.protocol, message) {
        return Reason::OtherProtocol;
    }
    match not_a_frontend(tables, ip.dst, Reason::OtherProtocol) {
        Reason::RejectedPort if ip.fragment != Fragment::Whole => Reason::OtherProtocol,
        Reason::RejectedPort => {
            let silent = tables.settings().is_some_and(|s| s.flags & settings_flag::NO_VIP_PING != 0);
            if silent { Reason::OtherProtocol } else { Reason::Ping }
        }
        reason => reason,
    }
}

/// What happens to a packet that is for no frontend: an owned ClusterIP rejects (V5), an unowned address of the
/// service range swallows (V6), anything else is not ours.
#[inline(always)]
fn not_a_frontend<A: Address, T: Tables>(tables: &T, dst: A, otherwise: Reason) -> Reason {
    let owner = tables.frontend(&open::frontend_key(dst, 0, 0));
    if owner.is_some_and(|entry| entry.flags & frontend_flag::OWNER != 0) {
        return Reason::RejectedPort;
    }
    if tables.class(dst) & address_class::SERVICE_CIDR != 0 {
        return Reason::DropUnowned;
    }
    otherwise
}
