//! Forwarding in the host's stead (direct forwarding): what a route is looked up by, and what a hop changes (A8).
//!
//! The hook looks the route up and hands the packet over. Whatever is out of the ordinary is left to the host, which
//! knows how to answer it: no time left, headers that routers look at, addresses that do not leave their link.

use super::checksum;
use super::packet::Packet;
use super::parse::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, V4, V6, Wire, extension};
use crate::abi::protocol;
use crate::family::Address;

/// Hardware addresses as they lie in front of a packet: destination, then source.
pub type MacPair = [u32; 3];

/// What a route is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// IPv4: the TOS byte. IPv6: traffic class and flow label, in network byte order.
    pub class: u32,
    /// Bytes of the packet from its network header on; of the longest packet it will be cut into.
    pub len: u16,
    /// What follows the network header: a protocol, or an IPv6 extension header.
    pub protocol: u8,
    /// Source and destination port, as they lie in the packet; zero where there are none in the usual place.
    pub ports: u32,
}

/// A family as forwarding needs it.
pub trait Forward: Wire {
    /// EtherType.
    const ETHERTYPE: u16;

    /// What to look up for the packet, whose network header lies behind an Ethernet header without tags. `segment`: payload
    /// of each packet that the device is to cut this one into, 0 = it stays in one piece.
    ///
    /// `None`: leave it to the host.
    fn lookup<P: Packet>(packet: &mut P, segment: u32) -> Option<Lookup<Self::Addr>>;

    /// Whether the transport checksum of the packet, for which [`Forward::lookup`] gave `wanted`, is complete. One complete
    /// checksum in 65,536 looks as if it were not; none that is not looks as if it were.
    ///
    /// A device that hands packets over where they came from a socket's buffer may do so before their checksum is
    /// finished (`CHECKSUM_PARTIAL`): it then holds the pseudo header's sum, and who finishes it is noted beside the packet.
    /// At XDP that note is lost with a redirect.
    fn is_complete<P: Packet>(packet: &P, wanted: &Lookup<Self::Addr>) -> Option<bool>;

    /// Counts the hop.
    fn count_hop<P: Packet>(packet: &mut P) -> Option<()>;
}

/// The family of a packet behind an Ethernet header without tags: whether it is IPv6. `None`: something else.
#[inline(always)]
pub fn is_v6<P: Packet>(packet: &P) -> Option<bool> {
    match u16::from_be(packet.half(12)?) {
        ETHERTYPE_IPV4 => Some(false),
        ETHERTYPE_IPV6 => Some(true),
        _ => None,
    }
}

/// The hardware address that a packet is for.
#[inline(always)]
pub fn destination<P: Packet>(packet: &P) -> Option<[u8; 6]> {
    let [a, b, c] = [packet.half(0)?, packet.half(2)?, packet.half(4)?].map(u16::to_ne_bytes);
    Some([a[0], a[1], b[0], b[1], c[0], c[1]])
}

/// Counts the hop, and puts new hardware addresses in front.
///
/// `None`: the packet could not be reached; nothing has changed.
#[inline(always)]
pub fn hop<F: Forward, P: Packet>(packet: &mut P, macs: Option<MacPair>) -> Option<()> {
    F::count_hop(packet)?;
    match macs {
        Some(macs) => packet.set_words(0, macs),
        None => Some(()),
    }
}

/// Ports, and the length of the transport header where the payload is to be cut.
#[inline(always)]
fn transport<P: Packet>(packet: &mut P, protocol: u8, at: usize, segment: u32) -> Option<(u32, u32)> {
    let least = match protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        // Where the others are cut is not in the packet.
        _ => return if segment == 0 { Some((0, 0)) } else { None },
    };
    if !packet.ensure(at + least) {
        return None;
    }
    let ports = packet.words::<1>(at)?[0];
    let len = match protocol {
        protocol::TCP => u32::from(packet.byte(at + 12)? >> 4) * 4,
        _ => 8,
    };
    Some((ports, len))
}

/// [`Forward::is_complete`], for what follows a network header of `header` bytes.
#[inline(always)]
fn transport_is_complete<A: Address, P: Packet>(
    packet: &P,
    header: usize,
    wanted: &Lookup<A>,
) -> Option<bool> {
    let at = ETHERNET_LEN + header;
    let len = u32::from(wanted.len).wrapping_sub(header as u32);
    let field = match wanted.protocol {
        protocol::TCP => packet.half(at + 16)?,
        protocol::UDP => packet.half(at + 6)?,
        // Zero until a device has worked it out.
        protocol::SCTP => return Some(packet.words::<1>(at + 8)? != [0]),
        // What the kernel finishes itself.
        protocol::ICMP | protocol::ICMPV6 | extension::FRAGMENT => return Some(true),
        _ => return None,
    };
    Some(field != checksum::pseudo_header(wanted.src, wanted.dst, wanted.protocol, len))
}

#[inline(always)]
fn longest(network: u32, transport: u32, segment: u32, whole: u32) -> Option<u16> {
    let longest = if segment == 0 { whole } else { network + transport + segment };
    u16::try_from(longest).ok()
}

impl Forward for V4 {
    const ETHERTYPE: u16 = ETHERTYPE_IPV4;

    #[inline(always)]
    fn lookup<P: Packet>(packet: &mut P, segment: u32) -> Option<Lookup<u32>> {
        const LEN: usize = 20;
        if !packet.ensure(ETHERNET_LEN + LEN) {
            return None;
        }
        let words = packet.words::<5>(ETHERNET_LEN)?;
        let (first, second, third) = (u32::from_be(words[0]), u32::from_be(words[1]), u32::from_be(words[2]));
        // Options may have routers do something (RFC 791 section 3.1).
        if first >> 24 != 0x45 || third >> 24 <= 1 {
            return None;
        }
        let protocol = (third >> 16) as u8;
        let later_fragment = second & 0x1fff != 0;
        let (ports, header) = if later_fragment && segment == 0 {
            (0, 0)
        } else {
            transport(packet, protocol, ETHERNET_LEN + LEN, segment)?
        };
        Some(Lookup {
            src: words[3],
            dst: words[4],
            class: (first >> 16) & 0xff,
            len: longest(LEN as u32, header, segment, first & 0xffff)?,
            protocol,
            ports,
        })
    }

    #[inline(always)]
    fn is_complete<P: Packet>(packet: &P, wanted: &Lookup<u32>) -> Option<bool> {
        const LEN: usize = 20;
        // Fragments are cut from a finished packet.
        if u16::from_be(packet.half(ETHERNET_LEN + 6)?) & 0x3fff != 0 {
            return Some(true);
        }
        transport_is_complete(packet, LEN, wanted)
    }

    #[inline(always)]
    fn count_hop<P: Packet>(packet: &mut P) -> Option<()> {
        let (at, field_at) = (ETHERNET_LEN + 8, ETHERNET_LEN + 10);
        let (old, field) = (packet.half(at)?, packet.half(field_at)?);
        let new = (u16::from_be(old) - 0x100).to_be();
        let delta = checksum::half_delta([old, 0], [new, 0]);
        packet.set_half(at, new)?;
        packet.set_half(field_at, checksum::update(field, delta))
    }
}

impl Forward for V6 {
    const ETHERTYPE: u16 = ETHERTYPE_IPV6;

    #[inline(always)]
    fn lookup<P: Packet>(packet: &mut P, segment: u32) -> Option<Lookup<[u32; 4]>> {
        const LEN: usize = 40;
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        if !packet.ensure(ETHERNET_LEN + LEN) {
            return None;
        }
        let w = packet.words::<10>(ETHERNET_LEN)?;
        let (first, second) = (u32::from_be(w[0]), u32::from_be(w[1]));
        let protocol = (second >> 8) as u8;
        // fe80::/10 stays on its link (RFC 4291 section 2.5.6).
        let link_local = u32::from_be(w[2]) >> 22 == 0xfe80 >> 6 || u32::from_be(w[6]) >> 22 == 0xfe80 >> 6;
        if link_local || second & 0xff <= 1 || matches!(protocol, HOP_BY_HOP | ROUTING) {
            return None;
        }
        let (ports, header) = transport(packet, protocol, ETHERNET_LEN + LEN, segment)?;
        Some(Lookup {
            src: [w[2], w[3], w[4], w[5]],
            dst: [w[6], w[7], w[8], w[9]],
            class: (first & 0x0fff_ffff).to_be(),
            len: longest(LEN as u32, header, segment, LEN as u32 + (second >> 16))?,
            protocol,
            ports,
        })
    }

    #[inline(always)]
    fn is_complete<P: Packet>(packet: &P, wanted: &Lookup<[u32; 4]>) -> Option<bool> {
        const LEN: usize = 40;
        transport_is_complete(packet, LEN, wanted)
    }

    #[inline(always)]
    fn count_hop<P: Packet>(packet: &mut P) -> Option<()> {
        // Next header, then hop limit.
        let old = u16::from_be(packet.half(ETHERNET_LEN + 6)?);
        packet.set_half(ETHERNET_LEN + 6, (old - 1).to_be())
    }
}
