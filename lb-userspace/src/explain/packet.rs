//! Makes the first packet of a connection, and reads what became of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use etherparse::icmpv4::DestUnreachableHeader as V4Unreachable;
use etherparse::icmpv6::DestUnreachableCode as V6Unreachable;
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, LaxNetSlice, LaxSlicedPacket, PacketBuilder, TransportSlice,
};
use serde::{Serialize, Serializer};

use crate::model::desired::Protocol;

/// Link addresses of the packet; locally administered.
const LINK: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
/// TTL of what ordinary senders send.
const TTL: u8 = 64;

/// What kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a transport protocol that Services have.
    Transport(Protocol),
    /// ICMP echo request.
    Ping,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(protocol) => protocol.fmt(f),
            Self::Ping => f.pad("ICMP"),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One end of a packet; prints as `address:port`, or as the address when there is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The port; ICMP has none.
    pub port: Option<u16>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => f.pad(&std::net::SocketAddr::new(self.address, port).to_string()),
            None => f.pad(&self.address.to_string()),
        }
    }
}

/// The addresses and ports of a packet; prints as `source -> destination`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Headers {
    /// Where it comes from.
    pub source: End,
    /// Where it goes.
    pub destination: End,
}

impl fmt::Display for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)
    }
}

/// A packet to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) headers: Headers,
    pub(super) kind: Kind,
    /// TCP: from the middle of a connection instead of its first.
    pub(super) mid_flow: bool,
    /// Cut off behind so many bytes.
    pub(super) cut: Option<usize>,
}

impl Packet {
    /// Its bytes, from the Ethernet header on.
    ///
    /// # Errors
    /// When source and destination are of different families.
    pub(super) fn frame(&self) -> anyhow::Result<Vec<u8>> {
        let (from, to) = (self.headers.source, self.headers.destination);
        let (sport, dport) = (from.port.unwrap_or(0), to.port.unwrap_or(0));
        let link = PacketBuilder::ethernet2(LINK.0, LINK.1);
        let (ip, v4) = match (from.address, to.address) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (link.ipv4(from.octets(), to.octets(), TTL), true),
            (IpAddr::V6(from), IpAddr::V6(to)) => (link.ipv6(from.octets(), to.octets(), TTL), false),
            (from, to) => anyhow::bail!("{from} and {to} are addresses of different families"),
        };
        let mut bytes = Vec::new();
        let written = match self.kind {
            Kind::Transport(Protocol::Tcp) if self.mid_flow => {
                ip.tcp(sport, dport, 1, 1024).ack(1).write(&mut bytes, &[])
            }
            Kind::Transport(Protocol::Tcp) => ip.tcp(sport, dport, 1, 1024).syn().write(&mut bytes, &[]),
            Kind::Transport(Protocol::Udp) => ip.udp(sport, dport).write(&mut bytes, b"lb explain"),
            Kind::Transport(Protocol::Sctp) => {
                // RFC 9260 sections 3.1 and 3.3.2: ports, verification tag 0, a checksum left to the device, and the
                // header of an INIT chunk.
                let mut header = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                header.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4]);
                ip.write(&mut bytes, IpNumber::SCTP, &header)
            }
            Kind::Ping if v4 => ip.icmpv4_echo_request(1, 1).write(&mut bytes, b"lb explain"),
            Kind::Ping => ip.icmpv6_echo_request(1, 1).write(&mut bytes, b"lb explain"),
        };
        written.context("cannot make the packet")?;
        if let Some(cut) = self.cut {
            bytes.truncate(cut);
        }
        Ok(bytes)
    }
}

/// Where a packet comes from and goes to; `None` when it is too short to say.
pub(super) fn headers(frame: &[u8]) -> Option<Headers> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (from, to, payload) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (
            IpAddr::V4(Ipv4Addr::from(ip.header().source())),
            IpAddr::V4(Ipv4Addr::from(ip.header().destination())),
            ip.payload(),
        ),
        LaxNetSlice::Ipv6(ip) => (
            IpAddr::V6(Ipv6Addr::from(ip.header().source())),
            IpAddr::V6(Ipv6Addr::from(ip.header().destination())),
            ip.payload(),
        ),
        _ => return None,
    };
    let has_ports = matches!(payload.ip_number, IpNumber::TCP | IpNumber::UDP | IpNumber::SCTP);
    let port = |at: usize| {
        let bytes = payload.payload.get(at..at + 2).filter(|_| has_ports)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    Some(Headers {
        source: End { address: from, port: port(0) },
        destination: End { address: to, port: port(2) },
    })
}

/// What an answer is called.
pub(super) fn answer_name(frame: &[u8]) -> &'static str {
    let transport = LaxSlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.transport);
    match transport {
        Some(TransportSlice::Tcp(tcp)) if tcp.rst() => "TCP RST",
        Some(TransportSlice::Icmpv4(icmp)) => match icmp.icmp_type() {
            Icmpv4Type::EchoReply(_) => "ICMP echo reply",
            Icmpv4Type::DestinationUnreachable(V4Unreachable::Port) => "ICMP port unreachable",
            _ => "ICMP",
        },
        Some(TransportSlice::Icmpv6(icmp)) => match icmp.icmp_type() {
            Icmpv6Type::EchoReply(_) => "ICMPv6 echo reply",
            Icmpv6Type::DestinationUnreachable(V6Unreachable::Port) => "ICMPv6 port unreachable",
            _ => "ICMPv6",
        },
        _ => "an answer",
    }
}
