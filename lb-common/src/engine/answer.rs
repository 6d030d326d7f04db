//! Answers in place of a backend: RST, port unreachable, echo reply (V1, V5, C7).
//!
//! The answer is made of the very packet: it is cut down, turned around and left to the hook to send back the way it
//! came. What must not be answered is refused, and then dropped by the hook: resets, later fragments, and anything from
//! or to an address that is not one host's (RFC 9293 section 3.10.7.1, RFC 1122 section 3.2.2, RFC 4443 section 2.4).

use super::packet::Packet;
use super::parse::{self, Ip, Part, V4, V6, Wire, tcp_flag};
use super::{checksum, icmp};
use crate::abi::protocol;
use crate::family::{V4Addr, V6Addr};
use crate::reason::{Class, Reason};

/// A packet whose length can change.
pub trait Resize: Packet {
    /// Cuts the packet off behind its first `len` bytes, which it has.
    fn truncate(&mut self, len: usize) -> Option<()>;

    /// Puts `n` bytes in front of the packet, whatever is in them.
    fn push_front(&mut self, n: usize) -> Option<()>;
}

/// Marks a packet that XDP leaves for tc to answer: first word of its metadata, the [`Reason`]'s number is the second.
pub const NOTE_MAGIC: u32 = u32::from_be_bytes(*b"lbAn");

/// TTL or hop limit of answers (RFC 1700's default).
const TTL: u32 = 64;
/// Bytes quoted at the most, a multiple of 4. The longest IPv4 header and eight bytes are 68; of IPv6, 80 bytes of
/// extension headers fit.
const MAX_QUOTE: usize = 128;
/// Length of a TCP header without options.
const TCP_LEN: usize = 20;
/// Length of an ICMP header.
const ICMP_LEN: usize = 8;

/// Header of an answer.
#[derive(Debug)]
pub struct Header<A> {
    offset: usize,
    transport: usize,
    end: usize,
    src: A,
    dst: A,
    protocol: u8,
}

impl<A: Copy> Header<A> {
    /// Back to where a packet came from, with the header in the same place.
    #[inline(always)]
    fn back(ip: &Ip<A>, end: usize) -> Self {
        let Ip { offset, transport, protocol, .. } = *ip;
        Self { offset, transport, end, src: ip.dst, dst: ip.src, protocol }
    }
}

/// A family as answers need it.
pub trait AnswerWire: Wire {
    /// Length of a header without options.
    const LEN: usize;
    /// Type and code of "port unreachable" (RFC 792; RFC 4443 section 3.1).
    const PORT_UNREACHABLE: [u8; 2];
    /// Type of an echo reply.
    const ECHO_REPLY: u8;

    /// Whether an address is one host's, beyond this link.
    fn is_unicast(addr: Self::Addr) -> bool;

    /// Writes a header. What lies between it and the transport header is made harmless (IPv4) or kept (IPv6).
    fn write_header<P: Packet>(packet: &mut P, header: &Header<Self::Addr>) -> Option<()>;
}

impl AnswerWire for V4 {
    const LEN: usize = 20;
    const PORT_UNREACHABLE: [u8; 2] = [3, 3];
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn is_unicast(addr: V4Addr) -> bool {
        // 0/8 is this network, 127/8 this host, 224/3 multicast, reserved and broadcast (RFC 6890).
        let first = u32::from_be(addr) >> 24;
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn write_header<P: Packet>(packet: &mut P, header: &Header<V4Addr>) -> Option<()> {
        /// Options made of "no operation" (RFC 791 section 3.1): a recorded route must not travel back as if it were ours.
        const NO_OPERATIONS: u32 = 0x0101_0101;
        const DONT_FRAGMENT: u32 = 0x4000;
        let words = ((header.transport - header.offset) / 4) as u32;
        let mut new = [
            (4 << 28 | words << 24 | (header.end - header.offset) as u32).to_be(),
            DONT_FRAGMENT.to_be(),
            (TTL << 24 | u32::from(header.protocol) << 16).to_be(),
            header.src,
            header.dst,
        ];
        let mut sum = sum_of(new);
        // An IHL of 15 is 40 bytes of options. Forgotten as in `sum_between`.
        let end = packet.forget(header.transport);
        for i in 0..10 {
            let at = header.offset + 20 + i * 4;
            if at >= end {
                break;
            }
            packet.set_words(at, [NO_OPERATIONS])?;
            sum += u64::from(NO_OPERATIONS);
        }
        new[2] |= u32::from(u16::from_be(!checksum::fold(sum))).to_be();
        packet.set_words(header.offset, new)
    }
}

impl AnswerWire for V6 {
    const LEN: usize = 40;
    const PORT_UNREACHABLE: [u8; 2] = [1, 4];
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn is_unicast(addr: V6Addr) -> bool {
        // ff00::/8 is multicast; :: is nobody, ::1 this host (RFC 4291 section 2.4).
        let low = addr[0] | addr[1] | addr[2];
        u32::from_be(addr[0]) >> 24 != 0xff && (low != 0 || u32::from_be(addr[3]) > 1)
    }

    #[inline(always)]
    fn write_header<P: Packet>(packet: &mut P, header: &Header<V6Addr>) -> Option<()> {
        const NEXT_HEADER: usize = 6;
        let payload = header.offset + Self::LEN;
        let next = if header.transport == payload {
            header.protocol
        } else {
            packet.byte(header.offset + NEXT_HEADER)?
        };
        let (s, d) = (header.src, header.dst);
        let second = ((header.end - payload) as u32) << 16 | u32::from(next) << 8 | TTL;
        let new = [(6u32 << 28).to_be(), second.to_be(), s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]];
        packet.set_words(header.offset, new)
    }
}

#[inline(always)]
fn sum_of<const N: usize>(words: [u32; N]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(word);
    }
    sum
}

/// Sum of the words from `from` up to `to`, at most [`MAX_QUOTE`] bytes.
#[inline(always)]
fn sum_between<P: Packet>(packet: &P, from: usize, to: usize) -> Option<u64> {
    let mut sum = 0;
    // Forgotten, or the compiler sees that the second condition suffices, and the verifier then sees no end.
    let to = packet.forget(to);
    for i in 0..MAX_QUOTE / 4 {
        let at = from + i * 4;
        if at >= to {
            break;
        }
        sum += u64::from(packet.words::<1>(at)?[0]);
    }
    Some(packet.forget(sum as usize) as u64)
}

/// Turns `packet` into the answer that `reason`, of class [`Class::Answered`], asks for.
///
/// `None`: this packet gets no answer. It may be half written; drop it.
pub fn answer<P: Resize>(packet: &mut P, reason: Reason) -> Option<()> {
    if reason.class() != Class::Answered {
        return None;
    }
    let ping = reason == Reason::Ping;
    match parse::link(packet)? {
        (parse::ETHERTYPE_IPV4, offset) => answer_ip::<V4, P>(packet, offset, ping),
        (parse::ETHERTYPE_IPV6, offset) => answer_ip::<V6, P>(packet, offset, ping),
        _ => None,
    }
}

/// [`answer`] for a packet whose network header is at `offset`: an echo reply if `ping`, else a rejection.
#[inline(always)]
pub fn answer_ip<W: AnswerWire, P: Resize>(packet: &mut P, offset: usize, ping: bool) -> Option<()> {
    let ip = W::parse(packet, offset, true).ok()?;
    let to_group = packet.byte(0)? & 1 != 0;
    let later = ip.fragment.part == Part::Later;
    if to_group || later || !W::is_unicast(ip.src) || !W::is_unicast(ip.dst) {
        return None;
    }
    match ip.protocol {
        protocol::TCP => reset::<W, P>(packet, &ip),
        protocol::UDP | protocol::SCTP => unreachable_port::<W, P>(packet, &ip),
        other if other == W::ICMP && ping => echo::<W, P>(packet, &ip),
        _ => None,
    }
}

/// Swaps the link addresses (IEEE 802.3: destination first, six bytes each). Tags and EtherType stay.
#[inline(always)]
fn turn_link<P: Packet>(packet: &mut P, at: usize) -> Option<()> {
    let [a, b, c] = packet.words::<3>(at)?.map(u32::from_be);
    let turned = [b << 16 | c >> 16, c << 16 | a >> 16, a << 16 | b >> 16];
    packet.set_words(0, turned.map(u32::to_be))
}

/// RST (RFC 9293 section 3.10.7.1, state CLOSED).
///
/// The TCP header stays where it was, because the device that is still to complete the checksum of a
/// `CHECKSUM_PARTIAL` packet has been told the place: such a packet's answer is of the same kind.
#[inline(always)]
fn reset<W: AnswerWire, P: Resize>(packet: &mut P, ip: &Ip<W::Addr>) -> Option<()> {
    let at = ip.transport;
    // IPv6: what says "fragment" stays in the packet.
    if ip.fragment.part != Part::Whole || at + TCP_LEN > ip.end || !packet.ensure(at + TCP_LEN) {
        return None;
    }
    let [ports, seq_be, ack_be, bits_be, field] = packet.words::<5>(at)?;
    let bits = u32::from_be(bits_be);
    let flags = (bits >> 16) as u8;
    if flags & tcp_flag::RST != 0 {
        return None;
    }
    let length = (ip.end - at) as u32;
    let (seq_be, ack_be, flags) = if flags & tcp_flag::ACK != 0 {
        (ack_be, 0, tcp_flag::RST)
    } else {
        // A header that claims more than there is makes nonsense of the numbers, and of the sender's use for them.
        let occupied = length
            .wrapping_sub((bits >> 28) * 4)
            .wrapping_add(u32::from(flags & tcp_flag::SYN != 0))
            .wrapping_add(u32::from(flags & tcp_flag::FIN != 0));
        (0, u32::from_be(seq_be).wrapping_add(occupied).to_be(), tcp_flag::RST | tcp_flag::ACK)
    };
    let bits = (TCP_LEN as u32 / 4) << 28 | u32::from(flags) << 16;
    let mut new = [ports.rotate_left(16), seq_be, ack_be, bits.to_be(), 0];
    let pseudo_header = checksum::pseudo_header(ip.dst, ip.src, protocol::TCP, TCP_LEN as u32);
    // The checksum is the first half of its word.
    let partial = first_half(field) == checksum::pseudo_header(ip.src, ip.dst, protocol::TCP, length);
    let field = if partial { pseudo_header } else { !checksum::fold(u64::from(pseudo_header) + sum_of(new)) };
    new[4] = (u32::from(u16::from_be(field)) << 16).to_be();

    let end = at + TCP_LEN;
    packet.truncate(end)?;
    if !packet.ensure(end) {
        return None;
    }
    packet.set_words(at, new)?;
    W::write_header(packet, &Header::back(ip, end))?;
    turn_link(packet, 0)
}

/// The first two bytes of four, all as they lie in the packet.
#[inline(always)]
fn first_half(word: u32) -> u16 {
    ((u32::from_be(word) >> 16) as u16).to_be()
}

/// ICMP "port unreachable", from the address dialled to who dialled it, quoting the packet (RFC 792, RFC 4443).
#[inline(always)]
fn unreachable_port<W: AnswerWire, P: Resize>(packet: &mut P, ip: &Ip<W::Addr>) -> Option<()> {
    // Whole words, which makes summing simple; what must be quoted is a multiple of 4 as well.
    let quote = (ip.end - ip.offset).min(MAX_QUOTE) & !3;
    let at = ip.transport;
    if at + 8 > ip.offset + quote || !packet.ensure(at + 8) {
        return None;
    }
    let length = (ip.end - at) as u32;
    let partial = ip.protocol == protocol::UDP
        && packet.half(at + 6)? == checksum::pseudo_header(ip.src, ip.dst, protocol::UDP, length);

    let added = W::LEN + ICMP_LEN;
    packet.truncate(ip.offset + quote)?;
    packet.push_front(added)?;
    let icmp = ip.offset + W::LEN;
    let quoted = packet.forget(ip.offset + added);
    let udp = packet.forget(at + added);
    let end = packet.forget(quoted + quote);
    if !packet.ensure(end) {
        return None;
    }
    // Link header: EtherTypes and tags move to the front, addresses turned around.
    for i in 0..(parse::MAX_LINK_LEN - 12) / 2 {
        let from = added + 12 + i * 2;
        if from >= quoted {
            break;
        }
        let half = packet.half(from)?;
        packet.set_half(12 + i * 2, half)?;
    }
    turn_link(packet, added)?;

    let header =
        Header { offset: ip.offset, transport: icmp, end, src: ip.dst, dst: ip.src, protocol: W::ICMP };
    W::write_header(packet, &header)?;
    let mut sum = sum_between(packet, quoted, udp)?;
    let old = packet.half(udp + 6)?;
    let rest = sum_between(packet, udp, end)?;
    if partial {
        // The device will sum everything from the UDP header to the end of the packet and put the complement into the
        // quoted checksum field, although that is only a quotation here; our checksum over it has to hold
        // before and after. So the field gets the one value X that this leaves as it is: X = !(X + S), S being the sum
        // of the rest. In one's-complement arithmetic, modulo 0xffff, this is X = -S / 2, and halving is a
        // rotation by one bit. Of the two zeros it is 0xffff, as the kernel writes it (`CSUM_MANGLED_0`).
        let others = checksum::fold(u64::from(checksum::fold(rest)) + u64::from(!old));
        let half = (!others).rotate_right(1);
        let field = if half == 0 { 0xffff } else { half };
        packet.set_half(udp + 6, field)?;
        sum += u64::from(others) + u64::from(field);
    } else {
        sum += rest;
    }
    let [message, code] = W::PORT_UNREACHABLE;
    let first = u32::from_be_bytes([message, code, 0, 0]);
    sum += u64::from(first.to_be());
    if W::IS_V6 {
        let length = (end - icmp) as u32;
        sum += u64::from(checksum::pseudo_header(ip.dst, ip.src, W::ICMP, length));
    }
    let field = u32::from(u16::from_be(!checksum::fold(sum)));
    packet.set_words(icmp, [(first | field).to_be(), 0])
}

/// Echo reply (RFC 792, RFC 4443 section 4.2): the request with addresses and type changed.
#[inline(always)]
fn echo<W: AnswerWire, P: Packet>(packet: &mut P, ip: &Ip<W::Addr>) -> Option<()> {
    let at = ip.transport;
    if ip.fragment.part != Part::Whole || at + ICMP_LEN > ip.end || !packet.ensure(at + ICMP_LEN) {
        return None;
    }
    if !icmp::is_echo_request(ip.protocol, packet.byte(at)?) {
        return None;
    }
    let old = packet.half(at)?;
    let new = (u16::from_be(old) & 0xff | u16::from(W::ECHO_REPLY) << 8).to_be();
    packet.set_half(at, new)?;
    let field = packet.half(at + 2)?;
    packet.set_half(at + 2, checksum::update(field, checksum::half_delta([old, 0], [new, 0])))?;
    W::write_header(packet, &Header::back(ip, ip.end))?;
    turn_link(packet, 0)
}
