//! Probes: first packets, and how they look when they are forwarded.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, PacketBuilder};
use lb_tests::rows::net::Net;
use lb_tests::rows::sums;

use super::world::{PORTS, PUBLIC, SERVICES, node_port, vip};

/// What sort of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    /// TCP, SYN.
    Syn,
    /// TCP, in the middle of a connection that nobody knows.
    Ack,
    /// TCP, RST of such a one.
    Rst,
    /// UDP.
    Datagram,
    /// SCTP.
    Init,
    /// ICMP echo request.
    Echo,
}

const MESSAGES: [Message; 5] = [Message::Syn, Message::Ack, Message::Rst, Message::Datagram, Message::Init];

/// A first packet; its source port is not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Probe {
    pub(crate) net: Net,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
    pub(crate) message: Message,
    /// Over an interface marked external.
    pub(crate) external: bool,
}

/// All probes that there are, the same for every world.
pub(crate) fn all() -> Vec<Probe> {
    let mut probes = Vec::new();
    for net in Net::BOTH {
        let inside = [net.client(1), net.pod(1), net.pod(2), net.node(), net.node_second()];
        let outside = [net.outside(1), net.public(1), net.outside(1), net.client(1)];
        let sources = inside
            .map(|from| (from, false))
            .into_iter()
            .chain(outside.into_iter().zip([false, false, true, true]));
        let vips = (0..SERVICES).map(|number| net.vip(vip(number))).chain([net.vip(99)]);
        let frontends = vips.chain((1..=PUBLIC).map(|n| net.public(n)));
        let mut targets: Vec<(IpAddr, u16)> =
            frontends.flat_map(|to| PORTS.into_iter().chain([8080]).map(move |port| (to, port))).collect();
        let node_ports = (0..SERVICES).flat_map(|service| (0..3).map(move |port| node_port(service, port)));
        let node_ports: Vec<u16> = node_ports.chain([80]).collect();
        let nodes = [net.node(), net.node_second()];
        targets.extend(nodes.into_iter().flat_map(|to| node_ports.iter().map(move |port| (to, *port))));
        targets.extend([(net.pod(3), 80), (net.public(1), node_port(0, 0)), (net.vip(10), node_port(0, 0))]);
        for (from, external) in sources {
            for &(to, port) in &targets {
                let probe = |message| Probe { net, from, to, port, message, external };
                probes.extend(MESSAGES.map(probe));
                // Once for each address.
                if port == PORTS[0] {
                    probes.push(probe(Message::Echo));
                }
            }
        }
    }
    probes
}

impl Probe {
    /// The packet, from this port.
    pub(crate) fn frame(&self, source_port: u16) -> Vec<u8> {
        self.between(SocketAddr::new(self.from, source_port), SocketAddr::new(self.to, self.port))
    }

    /// The packet as it is between these two.
    pub(crate) fn between(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
            (from, to) => panic!("{from} and {to} are of two families"),
        };
        let mut bytes = Vec::new();
        let tcp = |ip: etherparse::PacketBuilderStep<_>| ip.tcp(from.port(), to.port(), 1, 1024);
        let written = match self.message {
            Message::Syn => tcp(ip).syn().write(&mut bytes, &[]),
            Message::Ack => tcp(ip).ack(7).write(&mut bytes, b"data"),
            Message::Rst => tcp(ip).rst().write(&mut bytes, &[]),
            Message::Datagram => ip.udp(from.port(), to.port()).write(&mut bytes, b"probe"),
            Message::Echo if self.net == Net::V4 => {
                ip.icmpv4_echo_request(from.port(), 1).write(&mut bytes, b"ping")
            }
            Message::Echo => ip.icmpv6_echo_request(from.port(), 1).write(&mut bytes, b"ping"),
            Message::Init => {
                // Ports, verification tag, checksum, and an INIT chunk's header.
                let mut header = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
                header.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4]);
                let sum = sums::crc32c(&header).to_le_bytes();
                header[8..12].copy_from_slice(&sum);
                ip.write(&mut bytes, IpNumber::SCTP, &header)
            }
        };
        written.expect("a vector takes all bytes");
        bytes
    }

    /// Whether its checksum can be told from one that the device is to finish. XDP takes a field that equals the pseudo
    /// header's sum for such a one: one packet in 2^16.
    pub(crate) fn is_plain(&self, source_port: u16) -> bool {
        let frame = self.frame(source_port);
        let at = if self.net == Net::V4 { 34 } else { 54 };
        let (protocol, field) = match self.message {
            Message::Syn | Message::Ack | Message::Rst => (6, at + 16),
            Message::Datagram => (17, at + 6),
            Message::Init | Message::Echo => return true,
        };
        let pseudo = sums::pseudo_header(self.from, self.to, protocol, frame.len() - at);
        u16::from_be_bytes([frame[field], frame[field + 1]]) != sums::sum(&[&pseudo])
    }
}

/// Where a packet comes from and goes to, by its first bytes.
pub(crate) fn ends(net: Net, frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (addresses, size, ports) = match net {
        Net::V4 => (26, 4, 34),
        Net::V6 => (22, 16, 54),
    };
    let address = |at: usize| -> Option<IpAddr> {
        let bytes = frame.get(at..at + size)?;
        match net {
            Net::V4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
            Net::V6 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        }
    };
    let port = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    Some((
        SocketAddr::new(address(addresses)?, port(ports)?),
        SocketAddr::new(address(addresses + size)?, port(ports + 2)?),
    ))
}
