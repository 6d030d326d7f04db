//! ICMP about our flows: errors are translated with what they quote (A4), echo to a ClusterIP is answered (V5).

use super::checksum;
use super::flow_table;
use super::packet::Packet;
use super::parse::{Part, Wire, join_ports, split_ports};
use super::steps::Work;
use super::tables::Tables;
use crate::abi::{FlowKey, protocol};
use crate::reason::Reason;

/// Length of an ICMP error's own header, in front of the quoted packet (RFC 792, RFC 4443 section 3).
const ERROR_LEN: usize = 8;

/// Whether a message type is an error that quotes a packet (RFC 792; RFC 4443 section 2.1: types below 128).
#[inline(always)]
fn is_error(icmp: u8, message: u8) -> bool {
    if icmp == protocol::ICMP { matches!(message, 3 | 11 | 12) } else { matches!(message, 1..=4) }
}

/// Whether a message type is an echo request.
#[inline(always)]
pub fn is_echo_request(icmp: u8, message: u8) -> bool {
    message == if icmp == protocol::ICMP { 8 } else { 128 }
}

/// Translates an ICMP error about one of our flows; `None` = it is about something else.
///
/// The quoted packet is one that we sent on, so the flow is found by its reverse: that is how packets of the other
/// direction look, and the entry found there says what both ends should see instead.
#[inline(always)]
pub fn translate_error<W: Wire, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Work<W::Addr>,
    message: u8,
) -> Option<Reason> {
    let met = &work.met;
    if !is_error(met.key.protocol, message) || met.fragment.part != Part::Whole {
        return None;
    }
    let quoted = W::parse(packet, met.transport + ERROR_LEN, false).ok()?;
    // Eight bytes of the quoted transport header are promised (RFC 792): ports, and UDP's checksum.
    if !matches!(quoted.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
        || quoted.fragment.part == Part::Later
        || quoted.transport + 8 > met.end
        || !packet.ensure(quoted.transport + 8)
    {
        return None;
    }
    let [ports] = packet.words::<1>(quoted.transport)?;
    let (sport_be, dport_be) = split_ports(ports);
    work.other_key = FlowKey {
        src: quoted.dst,
        dst: quoted.src,
        sport_be: dport_be,
        dport_be: sport_be,
        protocol: quoted.protocol,
        _pad: 0,
        _pad2: 0,
    };
    let key = &work.other_key;
    flow_table::get(tables, key, &mut work.entry)?;
    let entry = &work.entry;

    // Quoted packet: the reverse of what the entry makes of packets like `key`.
    let new_ports = join_ports(entry.dport_be, entry.sport_be);
    // Everything below changes bytes that the ICMP checksum covers; `delta` collects what it must follow.
    let mut delta = entry.port_delta;
    if W::IS_V6 {
        delta = checksum::add(delta, entry.addr_delta);
    }
    // IPv4: the quoted header's own checksum takes back what its addresses add.
    let quoted_field = match quoted.protocol {
        protocol::UDP => quoted.transport + 6,
        protocol::TCP => quoted.transport + 16,
        _ => 0,
    };
    if quoted_field != 0 && quoted_field + 2 <= met.end && packet.ensure(quoted_field + 2) {
        let old = packet.half(quoted_field)?;
        if !(quoted.protocol == protocol::UDP && old == 0) {
            let new = checksum::update(old, checksum::add(entry.addr_delta, entry.port_delta));
            // RFC 768: a computed zero is sent as all ones.
            let new = if quoted.protocol == protocol::UDP && new == 0 { 0xffff } else { new };
            packet.set_half(quoted_field, new)?;
            delta = checksum::add(delta, checksum::half_delta([old, 0], [new, 0]));
        }
    }
    packet.set_words(quoted.transport, [new_ports])?;
    W::set_addresses(packet, quoted.offset, entry.dst, entry.src, entry.addr_delta)?;

    // Outer header: to whom the flow's other end really is; from the frontend if the backend itself complains.
    let src = if met.key.src == key.src { entry.src } else { met.key.src };
    let outer_delta = checksum::addr_delta([met.key.src, met.key.dst], [src, entry.dst]);
    if W::IS_V6 {
        // ICMPv6 has a pseudo header (RFC 4443 section 2.3).
        delta = checksum::add(delta, outer_delta);
    }
    let old = packet.half(met.transport + 2)?;
    packet.set_half(met.transport + 2, checksum::update(old, delta))?;
    W::set_addresses(packet, met.offset, src, entry.dst, outer_delta)?;
    Some(Reason::IcmpError)
}
