//! Answers as whole packets, against packets that etherparse builds and sums.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber,
    Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, icmpv4, icmpv6,
};
use lb_common::engine::answer::answer;
use lb_common::memory::MemoryPacket;
use lb_common::reason::Reason;
use proptest::prelude::*;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const CLIENT_V4: [u8; 4] = [10, 1, 2, 3];
const VIP_V4: [u8; 4] = [10, 96, 0, 10];
const CLIENT_V6: [u8; 16] = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 3).octets();
const VIP_V6: [u8; 16] = Ipv6Addr::new(0xfd00, 96, 0, 0, 0, 0, 0, 10).octets();
const EMPTY: Reason = Reason::RejectedNoBackend;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}
use Family::{V4, V6};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    There,
    Back,
}
use Way::{Back, There};

fn link(way: Way, tags: &[[u8; 4]], family: Family) -> Vec<u8> {
    let (source, destination) = if way == There { (CLIENT_MAC, NODE_MAC) } else { (NODE_MAC, CLIENT_MAC) };
    let mut bytes = [destination, source].concat();
    bytes.extend(tags.concat());
    bytes.extend(if family == V4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    bytes
}

fn v4_header(way: Way, protocol: IpNumber, payload: usize) -> Ipv4Header {
    let (source, destination) = if way == There { (CLIENT_V4, VIP_V4) } else { (VIP_V4, CLIENT_V4) };
    Ipv4Header::new(payload as u16, 64, protocol, source, destination).unwrap()
}

fn v6_header(way: Way, protocol: IpNumber, payload: usize) -> Ipv6Header {
    let (source, destination) = if way == There { (CLIENT_V6, VIP_V6) } else { (VIP_V6, CLIENT_V6) };
    Ipv6Header {
        payload_length: payload as u16,
        next_header: protocol,
        hop_limit: 64,
        source,
        destination,
        ..Default::default()
    }
}

/// The network header that a client sends: with a few things in it that an answer must not have.
fn ip(family: Family, way: Way, protocol: IpNumber, payload: usize) -> Vec<u8> {
    match family {
        V4 => {
            let mut header = v4_header(way, protocol, payload);
            if way == There {
                header.dscp = 10.try_into().unwrap();
                header.identification = 777;
                header.time_to_live = 17;
            }
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        V6 => {
            let mut header = v6_header(way, protocol, payload);
            if way == There {
                header.traffic_class = 0x28;
                header.flow_label = 0x12345.try_into().unwrap();
                header.hop_limit = 17;
            }
            header.to_bytes().to_vec()
        }
    }
}

fn tcp(family: Family, way: Way, mut header: TcpHeader, payload: &[u8]) -> Vec<u8> {
    header.checksum = match family {
        V4 => header.calc_checksum_ipv4(&v4_header(way, IpNumber::TCP, 0), payload),
        V6 => header.calc_checksum_ipv6(&v6_header(way, IpNumber::TCP, 0), payload),
    }
    .unwrap();
    let mut bytes = ip(family, way, IpNumber::TCP, header.header_len() + payload.len());
    bytes.extend(header.to_bytes());
    bytes.extend(payload);
    bytes
}

fn udp(family: Family, payload: &[u8]) -> Vec<u8> {
    let header = match family {
        V4 => UdpHeader::with_ipv4_checksum(4000, 53, &v4_header(There, IpNumber::UDP, 0), payload),
        V6 => UdpHeader::with_ipv6_checksum(4000, 53, &v6_header(There, IpNumber::UDP, 0), payload),
    }
    .unwrap();
    let mut bytes = ip(family, There, IpNumber::UDP, 8 + payload.len());
    bytes.extend(header.to_bytes());
    bytes.extend(payload);
    bytes
}

fn icmp_number(family: Family) -> IpNumber {
    if family == V4 { IpNumber::ICMP } else { IpNumber::IPV6_ICMP }
}

/// ICMP "port unreachable" with this quotation.
fn unreachable(family: Family, quote: &[u8]) -> Vec<u8> {
    let header = match family {
        V4 => {
            let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
            Icmpv4Header::with_checksum(kind, quote).to_bytes().to_vec()
        }
        V6 => {
            let kind = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
            Icmpv6Header::with_checksum(kind, VIP_V6, CLIENT_V6, quote).unwrap().to_bytes().to_vec()
        }
    };
    let mut bytes = ip(family, Back, icmp_number(family), header.len() + quote.len());
    bytes.extend(header);
    bytes.extend(quote);
    bytes
}

fn echo(family: Family, way: Way, payload: &[u8]) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: 99, seq: 7 };
    let header = match family {
        V4 => {
            let kind = if way == There { Icmpv4Type::EchoRequest(echo) } else { Icmpv4Type::EchoReply(echo) };
            Icmpv4Header::with_checksum(kind, payload).to_bytes().to_vec()
        }
        V6 => {
            let kind = if way == There { Icmpv6Type::EchoRequest(echo) } else { Icmpv6Type::EchoReply(echo) };
            Icmpv6Header::with_checksum(kind, CLIENT_V6, VIP_V6, payload).unwrap().to_bytes().to_vec()
        }
    };
    let mut bytes = ip(family, way, icmp_number(family), header.len() + payload.len());
    bytes.extend(header);
    bytes.extend(payload);
    bytes
}

fn frame(family: Family, way: Way, tags: &[[u8; 4]], ip: Vec<u8>) -> Vec<u8> {
    [link(way, tags, family), ip].concat()
}

fn answered(frame: Vec<u8>, reason: Reason) -> Option<Vec<u8>> {
    let mut packet = MemoryPacket(frame);
    answer(&mut packet, reason)?;
    Some(packet.0)
}

/// RFC 1071, a byte at a time.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for (i, byte) in bytes.iter().enumerate() {
        sum += u32::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What a device makes of a `CHECKSUM_PARTIAL` packet: sums from `start` to the end, the complement goes to `field`.
fn complete(packet: &mut [u8], start: usize, field: usize) {
    let value = !sum(&packet[start..]);
    let value = if value == 0 { 0xffff } else { value };
    packet[field..field + 2].copy_from_slice(&value.to_be_bytes());
}

/// Folded sum of the pseudo header of the two addresses.
fn pseudo_sum(family: Family, protocol: u8, length: usize) -> [u8; 2] {
    let mut bytes = match family {
        V4 => [CLIENT_V4, VIP_V4].concat(),
        V6 => [CLIENT_V6, VIP_V6].concat(),
    };
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, protocol]);
    sum(&bytes).to_be_bytes()
}

const TAGS: [&[[u8; 4]]; 3] = [&[], &[[0x81, 0, 0, 5]], &[[0x88, 0xa8, 0, 9], [0x81, 0, 0x20, 5]]];

fn expected_rst(seq: u32, ack: Option<u32>) -> TcpHeader {
    let mut header = TcpHeader::new(80, 4000, seq, 0);
    header.rst = true;
    header.ack = ack.is_some();
    header.acknowledgment_number = ack.unwrap_or(0);
    header
}

#[test]
fn v1_a_syn_is_answered_by_rst_ack() {
    for (family, tags) in [V4, V6].into_iter().flat_map(|family| TAGS.map(|tags| (family, tags))) {
        let mut syn = TcpHeader::new(4000, 80, 0xffff_ffff, 64240);
        syn.syn = true;
        syn.set_options_raw(&[2, 4, 5, 0xb4, 4, 2, 1, 1]).unwrap();
        let sent = frame(family, There, tags, tcp(family, There, syn, &[]));
        // 0xffffffff + 1 for SYN wraps to 0.
        let expected = frame(family, Back, tags, tcp(family, Back, expected_rst(0, Some(0)), &[]));
        assert_eq!(answered(sent.clone(), EMPTY), Some(expected.clone()), "{family:?} {tags:?}");
        // Padding of short frames does not count.
        assert_eq!(answered([sent, vec![0; 9]].concat(), EMPTY), Some(expected));
    }
}

#[test]
fn c7_a_segment_with_ack_is_answered_by_rst_in_its_sequence() {
    for family in [V4, V6] {
        let mut data = TcpHeader::new(4000, 80, 1000, 64240);
        data.ack = true;
        data.psh = true;
        data.acknowledgment_number = 0x8765_4321;
        let sent = frame(family, There, &[], tcp(family, There, data, b"GET / HTTP/1.1\r\n\r"));
        let expected = frame(family, Back, &[], tcp(family, Back, expected_rst(0x8765_4321, None), &[]));
        assert_eq!(answered(sent, Reason::ResetMidFlow), Some(expected), "{family:?}");
    }
}

#[test]
fn data_and_fin_without_ack_are_acknowledged() {
    for family in [V4, V6] {
        let mut data = TcpHeader::new(4000, 80, 1000, 64240);
        data.fin = true;
        let sent = frame(family, There, &[], tcp(family, There, data, &[7; 33]));
        let rst = expected_rst(0, Some(1000 + 33 + 1));
        let expected = frame(family, Back, &[], tcp(family, Back, rst, &[]));
        assert_eq!(answered(sent, Reason::ResetMidFlow), Some(expected), "{family:?}");
    }
}

#[test]
fn ipv4_options_become_no_operations() {
    let mut syn = TcpHeader::new(4000, 80, 1, 64240);
    syn.syn = true;
    for words in 1..=10u8 {
        let plain = tcp(V4, There, syn.clone(), &[]);
        let mut header = v4_header(There, IpNumber::TCP, 20 + usize::from(words) * 4);
        // A recorded route (RFC 791).
        let mut options = vec![7, words * 4, 4];
        options.resize(usize::from(words) * 4, 0);
        header.options = options.as_slice().try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        let sent = [header.to_bytes().to_vec(), plain[20..].to_vec()].concat();

        let back = tcp(V4, Back, expected_rst(0, Some(2)), &[]);
        let mut header = v4_header(Back, IpNumber::TCP, 20 + options.len());
        header.dont_fragment = true;
        header.options = vec![1; options.len()].as_slice().try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        let expected = [header.to_bytes().to_vec(), back[20..].to_vec()].concat();
        let sent = frame(V4, There, &[], sent);
        assert_eq!(answered(sent, EMPTY), Some(frame(V4, Back, &[], expected)), "{words} words");
    }
}

#[test]
fn ipv6_extension_headers_stay_in_front_of_the_rst() {
    let mut syn = TcpHeader::new(4000, 80, 1, 64240);
    syn.syn = true;
    // Destination options: PadN of four bytes, then TCP.
    let extension = [6, 0, 1, 4, 0, 0, 0, 0];
    let with_extension = |plain: Vec<u8>| {
        let mut bytes = plain.clone();
        bytes[6] = 60;
        bytes[4..6].copy_from_slice(&(plain.len() as u16 - 40 + 8).to_be_bytes());
        bytes.splice(40..40, extension);
        bytes
    };
    let sent = frame(V6, There, &[], with_extension(tcp(V6, There, syn, &[])));
    let expected = with_extension(tcp(V6, Back, expected_rst(0, Some(2)), &[]));
    assert_eq!(answered(sent, EMPTY), Some(frame(V6, Back, &[], expected)));
}

#[test]
fn v1_udp_is_answered_by_port_unreachable_quoting_it() {
    let cases = [V4, V6].into_iter().flat_map(|family| TAGS.map(|tags| (family, tags)));
    for (family, tags) in cases {
        for length in [0, 1, 2, 3, 4, 60, 79, 80, 99, 100, 101, 1400] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let sent = udp(family, &payload);
            // Whole words, at most 128 bytes.
            let quote = &sent[..sent.len().min(128) / 4 * 4];
            let expected = frame(family, Back, tags, unreachable(family, quote));
            let sent = frame(family, There, tags, sent.clone());
            assert_eq!(answered(sent, Reason::RejectedPort), Some(expected), "{family:?} {tags:?} {length}");
        }
    }
}

#[test]
fn sctp_is_answered_by_port_unreachable() {
    for family in [V4, V6] {
        // Ports, tag, checksum; INIT chunk.
        let sctp = [0x0f, 0xa0, 0, 80, 0, 0, 0, 0, 1, 2, 3, 4, 1, 0, 0, 4];
        let sent = [ip(family, There, IpNumber::SCTP, sctp.len()), sctp.to_vec()].concat();
        let expected = frame(family, Back, &[], unreachable(family, &sent));
        assert_eq!(answered(frame(family, There, &[], sent), EMPTY), Some(expected), "{family:?}");
    }
}

#[test]
fn v5_a_ping_is_answered() {
    let cases = [V4, V6].into_iter().flat_map(|family| TAGS.map(|tags| (family, tags)));
    for (family, tags) in cases {
        for length in [0, 1, 56, 1400] {
            let payload = vec![0xa5; length];
            let sent = frame(family, There, tags, echo(family, There, &payload));
            let expected = frame(family, Back, tags, echo(family, Back, &payload));
            assert_eq!(answered(sent, Reason::Ping), Some(expected), "{family:?} {tags:?} {length}");
        }
    }
}

#[test]
fn what_must_not_be_answered_is_not() {
    let mut syn = TcpHeader::new(4000, 80, 1, 64240);
    syn.syn = true;
    let mut rst = TcpHeader::new(4000, 80, 1, 0);
    rst.rst = true;
    let v4_syn = frame(V4, There, &[], tcp(V4, There, syn.clone(), &[]));
    let v6_udp = frame(V6, There, &[], udp(V6, b"x"));
    let with = |frame: &[u8], at: usize, bytes: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let (source_v4, source_v6, destination_v6) = (14 + 12, 14 + 8, 14 + 24);
    let cases = [
        ("reset", frame(V4, There, &[], tcp(V4, There, rst, &[]))),
        ("link broadcast", with(&v4_syn, 0, &[0xff; 6])),
        ("from multicast", with(&v4_syn, source_v4, &Ipv4Addr::new(224, 0, 0, 1).octets())),
        ("from broadcast", with(&v4_syn, source_v4, &[255; 4])),
        ("from nobody", with(&v4_syn, source_v4, &[0; 4])),
        ("from loopback", with(&v4_syn, source_v4, &[127, 0, 0, 1])),
        ("later fragment", with(&v4_syn, 14 + 6, &[0x20, 1])),
        ("from nobody, v6", with(&v6_udp, source_v6, &[0; 16])),
        ("from loopback, v6", with(&v6_udp, source_v6, &Ipv6Addr::LOCALHOST.octets())),
        ("from multicast, v6", with(&v6_udp, source_v6, &[0xff; 16])),
        ("to multicast, v6", with(&v6_udp, destination_v6, &[0xff; 16])),
        ("ICMP that is no ping", with(&frame(V4, There, &[], echo(V4, There, &[])), 14 + 20, &[3])),
        ("cut short", v4_syn[..40].to_vec()),
    ];
    for (name, frame) in cases {
        for reason in [EMPTY, Reason::RejectedPort, Reason::ResetMidFlow, Reason::Ping] {
            assert_eq!(answered(frame.clone(), reason), None, "{name}, {reason:?}");
        }
    }
    for reason in Reason::ALL.iter().filter(|reason| **reason as u8 / 8 != 2) {
        assert_eq!(answered(v4_syn.clone(), *reason), None, "{reason:?} asks for no answer");
    }
    assert!(answered(v4_syn, EMPTY).is_some() && answered(v6_udp, EMPTY).is_some());
}

#[test]
fn an_answer_to_an_unfinished_tcp_checksum_is_unfinished_too() {
    for family in [V4, V6] {
        let mut data = TcpHeader::new(4000, 80, 1000, 64240);
        data.ack = true;
        let at = if family == V4 { 34 } else { 54 };
        let mut sent = frame(family, There, &[], tcp(family, There, data, &[3; 77]));
        sent[at + 16..at + 18].copy_from_slice(&pseudo_sum(family, 6, 20 + 77));
        let mut answer = answered(sent, Reason::ResetMidFlow).unwrap();
        assert_eq!(answer[at + 16..at + 18], pseudo_sum(family, 6, 20));
        complete(&mut answer, at, at + 16);
        assert_eq!(answer, frame(family, Back, &[], tcp(family, Back, expected_rst(0, None), &[])));
    }
}

proptest! {
    /// The ICMP checksum holds whether or not a device writes to the quoted UDP checksum.
    #[test]
    fn an_unfinished_udp_checksum_in_the_quotation_does_no_harm(
        v6: bool,
        payload in prop::collection::vec(any::<u8>(), 0..200),
        tags in 0..3usize,
    ) {
        let family = if v6 { V6 } else { V4 };
        let mut bytes = udp(family, &payload);
        let udp_at = bytes.len() - payload.len() - 8;
        bytes[udp_at + 6..udp_at + 8].copy_from_slice(&pseudo_sum(family, 17, 8 + payload.len()));
        let offset = 14 + 4 * tags;
        let quoted_at = offset + if v6 { 48 } else { 28 };
        let before = answered(frame(family, There, TAGS[tags], bytes), EMPTY).unwrap();
        let mut after = before.clone();
        complete(&mut after, quoted_at + udp_at, quoted_at + udp_at + 6);
        prop_assert_eq!(&after, &before);
        let quote = after[quoted_at..].to_vec();
        prop_assert_eq!(after, frame(family, Back, TAGS[tags], unreachable(family, &quote)));
    }

    /// Whatever comes: no panic, and no answer longer than the quotation allows.
    #[test]
    fn any_bytes_are_survived(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in 0..4usize,
        protocol in prop::sample::select(vec![1u8, 6, 17, 58, 132, 0, 44, 60]),
    ) {
        if bytes.len() > 40 {
            let v4 = kind % 2 == 0;
            bytes[12..14].copy_from_slice(if v4 { &[8, 0] } else { &[0x86, 0xdd] });
            bytes[14] = if v4 { 0x45 + bytes[14] % 4 } else { 0x60 };
            let length = (bytes.len() - 14) as u16;
            if v4 {
                bytes[16..18].copy_from_slice(&length.to_be_bytes());
                bytes[23] = protocol;
            } else {
                bytes[18..20].copy_from_slice(&length.saturating_sub(40).to_be_bytes());
                bytes[20] = protocol;
            }
        }
        let reason = [EMPTY, Reason::RejectedPort, Reason::ResetMidFlow, Reason::Ping][kind];
        let length = bytes.len();
        if let Some(answer) = answered(bytes, reason) {
            prop_assert!(answer.len() <= length + 48);
        }
    }
}

/// The tests rest on this: what etherparse reads is what was meant.
#[test]
fn frames_are_what_they_seem() {
    let sent = frame(V4, There, &[], udp(V4, b"x"));
    let (link, rest) = Ethernet2Header::from_slice(&sent).unwrap();
    assert_eq!((link.source, link.destination), (CLIENT_MAC, NODE_MAC));
    let (ip, rest) = Ipv4Header::from_slice(rest).unwrap();
    assert_eq!((ip.source, ip.destination, ip.time_to_live), (CLIENT_V4, VIP_V4, 17));
    let (udp, rest) = UdpHeader::from_slice(rest).unwrap();
    assert_eq!((udp.destination_port, rest), (53, &b"x"[..]));
}
