//! From link layer to ports (RFC 791, RFC 8200, IEEE 802.1Q/802.1ad).

use super::packet::Packet;
use crate::abi::{FlowKey, protocol};
use crate::family::{Address, V4Addr, V6Addr};
use crate::reason::Reason;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Length of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Two tags, one in the other (A6).
const MAX_VLAN_TAGS: usize = 2;
/// Length of the longest link header: a network header is never further in.
pub const MAX_LINK_LEN: usize = ETHERNET_LEN + MAX_VLAN_TAGS * 4;
/// Extension headers walked before giving up: RFC 8200 section 4.1 lists seven, each once.
const MAX_EXTENSION_HEADERS: usize = 8;
/// Transport headers further in than this are not looked at: keeps every offset small for the verifier.
pub const MAX_TRANSPORT_OFFSET: usize = 512;

/// IPv6 extension headers (RFC 8200 section 4, RFC 4302).
pub(super) mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(in crate::engine) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
}

/// Finds the network header: (EtherType, offset), or `None` for a frame shorter than its link header.
#[inline(always)]
pub fn link<P: Packet>(packet: &mut P) -> Option<(u16, usize)> {
    if !packet.ensure(ETHERNET_LEN) {
        return None;
    }
    let mut ethertype = u16::from_be(packet.half(12)?);
    let mut offset = ETHERNET_LEN;
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        if !packet.ensure(offset + 4) {
            return None;
        }
        ethertype = u16::from_be(packet.half(offset + 2)?);
        offset += 4;
    }
    Some((ethertype, packet.forget(offset)))
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Not fragmented.
    Whole,
    /// The first fragment, which has the ports.
    First,
    /// A later fragment.
    Later,
}

/// Fragmentation (A5). Not an enum with the number inside: where it would not be set it would be copied nevertheless, and
/// verifiers before kernel 6.3 refuse programs that read stack they have not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which part.
    pub part: Part,
    /// The datagram's identification; of no meaning when it is whole.
    pub id: u32,
}

impl Fragment {
    /// Not fragmented.
    pub const WHOLE: Self = Self { part: Part::Whole, id: 0 };
}

/// What the network header says.
#[derive(Clone, Copy, Debug)]
pub struct Ip<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Transport protocol.
    pub protocol: u8,
    /// Offset of the network header.
    pub offset: usize,
    /// Offset of the transport header.
    pub transport: usize,
    /// Offset behind the last byte the network header declares.
    pub end: usize,
    /// Fragmentation.
    pub fragment: Fragment,
}

/// A family as the engine needs it.
pub trait Wire {
    /// Its addresses.
    type Addr: Address;
    /// Its ICMP.
    const ICMP: u8;
    /// IPv6.
    const IS_V6: bool;

    /// Reads the network header at `offset`.
    ///
    /// With `whole` false the packet may be cut short (it is quoted in an ICMP error).
    ///
    /// # Errors
    /// The reason to pass the packet untouched.
    fn parse<P: Packet>(packet: &mut P, offset: usize, whole: bool) -> Result<Ip<Self::Addr>, Reason>;

    /// Writes both addresses, and keeps the header's own checksum right by `delta`.
    fn set_addresses<P: Packet>(
        packet: &mut P,
        offset: usize,
        src: Self::Addr,
        dst: Self::Addr,
        delta: u16,
    ) -> Option<()>;
}

/// IPv4.
#[derive(Debug)]
pub struct V4;
/// IPv6.
#[derive(Debug)]
pub struct V6;

impl Wire for V4 {
    type Addr = V4Addr;
    const ICMP: u8 = protocol::ICMP;
    const IS_V6: bool = false;

    #[inline(always)]
    fn parse<P: Packet>(packet: &mut P, offset: usize, whole: bool) -> Result<Ip<V4Addr>, Reason> {
        const MIN_LEN: usize = 20;
        if !packet.ensure(offset + MIN_LEN) {
            return Err(Reason::Malformed);
        }
        let words = packet.words::<5>(offset).ok_or(Reason::Malformed)?;
        let first = u32::from_be(words[0]);
        let header_len = ((first >> 24) & 0xf) as usize * 4;
        if first >> 28 != 4 || header_len < MIN_LEN {
            return Err(Reason::Malformed);
        }
        let mut total_len = (first & 0xffff) as usize;
        if total_len == 0 && packet.len() > 0xffff {
            // BIG TCP inside the host: the length does not fit and is left zero.
            total_len = packet.len() - offset;
        }
        if total_len < header_len || (whole && !packet.holds(offset + total_len)) {
            return Err(Reason::Malformed);
        }
        let second = u32::from_be(words[1]);
        let id = second >> 16;
        let part = match (second & 0x1fff, second & 0x2000) {
            (0, 0) => Part::Whole,
            (0, _) => Part::First,
            _ => Part::Later,
        };
        let fragment = Fragment { part, id };
        Ok(Ip {
            src: words[3],
            dst: words[4],
            protocol: ((u32::from_be(words[2]) >> 16) & 0xff) as u8,
            offset,
            transport: offset + header_len,
            end: offset + total_len,
            fragment,
        })
    }

    #[inline(always)]
    fn set_addresses<P: Packet>(packet: &mut P, offset: usize, src: u32, dst: u32, delta: u16) -> Option<()> {
        let field = packet.half(offset + 10)?;
        packet.set_half(offset + 10, super::checksum::update(field, delta))?;
        packet.set_words(offset + 12, [src, dst])
    }
}

impl Wire for V6 {
    type Addr = V6Addr;
    const ICMP: u8 = protocol::ICMPV6;
    const IS_V6: bool = true;

    #[inline(always)]
    fn parse<P: Packet>(packet: &mut P, offset: usize, whole: bool) -> Result<Ip<V6Addr>, Reason> {
        const LEN: usize = 40;
        if !packet.ensure(offset + LEN) {
            return Err(Reason::Malformed);
        }
        let w = packet.words::<10>(offset).ok_or(Reason::Malformed)?;
        if u32::from_be(w[0]) >> 28 != 6 {
            return Err(Reason::Malformed);
        }
        let second = u32::from_be(w[1]);
        let mut end = offset + LEN + (second >> 16) as usize;
        if second >> 16 == 0 && packet.len() > 0xffff {
            end = packet.len();
        }
        if whole && !packet.holds(end) {
            return Err(Reason::Malformed);
        }
        let mut next = ((second >> 8) & 0xff) as u8;
        let mut transport = offset + LEN;
        let mut fragment = Fragment::WHOLE;
        if !matches!(next, protocol::TCP | protocol::UDP) {
            (next, transport, fragment) = walk_extensions(packet, next, transport, end)?;
        }
        Ok(Ip {
            src: [w[2], w[3], w[4], w[5]],
            dst: [w[6], w[7], w[8], w[9]],
            protocol: next,
            offset,
            transport: packet.forget(transport),
            end,
            fragment,
        })
    }

    #[inline(always)]
    fn set_addresses<P: Packet>(
        packet: &mut P,
        offset: usize,
        src: V6Addr,
        dst: V6Addr,
        _delta: u16,
    ) -> Option<()> {
        packet.set_words(offset + 8, [src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3]])
    }
}

/// Walks IPv6 extension headers (A6): (transport protocol, its offset, fragmentation).
#[inline(always)]
fn walk_extensions<P: Packet>(
    packet: &mut P,
    mut next: u8,
    mut offset: usize,
    end: usize,
) -> Result<(u8, usize, Fragment), Reason> {
    let mut fragment = Fragment::WHOLE;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !matches!(
            next,
            extension::HOP_BY_HOP
                | extension::ROUTING
                | extension::DESTINATION
                | extension::AUTHENTICATION
                | extension::FRAGMENT
        ) {
            return Ok((next, offset, fragment));
        }
        if offset + 8 > end || !packet.ensure(offset + 8) {
            return Err(Reason::Malformed);
        }
        let words = packet.words::<2>(offset).ok_or(Reason::Malformed)?;
        let first = u32::from_be(words[0]);
        let length = ((first >> 16) & 0xff) as usize;
        offset += match next {
            extension::FRAGMENT => {
                // Offset in units of 8 bytes in the upper 13 bits, "more" in the lowest (RFC 8200 section 4.5).
                let id = words[1];
                match (first & 0xfff8, first & 1) {
                    (0, 0) => {}
                    (0, _) => fragment = Fragment { part: Part::First, id },
                    _ => fragment = Fragment { part: Part::Later, id },
                }
                8
            }
            extension::AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = (first >> 24) as u8;
        if offset > MAX_TRANSPORT_OFFSET {
            return Err(Reason::HeadersTooLong);
        }
        if offset > end {
            return Err(Reason::Malformed);
        }
        if fragment.part == Part::Later {
            // What follows is data of the datagram, not a header.
            return Ok((next, offset, fragment));
        }
    }
    Err(Reason::HeadersTooLong)
}

/// What the engine needs of a transport header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transport {
    /// Source port.
    pub sport_be: u16,
    /// Destination port.
    pub dport_be: u16,
    /// TCP flags, bits of [`tcp_flag`]; SCTP chunk types are mapped onto them.
    pub flags: u8,
    /// Offset of the checksum field, 0 = none to keep right.
    pub checksum: usize,
}

/// A packet as it was met: its flow key, and where its parts are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Met<A> {
    /// Addresses, ports and protocol.
    pub key: FlowKey<A>,
    /// Offset of the network header.
    pub offset: usize,
    /// Offset of the transport header.
    pub transport: usize,
    /// Offset behind the last byte the network header declares.
    pub end: usize,
    /// Offset of the transport checksum, 0 = none to keep right.
    pub checksum: usize,
    /// Fragmentation.
    pub fragment: Fragment,
    /// As in [`Transport::flags`].
    pub flags: u8,
}

impl<A: Address> Met<A> {
    /// What the network header says; no ports yet.
    #[inline(always)]
    pub fn new(ip: &Ip<A>) -> Self {
        Self {
            key: FlowKey {
                src: ip.src,
                dst: ip.dst,
                sport_be: 0,
                dport_be: 0,
                protocol: ip.protocol,
                _pad: 0,
                _pad2: 0,
            },
            offset: ip.offset,
            transport: ip.transport,
            end: ip.end,
            checksum: 0,
            fragment: ip.fragment,
            flags: 0,
        }
    }

    /// Adds what the transport header says.
    #[inline(always)]
    pub fn set_transport(&mut self, transport: Transport) {
        self.key.sport_be = transport.sport_be;
        self.key.dport_be = transport.dport_be;
        self.checksum = transport.checksum;
        self.flags = transport.flags;
    }

    /// Bytes the network header declares, itself included.
    #[inline(always)]
    pub fn network_bytes(&self) -> u64 {
        (self.end - self.offset) as u64
    }
}

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp_flag {
    /// Last data from the sender.
    pub const FIN: u8 = 0x01;
    /// First packet of a connection.
    pub const SYN: u8 = 0x02;
    /// Connection is void.
    pub const RST: u8 = 0x04;
    /// Acknowledges something.
    pub const ACK: u8 = 0x10;
}

/// SCTP chunk types (RFC 9260 section 3.2).
mod sctp_chunk {
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const SHUTDOWN_ACK: u8 = 8;
}

/// Splits a word with both ports, as it lies in the packet.
#[inline(always)]
pub fn split_ports(word: u32) -> (u16, u16) {
    let word = u32::from_be(word);
    (((word >> 16) as u16).to_be(), (word as u16).to_be())
}

/// The inverse of [`split_ports`].
#[inline(always)]
pub fn join_ports(sport_be: u16, dport_be: u16) -> u32 {
    ((u32::from(u16::from_be(sport_be)) << 16) | u32::from(u16::from_be(dport_be))).to_be()
}

/// Reads the transport header of a packet that has one (`Whole` or `First`).
///
/// # Errors
/// The reason to pass the packet untouched.
#[inline(always)]
pub fn transport<P: Packet, A: Address>(packet: &mut P, ip: &Ip<A>) -> Result<Transport, Reason> {
    let at = ip.transport;
    let min_len = match ip.protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        protocol::SCTP => 12,
        _ => return Err(Reason::OtherProtocol),
    };
    if at + min_len > ip.end || !packet.ensure(at + min_len) {
        return Err(Reason::Malformed);
    }
    let (sport_be, dport_be) = split_ports(packet.words::<1>(at).ok_or(Reason::Malformed)?[0]);
    let mut transport = Transport { sport_be, dport_be, flags: 0, checksum: 0 };
    match ip.protocol {
        protocol::TCP => {
            let half = u16::from_be(packet.half(at + 12).ok_or(Reason::Malformed)?);
            let header_len = usize::from(half >> 12) * 4;
            if header_len < min_len || (at + header_len > ip.end && ip.fragment.part == Part::Whole) {
                return Err(Reason::Malformed);
            }
            transport.flags = half as u8;
            transport.checksum = at + 16;
        }
        protocol::UDP => {
            let length = usize::from(u16::from_be(packet.half(at + 4).ok_or(Reason::Malformed)?));
            // 0 = as long as the network layer says (RFC 2675 section 4, and GSO inside the host).
            let too_long = at + length > ip.end && ip.fragment.part == Part::Whole;
            if length != 0 && (length < min_len || too_long) {
                return Err(Reason::Malformed);
            }
            transport.checksum = at + 6;
        }
        _ => {
            if at + 16 <= ip.end && packet.ensure(at + 16) {
                transport.flags = match packet.byte(at + 12).ok_or(Reason::Malformed)? {
                    sctp_chunk::INIT => tcp_flag::SYN,
                    sctp_chunk::INIT_ACK => tcp_flag::SYN | tcp_flag::ACK,
                    sctp_chunk::ABORT => tcp_flag::RST,
                    sctp_chunk::SHUTDOWN | sctp_chunk::SHUTDOWN_ACK => tcp_flag::FIN | tcp_flag::ACK,
                    _ => tcp_flag::ACK,
                };
            }
        }
    }
    Ok(transport)
}
