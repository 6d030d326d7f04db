//! Putting new addresses and ports into a packet, with every checksum kept right (A7).

use super::checksum;
use super::packet::{Packet, TransportFix};
use super::parse::{Met, Part, Wire, join_ports};
use super::sctp;
use crate::abi::{FlowEntry, protocol};

/// Rewrites `packet` as `entry` says; of a later fragment only the addresses change.
///
/// `None`: the packet could not be reached, and may be half written; drop it.
#[inline(always)]
pub fn rewrite<W: Wire, P: Packet>(
    packet: &mut P,
    met: &Met<W::Addr>,
    entry: &FlowEntry<W::Addr>,
) -> Option<()> {
    let key = &met.key;
    if met.fragment.part != Part::Later {
        if met.checksum != 0 {
            let length = (met.end - met.transport) as u32;
            let fix = TransportFix {
                addr_delta: entry.addr_delta,
                port_delta: entry.port_delta,
                pseudo_header: checksum::pseudo_header(key.src, key.dst, key.protocol, length),
                start: met.transport,
                end: met.end,
                udp: key.protocol == protocol::UDP,
                ipv6: W::IS_V6,
            };
            packet.fix_transport_checksum(met.checksum, &fix)?;
        } else if key.protocol == protocol::SCTP {
            sctp::fix_checksum(packet, met, entry.sport_be, entry.dport_be)?;
        }
        packet.set_words(met.transport, [join_ports(entry.sport_be, entry.dport_be)])?;
    }
    W::set_addresses(packet, met.offset, entry.src, entry.dst, entry.addr_delta)
}
