//! What really arrives: frames from a packet socket, their checksums computed anew.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_userspace::lab::netns::Namespace;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};

/// `PACKET_OUTGOING` of Linux' `if_packet.h`: a frame that the host itself sends.
const OUTGOING: u8 = 4;

/// A packet socket on all interfaces of a namespace.
#[derive(Debug)]
pub struct Capture(OwnedFd);

impl Capture {
    /// Begins to listen.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn start(namespace: &Namespace) -> Self {
        let open =
            || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll);
        Self(namespace.run(open).expect("to enter the namespace").expect("a packet socket"))
    }

    /// What has come in since the last call, own frames left out.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 70_000];
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Ok((length, from)) if from.is_some_and(|from| from.pkttype() != OUTGOING) => {
                    frames.push(buffer[..length].to_vec());
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => return frames,
                Err(error) => panic!("cannot receive from a packet socket: {error}"),
            }
        }
    }
}

/// What the transport checksum of a frame is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Right, as on a wire.
    Full,
    /// The sum of the pseudo header alone, for a device to complete (`CHECKSUM_PARTIAL`): right inside one machine.
    Partial,
    /// A UDP packet without one.
    Absent,
    /// Anything else.
    Wrong,
}

/// A TCP or UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Bytes behind the transport header.
    pub payload: usize,
    /// Whether the sum over the IPv4 header is right; true for IPv6, which has none.
    pub header_is_right: bool,
    /// The transport checksum.
    pub checksum: Checksum,
}

impl Seen {
    /// Reads a frame; `None` when it is neither TCP nor UDP.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (source, destination, header_is_right): (IpAddr, IpAddr, bool) = match packet.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                let right = header.calc_header_checksum() == header.header_checksum;
                (header.source.into(), header.destination.into(), right)
            }
            NetSlice::Ipv6(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into(), true)
            }
            NetSlice::Arp(_) => return None,
        };
        let (protocol, found, payload, segment): (u8, u16, usize, &[u8]) = match packet.transport.as_ref()? {
            TransportSlice::Tcp(tcp) => (6, tcp.checksum(), tcp.payload().len(), tcp.slice()),
            TransportSlice::Udp(udp) => (17, udp.checksum(), udp.payload().len(), udp.slice()),
            _ => return None,
        };
        let pseudo = pseudo_header(source, destination, protocol, segment.len());
        let checksum = if protocol == 17 && found == 0 {
            Checksum::Absent
        } else if fold(pseudo + sum(segment)) == 0xffff {
            Checksum::Full
        } else if found == fold(pseudo) {
            Checksum::Partial
        } else {
            Checksum::Wrong
        };
        Some(Self { source, destination, payload, header_is_right, checksum })
    }
}

/// Sum of the pseudo header, RFC 9293 section 3.1 and RFC 8200 section 8.1.
fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    address(source) + address(destination) + u64::from(protocol) + length as u64
}

/// Sum of 16-bit words, an odd byte at the end as if zero followed (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(word).sum()
}

/// Adds the carries.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn frame(v6: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if v6 {
            link.ipv6([0xfd; 16], [0xfe; 16], 64)
        } else {
            link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        };
        let mut frame = Vec::new();
        if tcp {
            ip.tcp(1000, 80, 1, 1000).write(&mut frame, payload).unwrap();
        } else {
            ip.udp(1000, 80).write(&mut frame, payload).unwrap();
        }
        frame
    }

    #[test]
    fn right_sums_are_told_from_partial_and_wrong_ones() {
        for (v6, tcp, payload) in
            [(false, false, &b"odd"[..]), (false, true, b"even"), (true, false, b""), (true, true, b"a")]
        {
            let mut frame = frame(v6, tcp, payload);
            let seen = Seen::of(&frame).unwrap();
            assert_eq!((seen.checksum, seen.header_is_right), (Checksum::Full, true), "{v6} {tcp}");
            assert_eq!(seen.payload, payload.len());
            let transport = if v6 { 54 } else { 34 };
            let field = transport + if tcp { 16 } else { 6 };
            frame[field] ^= 1;
            assert_eq!(Seen::of(&frame).unwrap().checksum, Checksum::Wrong);
            let protocol = if tcp { 6 } else { 17 };
            let length = frame.len() - transport;
            let partial = fold(pseudo_header(seen.source, seen.destination, protocol, length));
            frame[field..field + 2].copy_from_slice(&partial.to_be_bytes());
            assert_eq!(Seen::of(&frame).unwrap().checksum, Checksum::Partial);
            frame[field..field + 2].fill(0);
            assert_eq!(
                Seen::of(&frame).unwrap().checksum,
                if tcp { Checksum::Wrong } else { Checksum::Absent }
            );
            if !v6 {
                frame[24] ^= 1;
                assert!(!Seen::of(&frame).unwrap().header_is_right);
            }
        }
    }
}
