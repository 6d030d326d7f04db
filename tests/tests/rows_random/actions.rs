//! Random things that happen.

use std::net::IpAddr;

use lb_common::engine::Position;
use lb_tests::rows::Packet;
use lb_tests::rows::look::Look;
use lb_tests::rows::net::{At, Net};
use lb_tests::rows::packet::{Checksum, Upper};
use lb_tests::rows::row::Say;
use lb_tests::rows::sequence::{Event, Sent, Sequence};
use lb_userspace::model::desired::{Desired, Protocol};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::world::{net, node_port, protocol, world};

/// What is unusual about a packet.
#[derive(Clone, Debug)]
pub(crate) struct Decor {
    tags: usize,
    headers: usize,
    payload: usize,
    checksum: Checksum,
    external: bool,
    slice: Option<(usize, usize)>,
    trailer: usize,
    class: u8,
}

/// Damage done to a frame.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    bytes: Vec<(Index, u8)>,
    cut: Option<Index>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// A packet comes from somebody for somebody.
    Send { protocol: Protocol, src: At, dst: At, say: Say, decor: Decor, damage: Option<Damage> },
    /// An answer to a packet that was forwarded.
    Reply { to: Index, say: Say, decor: Decor },
    /// An ICMP error about a packet that was forwarded.
    Error { about: Index, kind: Index, quote: usize, from_end: bool, decor: Decor },
    /// Bytes that mean nothing.
    Noise(Vec<u8>),
    /// Seconds pass.
    Advance(u32),
    /// Services change.
    Serve(Desired),
    /// Flows are lost.
    LoseFlows,
}

fn decor() -> impl Strategy<Value = Decor> {
    let plain = Decor {
        tags: 0,
        headers: 0,
        payload: 5,
        checksum: Checksum::Right,
        external: false,
        slice: None,
        trailer: 0,
        class: 0,
    };
    let checksum = prop_oneof![
        4 => Just(Checksum::Right),
        1 => Just(Checksum::None),
        1 => any::<u16>().prop_map(Checksum::Off),
    ];
    let slice =
        prop::option::weighted(0.3, (0..4usize, 1..6usize).prop_map(|(from, len)| (from * 8, len * 8)));
    let odd = (
        0..3usize,
        0..3usize,
        0..80usize,
        checksum,
        prop::bool::weighted(0.1),
        slice,
        0..3usize,
        any::<u8>(),
    )
        .prop_map(|(tags, headers, payload, checksum, external, slice, trailer, class)| Decor {
            tags,
            headers,
            payload,
            checksum,
            external,
            slice,
            trailer,
            class,
        });
    prop_oneof![3 => Just(plain), 1 => odd]
}

fn damage() -> impl Strategy<Value = Option<Damage>> {
    let bytes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..3);
    let damage =
        (bytes, prop::option::weighted(0.3, any::<Index>())).prop_map(|(bytes, cut)| Damage { bytes, cut });
    prop::option::weighted(0.15, damage)
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        4 => Just(Say::Open), 1 => Just(Say::Accept), 3 => Just(Say::Data), 1 => Just(Say::Fin), 1 => Just(Say::Reset)
    ]
}

fn source(net: Net) -> impl Strategy<Value = At> {
    let addr = select(vec![
        net.client(1),
        net.client(1),
        net.client(2),
        net.pod(1),
        net.pod(2),
        net.outside(1),
        net.public(200),
        net.node(),
    ]);
    (addr, 1000..1003u16)
}

fn destination(net: Net) -> impl Strategy<Value = At> {
    let served = (1..=2u8, Just(80), 0..4u8).prop_map(move |(vip, port, way)| match way {
        0 => (net.public(vip), port),
        1 => (net.node(), node_port(vip, port)),
        _ => (net.vip(vip), port),
    });
    let other = select(vec![(net.vip(99), 80), (net.pod(1), 8080), (net.node(), 22), (net.vip(1), 443)]);
    prop_oneof![8 => served, 1 => other]
}

fn send() -> impl Strategy<Value = Action> {
    (net(), protocol()).prop_flat_map(|(net, protocol)| {
        (source(net), destination(net), say(), decor(), damage()).prop_map(
            move |(src, dst, say, decor, damage)| Action::Send { protocol, src, dst, say, decor, damage },
        )
    })
}

/// Bytes with a link header that leads somewhere, or without.
fn noise() -> impl Strategy<Value = Action> {
    let header = select(vec![
        vec![],
        vec![0x08, 0x00, 0x45],
        vec![0x86, 0xdd, 0x60],
        vec![0x81, 0x00, 0, 1, 0x86, 0xdd],
    ]);
    (header, prop::collection::vec(any::<u8>(), 0..120)).prop_map(|(header, rest)| {
        let front = if header.is_empty() { Vec::new() } else { vec![2; 12] };
        Action::Noise([front, header, rest].concat())
    })
}

/// One of everything. Seconds are such that the few that pass for real between packets of a kernel program make no
/// difference: up to five times 10 n + 1 s never come close to a lifetime, which all are multiples of 10 s, from below.
fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => send(),
        6 => (any::<Index>(), say(), decor()).prop_map(|(to, say, decor)| Action::Reply { to, say, decor }),
        2 => (any::<Index>(), any::<Index>(), 0..140usize, any::<bool>(), decor())
            .prop_map(|(about, kind, quote, from_end, decor)| Action::Error { about, kind, quote, from_end, decor }),
        1 => noise(),
        1 => world().prop_map(Action::Serve),
    ]
}

/// A sequence of them.
pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let pauses = prop_oneof![
        3 => select(&[1u32, 11, 31, 61, 121, 8001][..]).prop_map(Action::Advance),
        1 => Just(Action::LoseFlows),
    ];
    let pauses = prop::collection::vec((any::<Index>(), pauses), 0..5);
    (world(), prop::collection::vec(action(), 1..50), pauses).prop_map(|(world, mut actions, pauses)| {
        for (at, pause) in pauses {
            actions.insert(at.index(actions.len()), pause);
        }
        actions.insert(0, Action::Serve(world));
        actions
    })
}

impl Decor {
    fn apply(&self, mut packet: Packet) -> Packet {
        for tag in 0..self.tags {
            packet = packet.tag(if tag == 0 && self.tags > 1 { 0x88a8 } else { 0x8100 }, 5);
        }
        if packet.src.0.is_ipv4() {
            packet = packet.options(&[1; 8][..self.headers * 4]);
        } else {
            for _ in 0..self.headers {
                packet = packet.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]);
            }
        }
        if !matches!(packet.upper, Upper::Icmp { .. }) {
            packet.payload = (0..self.payload).map(|i| (i * 37) as u8).collect();
            packet.checksum = self.checksum;
        }
        if matches!(packet.upper, Upper::Tcp { .. } | Upper::Sctp(_)) && self.checksum == Checksum::None {
            packet.checksum = Checksum::Right;
        }
        packet.slice = self.slice.map(|(from, len)| lb_tests::rows::packet::Slice { id: 9, from, len });
        packet.trailer = vec![0xaa; self.trailer];
        packet.traffic_class = self.class;
        packet
    }
}

impl Damage {
    fn apply(&self, frame: &mut Vec<u8>) {
        for (at, value) in &self.bytes {
            let at = at.index(frame.len());
            frame[at] = *value;
        }
        if let Some(cut) = self.cut {
            frame.truncate(cut.index(frame.len()));
        }
    }
}

/// ICMP errors of a family, and one message that is none.
fn message(addr: IpAddr, kind: Index) -> (u8, u8) {
    if addr.is_ipv4() {
        *kind.get(&[(3, 1), (3, 4), (11, 0), (12, 0), (5, 0)])
    } else {
        *kind.get(&[(1, 0), (2, 0), (3, 0), (4, 0), (137, 0)])
    }
}

/// All that happens in one case.
#[derive(Debug)]
pub(crate) struct Actions(pub(crate) Vec<Action>);

impl Sequence for Actions {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn event(&self, number: usize, sent: &[Sent]) -> Option<Event> {
        let action = self.0.get(number)?;
        match action {
            Action::Advance(seconds) => Some(Event::Advance(*seconds)),
            Action::Serve(desired) => Some(Event::Serve(desired.clone())),
            Action::LoseFlows => Some(Event::LoseFlows),
            _ => frame(action, sent).map(|(frame, position)| Event::Packet(frame, position)),
        }
    }
}

/// The frame that an action sends, if it is one that does, after `forwarded` has come out so far.
fn frame(action: &Action, forwarded: &[Sent]) -> Option<(Vec<u8>, Position)> {
    let position = |decor: &Decor| Position { external: decor.external, ..Position::default() };
    match action {
        Action::Send { protocol, src, dst, say, decor, damage } => {
            let mut frame = decor.apply(Packet::new(*src, *dst, say.upper(*protocol))).frame();
            if let Some(damage) = damage {
                damage.apply(&mut frame);
            }
            Some((frame, position(decor)))
        }
        Action::Reply { to, say, decor } => {
            let replied: Vec<&Look> =
                forwarded.iter().map(|(look, _)| look).filter(|look| !look.fragment).collect();
            let look = replied.get(to.index(replied.len().max(1)))?;
            let protocol = Protocol::from_number(look.protocol)?;
            let packet = Packet::new(look.dst, look.src, say.upper(protocol));
            Some((decor.apply(packet).frame(), position(decor)))
        }
        Action::Error { about, kind, quote, from_end, decor } => {
            let (look, frame) = forwarded.get(about.index(forwarded.len().max(1)))?;
            let family = if look.src.0.is_ipv4() { Net::V4 } else { Net::V6 };
            let from = if *from_end { look.dst.0 } else { family.outside(200) };
            let (kind, code) = message(from, *kind);
            let quoted = &frame[look.network..look.end.min(look.network + quote)];
            let upper = Upper::Icmp { kind, code, rest: [0, 0, 5, 0x14] };
            let packet = Packet::new((from, 0), (look.src.0, 0), upper).payload(quoted);
            Some((decor.apply(packet).frame(), position(decor)))
        }
        Action::Noise(bytes) => Some((bytes.clone(), Position::default())),
        Action::Advance(_) | Action::Serve(_) | Action::LoseFlows => None,
    }
}
