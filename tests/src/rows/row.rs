//! Rows: what happens, and what must come of it.

use std::fmt;

use lb_common::engine::Position;
use lb_common::reason::Reason;
use lb_userspace::model::desired::{Desired, Protocol, Surroundings};

use super::net::{At, Net, surroundings};
use super::packet::{Checksum, Packet, Upper};
use super::service::{Svc, TARGET_PORT};

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A packet comes.
    Packet(Box<Given>),
    /// Many packets come; each is to be met with `reason` and to come out as one of `outs`, and each of these as often as
    /// `times` says.
    Spread {
        /// The frames.
        frames: Vec<Vec<u8>>,
        /// What each is to come out as: the choices, in one order for all.
        outs: Vec<Vec<Vec<u8>>>,
        /// Least and most for each of the choices.
        times: Vec<(usize, usize)>,
        /// What is to become of each.
        reason: Reason,
    },
    /// The services and surroundings become these.
    Desired(Box<Desired>),
    /// Seconds pass.
    Advance(u32),
    /// All flow entries are lost.
    LoseFlows,
    /// The entry of packets like this one is evicted.
    Evict(Box<Packet>),
}

/// A packet and what must become of it.
#[derive(Clone, Debug)]
pub struct Given {
    /// The frame.
    pub frame: Vec<u8>,
    /// Where it is met.
    pub position: Position,
    /// The reason that must be given.
    pub reason: Reason,
    /// The frame that must come out, in case it is sent on: one of these. With several, the row is about which it is not.
    pub out: Vec<Vec<u8>>,
    /// The answer, in case it is to be answered; `None`: it gets none, and is dropped.
    pub answer: Option<Vec<u8>>,
    /// Its statistics.
    pub stats: Option<Direction>,
    /// Number of an earlier step's packet that must have come out with the same destination.
    pub like: Option<usize>,
}

/// How a forwarded packet counts for its backend: bytes that its network header declares.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// To the backend.
    To(At, u64),
    /// From the backend.
    From(At, u64),
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it shows; begins with the id of the rule.
    pub name: String,
    /// What happens.
    pub steps: Vec<Step>,
    /// Number and first of the source ports for flows that get one.
    pub snat_ports: (u16, u16),
    /// Backends that must have seen this many flows end.
    pub closed: Vec<(At, u64)>,
    /// Backends that must have this many flows open.
    pub open: Vec<(At, u64)>,
    /// Backends get numbers that others had, and the statistics begin anew with them: nothing is said about these.
    pub renumbered: bool,
    /// Only for bodies that are not told by the kernel which checksums are partial.
    pub keeps_partial: bool,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What a packet of a connection says, in terms of all three protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// SYN, INIT.
    Open,
    /// SYN and ACK, INIT ACK.
    Accept,
    /// Data.
    Data,
    /// FIN, SHUTDOWN.
    Fin,
    /// RST, ABORT.
    Reset,
}

impl Say {
    /// The transport header of a protocol that says so.
    pub fn upper(self, protocol: Protocol) -> Upper {
        match protocol {
            Protocol::Tcp => Upper::Tcp {
                flags: match self {
                    Self::Open => 0x02,
                    Self::Accept => 0x12,
                    Self::Data => 0x18,
                    Self::Fin => 0x11,
                    Self::Reset => 0x04,
                },
                numbers: [0x0123_4567, 0x89ab_cdef],
                window: 0xfaf0,
                options: Vec::new(),
            },
            Protocol::Udp => Upper::Udp,
            Protocol::Sctp => Upper::Sctp(Some(match self {
                Self::Open => 1,
                Self::Accept => 2,
                Self::Data => 0,
                Self::Fin => 7,
                Self::Reset => 6,
            })),
        }
    }
}

/// A connection as its four ends see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    /// TCP, UDP, SCTP.
    pub protocol: Protocol,
    /// Who calls.
    pub client: At,
    /// Whom it calls.
    pub frontend: At,
    /// Who answers.
    pub backend: At,
    /// Whom the backend sees: the client, unless masqueraded.
    pub seen: At,
}

impl Conn {
    fn packet(&self, src: At, dst: At, say: Say) -> Packet {
        Packet::new(src, dst, say.upper(self.protocol)).payload(*b"said")
    }

    /// From the client, as it comes.
    pub fn request(&self, say: Say) -> Packet {
        self.packet(self.client, self.frontend, say)
    }

    /// From the client, as it leaves.
    pub fn forwarded(&self, say: Say) -> Packet {
        self.packet(self.seen, self.backend, say)
    }

    /// From the backend, as it comes.
    pub fn reply(&self, say: Say) -> Packet {
        self.packet(self.backend, self.seen, say)
    }

    /// From the backend, as it leaves.
    pub fn replied(&self, say: Say) -> Packet {
        self.packet(self.frontend, self.client, say)
    }

    /// The packet `request` (made from [`request`](Self::request)) as it leaves.
    pub fn onward(&self, request: Packet) -> Packet {
        request.from(self.seen).to(self.backend)
    }

    /// The packet `reply` (made from [`reply`](Self::reply)) as it leaves.
    pub fn back(&self, reply: Packet) -> Packet {
        reply.from(self.frontend).to(self.client)
    }

    /// The same answered by another pod.
    #[must_use]
    pub fn by(mut self, backend: At) -> Self {
        self.backend = backend;
        self
    }

    /// The same seen as someone else.
    #[must_use]
    pub fn as_seen(mut self, seen: At) -> Self {
        self.seen = seen;
        self
    }
}

/// Writes a row down. Steps are added in the order of the calls.
#[derive(Debug)]
pub struct Script {
    /// Addresses.
    pub net: Net,
    /// The row's protocol.
    pub protocol: Protocol,
    /// Node and cluster, for the next [`serve`](Self::serve).
    pub surroundings: Surroundings,
    position: Position,
    pub(super) row: Row,
}

impl Script {
    /// An empty row.
    pub fn new(name: String, net: Net, protocol: Protocol) -> Self {
        let row = Row {
            name,
            steps: Vec::new(),
            snat_ports: (61_000, 1),
            closed: Vec::new(),
            open: Vec::new(),
            renumbered: false,
            keeps_partial: false,
        };
        Self { net, protocol, surroundings: surroundings(), position: Position::default(), row }
    }

    /// The usual frontend: port 80 of the first service address.
    pub fn frontend(&self) -> At {
        (self.net.vip(1), 80)
    }

    /// The usual client with its port.
    pub fn client(&self, port: u16) -> At {
        (self.net.client(1), port)
    }

    /// The usual port of a pod.
    pub fn pod(&self, n: u8) -> At {
        (self.net.pod(n), TARGET_PORT)
    }

    /// A service at the usual frontend.
    pub fn svc(&self, pods: &[u8]) -> Svc {
        self.svc_at(self.frontend(), pods)
    }

    /// A service elsewhere.
    pub fn svc_at(&self, at: At, pods: &[u8]) -> Svc {
        Svc::new(self.net, self.protocol, at, pods)
    }

    /// A connection from the usual client's `port` to the usual frontend, answered by pod `n`.
    pub fn conn(&self, port: u16, n: u8) -> Conn {
        self.conn_to(self.client(port), self.frontend(), n)
    }

    /// A connection, answered by pod `n`.
    pub fn conn_to(&self, client: At, frontend: At, n: u8) -> Conn {
        Conn { protocol: self.protocol, client, frontend, backend: self.pod(n), seen: client }
    }

    /// From here on there are these services, and no others.
    pub fn serve(&mut self, services: &[Svc]) {
        let services = services.iter().map(Svc::finish).collect();
        let surroundings = self.surroundings.clone();
        self.row.steps.push(Step::Desired(Box::new(Desired { services, surroundings })));
    }

    /// Packets that follow come over an interface marked external.
    pub fn over_external(&mut self, external: bool) {
        self.position.external = external;
    }

    /// Packets that follow leave the host.
    pub fn at_egress(&mut self, egress: bool) {
        self.position.egress = egress;
    }

    /// Source ports for flows that get one of their own: `count` from `first` on.
    pub fn snat_ports(&mut self, first: u16, count: u16) {
        self.row.snat_ports = (first, count);
    }

    fn given(&mut self, packet: &Packet, reason: Reason, out: Vec<Vec<u8>>, stats: Option<Direction>) {
        self.row.keeps_partial |= packet.checksum == Checksum::Partial;
        let (frame, position) = (packet.frame(), self.position);
        let given = Given { frame, position, reason, out, answer: None, stats, like: None };
        self.row.steps.push(Step::Packet(Box::new(given)));
    }

    /// `packet` comes, and leaves as `out`.
    pub fn expect(&mut self, reason: Reason, packet: &Packet, out: &Packet) {
        let bytes = packet.network_len() as u64;
        let stats = match reason {
            Reason::NewFlow | Reason::ToBackend => Some(Direction::To(out.dst, bytes)),
            Reason::FromBackend | Reason::FromHost => Some(Direction::From(packet.src, bytes)),
            _ => None,
        };
        self.given(packet, reason, vec![out.frame()], stats);
    }

    /// `packet` comes and is answered.
    pub fn answer(&mut self, reason: Reason, packet: &Packet) {
        self.given(packet, reason, Vec::new(), None);
        if let Some(Step::Packet(given)) = self.row.steps.last_mut() {
            given.answer = Some(packet.answer().frame());
        }
    }

    /// `packet` comes, and is left as it is: passed, or dropped.
    pub fn leave(&mut self, reason: Reason, packet: &Packet) {
        self.given(packet, reason, Vec::new(), None);
    }

    /// The first packet of a connection.
    pub fn open(&mut self, conn: &Conn) {
        self.expect(Reason::NewFlow, &conn.request(Say::Open), &conn.forwarded(Say::Open));
    }

    /// Another packet from the client.
    pub fn to(&mut self, conn: &Conn, say: Say) {
        self.expect(Reason::ToBackend, &conn.request(say), &conn.forwarded(say));
    }

    /// A packet from the backend.
    pub fn back(&mut self, conn: &Conn, say: Say) {
        let reason = if self.position.egress { Reason::FromHost } else { Reason::FromBackend };
        self.expect(reason, &conn.reply(say), &conn.replied(say));
    }

    /// The first three packets of a connection.
    pub fn establish(&mut self, conn: &Conn) {
        self.open(conn);
        self.back(conn, Say::Accept);
        self.to(conn, Say::Data);
    }

    /// First packets of connections from the ports `from..from + n`, each to come out at one of `pods`, as often as
    /// `times` says.
    pub fn spread(&mut self, n: u16, pods: &[u8], times: &[(usize, usize)]) {
        let conns: Vec<Conn> = (0..n).map(|i| self.conn(1000 + i, pods[0])).collect();
        let outs = conns.iter().map(|conn| {
            pods.iter().map(|pod| conn.by(self.pod(*pod)).forwarded(Say::Open).frame()).collect()
        });
        let step = Step::Spread {
            outs: outs.collect(),
            frames: conns.iter().map(|conn| conn.request(Say::Open).frame()).collect(),
            times: times.to_vec(),
            reason: Reason::NewFlow,
        };
        self.row.steps.push(step);
    }

    /// A packet of a connection that any of `pods` may answer: `say` decides whether it is the first. Gives the number to
    /// compare with in [`same`](Self::same).
    pub fn any(&mut self, reason: Reason, conn: &Conn, say: Say, pods: &[u8]) -> usize {
        let out = pods.iter().map(|pod| conn.by(self.pod(*pod)).forwarded(say).frame()).collect();
        self.given(&conn.request(say), reason, out, None);
        self.row.steps.len() - 1
    }

    /// As [`any`](Self::any), but the one who answers must be the one of step `like`.
    pub fn same(&mut self, reason: Reason, conn: &Conn, say: Say, pods: &[u8], like: usize) {
        let number = self.any(reason, conn, say, pods);
        if let Step::Packet(given) = &mut self.row.steps[number] {
            given.like = Some(like);
        }
    }

    /// Seconds pass.
    pub fn advance(&mut self, seconds: u32) {
        self.row.steps.push(Step::Advance(seconds));
    }

    /// The tables lose all flows.
    pub fn lose_flows(&mut self) {
        self.row.steps.push(Step::LoseFlows);
    }

    /// The tables lose the entry of packets like this.
    pub fn evict(&mut self, packet: &Packet) {
        self.row.steps.push(Step::Evict(Box::new(packet.clone())));
    }

    /// So many seconds pass that numbers of backends that are gone are given to others.
    pub fn let_numbers_rest(&mut self) {
        self.row.renumbered = true;
        self.advance(1);
    }

    /// At the end, `backend` has seen `flows` flows end.
    pub fn closed(&mut self, backend: At, flows: u64) {
        self.row.closed.push((backend, flows));
    }

    /// At the end, `backend` has `flows` flows open.
    pub fn still_open(&mut self, backend: At, flows: u64) {
        self.row.open.push((backend, flows));
    }
}

/// A list of rows in the making.
#[derive(Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
}

impl Rows {
    /// A row for one family and one protocol.
    pub fn one(&mut self, name: &str, net: Net, protocol: Protocol, write: impl Fn(&mut Script)) {
        let mut script = Script::new(format!("{name} ({}, {protocol})", net.name()), net, protocol);
        write(&mut script);
        self.rows.push(script.row);
    }

    /// A row for both families, TCP.
    pub fn tcp(&mut self, name: &str, write: impl Fn(&mut Script)) {
        self.each(name, &[Protocol::Tcp], write);
    }

    /// A row for both families, UDP.
    pub fn udp(&mut self, name: &str, write: impl Fn(&mut Script)) {
        self.each(name, &[Protocol::Udp], write);
    }

    /// A row for both families and all protocols.
    pub fn all(&mut self, name: &str, write: impl Fn(&mut Script)) {
        self.each(name, &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp], write);
    }

    /// A row for both families and some protocols.
    pub fn each(&mut self, name: &str, protocols: &[Protocol], write: impl Fn(&mut Script)) {
        for net in Net::BOTH {
            for protocol in protocols {
                self.one(name, net, *protocol, &write);
            }
        }
    }

    /// The rows.
    pub fn finish(self) -> Vec<Row> {
        self.rows
    }
}
