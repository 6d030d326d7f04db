//! Putting new addresses and ports into a packet, with every checksum kept right (A7).

use super::checksum;
use super::packet::{Packet, TransportFix};
use super::parse::{Fragment, Ip, Transport, Wire, join_ports};
use super::sctp;
use crate::abi::{FlowEntry, protocol};

/// Rewrites `packet` as `entry` says. `transport` is that of the packet as it came; for a later fragment only the
/// addresses change.
///
/// `None`: the packet could not be reached, and may be half written; drop it.
#[inline(always)]
pub fn rewrite<W: Wire, P: Packet>(
    packet: &mut P,
    ip: &Ip<W::Addr>,
    transport: &Transport,
    entry: &FlowEntry<W::Addr>,
) -> Option<()> {
    if !matches!(ip.fragment, Fragment::Later(_)) {
        if transport.checksum != 0 {
            let fix = TransportFix {
                addr_delta: entry.addr_delta,
                port_delta: entry.port_delta,
                pseudo_header: checksum::pseudo_header(
                    ip.src,
                    ip.dst,
                    ip.protocol,
                    (ip.end - ip.transport) as u32,
                ),
                udp: ip.protocol == protocol::UDP,
                ipv6: W::IS_V6,
            };
            packet.fix_transport_checksum(transport.checksum, &fix)?;
        } else if ip.protocol == protocol::SCTP {
            sctp::fix_checksum(packet, ip.transport, ip.end, transport, entry.sport_be, entry.dport_be)?;
        }
        packet.set_words(ip.transport, [join_ports(entry.sport_be, entry.dport_be)])?;
    }
    W::set_addresses(packet, ip.offset, entry.src, entry.dst, entry.addr_delta)
}
