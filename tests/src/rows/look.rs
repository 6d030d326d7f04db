//! Reading frames, independent of the engine: what property tests check what came out with.

use std::net::IpAddr;

use super::net::At;
use super::sums;

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Source, port 0 unless there is one.
    pub src: At,
    /// Destination, port 0 unless there is one.
    pub dst: At,
    /// Transport protocol.
    pub protocol: u8,
    /// Where the network header begins.
    pub network: usize,
    /// Where the transport header begins.
    pub transport: usize,
    /// Where the packet ends.
    pub end: usize,
    /// A part of a datagram only; the first part has ports.
    pub fragment: bool,
}

fn half(frame: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?)))
}

/// Reads a frame; `None`: it is no whole TCP, UDP, SCTP or ICMP packet, or fragment of one.
pub fn look(frame: &[u8]) -> Option<Look> {
    let mut network = 14;
    while matches!(half(frame, network - 2)?, 0x8100 | 0x88a8) {
        network += 4;
    }
    let ip = frame.get(network..)?;
    let (mut fragment, mut later) = (false, false);
    let (src, dst, protocol, header_len, len);
    match half(frame, network - 2)? {
        0x0800 => {
            header_len = usize::from(ip.first()? & 0xf) * 4;
            len = half(ip, 2)?;
            fragment |= half(ip, 6)? & 0x3fff != 0;
            later |= half(ip, 6)? & 0x1fff != 0;
            let addr = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
            (src, dst, protocol) = (addr(12)?, addr(16)?, *ip.get(9)?);
        }
        0x86dd => {
            len = 40 + half(ip, 4)?;
            let addr = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
            let (mut next, mut at) = (*ip.get(6)?, 40);
            while let 0 | 43 | 44 | 51 | 60 = next {
                let length = usize::from(*ip.get(at + 1)?);
                let step = match next {
                    44 => {
                        fragment |= half(ip, at + 2)? & 0xfff9 != 0;
                        later |= half(ip, at + 2)? & 0xfff8 != 0;
                        8
                    }
                    51 => (length + 2) * 4,
                    _ => (length + 1) * 8,
                };
                next = *ip.get(at)?;
                at += step;
            }
            header_len = at;
            (src, dst, protocol) = (addr(8)?, addr(24)?, next);
        }
        _ => return None,
    }
    let (transport, end) = (network + header_len, network + len);
    if !matches!(protocol, 1 | 6 | 17 | 58 | 132) || transport > end || end > frame.len() {
        return None;
    }
    let ports = if later || matches!(protocol, 1 | 58) {
        (0, 0)
    } else {
        (half(frame, transport)?, half(frame, transport + 2)?)
    };
    let (src, dst) = ((src, ports.0 as u16), (dst, ports.1 as u16));
    Some(Look { src, dst, protocol, network, transport, end, fragment })
}

/// Whether all checksums of a frame hold; a UDP checksum of zero does. Fragments have no transport checksum of their own.
pub fn checksums_hold(frame: &[u8]) -> Option<bool> {
    let look = look(frame)?;
    if frame[look.network] >> 4 == 4 {
        let header_len = usize::from(frame[look.network] & 0xf) * 4;
        if sums::sum(&[&frame[look.network..look.network + header_len]]) != 0xffff {
            return Some(false);
        }
    }
    if look.fragment {
        return Some(true);
    }
    let upper = &frame[look.transport..look.end];
    Some(match look.protocol {
        132 => {
            let mut bytes = upper.to_vec();
            let field: [u8; 4] = bytes.get(8..12)?.try_into().ok()?;
            bytes[8..12].fill(0);
            sums::crc32c(&bytes) == u32::from_le_bytes(field)
        }
        17 if half(upper, 6)? == 0 => true,
        1 => sums::sum(&[upper]) == 0xffff,
        _ => sums::sum(&[&pseudo_header(&look), upper]) == 0xffff,
    })
}

fn pseudo_header(look: &Look) -> Vec<u8> {
    sums::pseudo_header(look.src.0, look.dst.0, look.protocol, look.end - look.transport)
}

/// Whether the transport checksum could be a partial one: once in 65,536 packets a complete one looks the same, and where
/// nothing else tells, it is taken for one.
pub fn seems_partial(frame: &[u8]) -> bool {
    let Some(look) = look(frame) else { return false };
    let field = match look.protocol {
        6 => 16,
        17 => 6,
        _ => return false,
    };
    half(frame, look.transport + field) == Some(usize::from(sums::sum(&[&pseudo_header(&look)])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::cases;
    use crate::rows::packet::Checksum;
    use crate::rows::row::{Conn, Say};
    use lb_userspace::model::desired::Protocol;

    fn conn(protocol: Protocol) -> Conn {
        let client = ("fd00::1".parse().unwrap(), 1000);
        Conn { protocol, client, frontend: ("fd00::2".parse().unwrap(), 80), backend: client, seen: client }
    }

    #[test]
    fn right_checksums_hold_and_wrong_ones_do_not() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let packet = conn(protocol).request(Say::Data).tag(0x8100, 1).extension(60, &[0; 8]);
            let mut frame = packet.frame();
            assert_eq!(checksums_hold(&frame), Some(true), "{protocol}");
            let last = frame.len() - 1;
            frame[last] ^= 1;
            assert_eq!(checksums_hold(&frame), Some(false), "{protocol}");
        }
        let partial = conn(Protocol::Tcp).request(Say::Data).checksum(Checksum::Partial).frame();
        assert_eq!(checksums_hold(&partial), Some(false));
        assert!(seems_partial(&partial));
    }

    /// The packets of the rows agree with etherparse about what a packet is.
    #[test]
    fn packets_of_rows_are_what_etherparse_takes_them_for() {
        use crate::rows::row::Step;
        use etherparse::{NetSlice, SlicedPacket, TransportSlice};
        let mut compared = 0;
        for row in cases::all() {
            for step in &row.steps {
                let Step::Packet(given) = step else { continue };
                let (Some(look), Ok(sliced)) =
                    (look(&given.frame), SlicedPacket::from_ethernet(&given.frame))
                else {
                    continue;
                };
                let addrs = match &sliced.net {
                    Some(NetSlice::Ipv4(ip)) => {
                        let header = ip.header();
                        assert_eq!(
                            header.header_checksum(),
                            header.to_header().calc_header_checksum(),
                            "{row}: header checksum"
                        );
                        (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()))
                    }
                    Some(NetSlice::Ipv6(ip)) => {
                        (IpAddr::V6(ip.header().source_addr()), IpAddr::V6(ip.header().destination_addr()))
                    }
                    _ => continue,
                };
                assert_eq!(addrs, (look.src.0, look.dst.0), "{row}");
                let ports = match &sliced.transport {
                    Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
                    Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
                    _ => continue,
                };
                assert_eq!(ports, (look.src.1, look.dst.1), "{row}");
                compared += 1;
            }
        }
        assert!(compared > 1000, "{compared} packets compared");
    }
}
