//! Packets one after another, while backends come and go and time passes.

use std::cell::RefCell;

use lb_common::engine::Position;
use lb_userspace::model::desired::{Algorithm, Desired, Protocol};

use super::input::Input;
use crate::rows::Packet;
use crate::rows::net::{At, Net, surroundings};
use crate::rows::packet::{Checksum, Slice, Upper};
use crate::rows::row::Say;
use crate::rows::sequence::{Event, Sent, Sequence};
use crate::rows::service::Svc;
use crate::rows::watch::watch;

/// Events of one sequence, at most.
const MOST: usize = 120;
const SAYS: [Say; 6] = [Say::Open, Say::Open, Say::Accept, Say::Data, Say::Fin, Say::Reset];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
/// Lifetimes are multiples of 10 s: the seconds that pass for real between packets of a kernel program make no difference.
const PAUSES: [u32; 6] = [1, 11, 31, 61, 121, 8001];

/// What bytes say: events are decoded in their order, each once.
#[derive(Debug)]
pub struct Played<'a> {
    state: RefCell<State<'a>>,
}

#[derive(Clone, Debug)]
struct State<'a> {
    input: Input<'a>,
    /// By service: which pods are behind it, and what it is like.
    services: [(u8, u8); 4],
}

impl<'a> Played<'a> {
    /// The sequence that these bytes stand for. To be played once: each body needs one of its own.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { state: RefCell::new(State { input: Input(bytes), services: [(7, 0); 4] }) }
    }
}

impl Sequence for Played<'_> {
    fn count(&self) -> usize {
        MOST
    }

    fn event(&self, number: usize, sent: &[Sent]) -> Option<Event> {
        let mut state = self.state.borrow_mut();
        if number == 0 {
            return Some(state.serve());
        }
        if state.input.is_empty() {
            return None;
        }
        state.next(sent)
    }
}

fn net(choice: usize) -> Net {
    Net::BOTH[choice % 2]
}

impl State<'_> {
    fn next(&mut self, sent: &[Sent]) -> Option<Event> {
        let plain = Position::default();
        match self.input.below(32) {
            0..=11 => Some(self.send()),
            12..=20 => {
                let (look, _) = sent.get(self.input.below(sent.len().max(1)))?;
                let protocol = Protocol::from_number(look.protocol).filter(|_| !look.fragment)?;
                let packet = Packet::new(look.dst, look.src, self.input.pick(&SAYS).upper(protocol));
                Some(Event::Packet(packet.frame(), plain))
            }
            21 | 22 => {
                let (look, frame) = sent.get(self.input.below(sent.len().max(1)))?;
                let kinds: &[(u8, u8)] = match look.src.0.is_ipv4() {
                    true => &[(3, 1), (3, 4), (11, 0), (12, 0), (5, 0)],
                    false => &[(1, 0), (2, 0), (3, 0), (4, 0), (137, 0)],
                };
                let (kind, code) = self.input.pick(kinds);
                let quoted = &frame[look.network..look.end.min(look.network + self.input.below(140))];
                let upper = Upper::Icmp { kind, code, rest: [0, 0, 5, 0x14] };
                let packet = Packet::new((look.dst.0, 0), (look.src.0, 0), upper).payload(quoted);
                Some(Event::Packet(packet.frame(), plain))
            }
            23 => {
                let length = self.input.below(120);
                Some(Event::Packet(self.input.take(length).to_vec(), plain))
            }
            24 => Some(Event::Advance(self.input.pick(&PAUSES))),
            25 => Some(Event::LoseFlows),
            _ => {
                let which = self.input.below(4);
                self.services[which] = (self.input.byte(), self.input.byte());
                Some(self.serve())
            }
        }
    }

    /// Somebody calls somebody, by and large as one does.
    fn send(&mut self) -> Event {
        let input = &mut self.input;
        let (net, protocol) = (net(input.below(2)), input.pick(&PROTOCOLS));
        let sources = [net.client(1), net.client(2), net.pod(1), net.pod(2), net.outside(1), net.node()];
        let src: At = (input.pick(&sources), 1000 + u16::from(input.byte() % 3));
        let vip = 1 + input.byte() % 2;
        let dst: At = match input.below(8) {
            0 => (net.public(vip), 80),
            1 => (net.node(), 30_080 + u16::from(vip)),
            2 => (net.vip(vip), 443),
            _ => (net.vip(vip), 80),
        };
        let mut packet = Packet::new(src, dst, input.pick(&SAYS).upper(protocol));
        let odd = input.byte();
        if odd & 7 == 7 {
            packet.payload = vec![0x55; input.below(80)];
            if odd & 8 != 0 {
                packet.slice = Some(Slice { id: 9, from: input.below(4) * 8, len: (1 + input.below(5)) * 8 });
            }
            if odd & 16 != 0 && protocol == Protocol::Udp {
                packet.checksum = Checksum::None;
            }
            if odd & 32 != 0 {
                packet = packet.tag(0x8100, 5);
            }
        }
        let mut frame = packet.frame();
        if odd & 0xc0 == 0xc0 {
            let at = input.below(frame.len().min(256));
            frame[at] = input.byte();
        }
        Event::Packet(frame, Position { external: odd & 0xc0 == 0x80, ..Position::default() })
    }

    /// The services as they are now. Chance is left out: what it chooses differs between bodies.
    fn serve(&self) -> Event {
        let services = self.services.iter().enumerate().flat_map(|(number, &(pods, how))| {
            let vip = 1 + (number / 2) as u8;
            let net = net(number);
            PROTOCOLS.map(|protocol| {
                let chosen: Vec<u8> = (1..=4).filter(|pod| pods & (1 << (pod - 1)) != 0).collect();
                let marked: Vec<u8> =
                    chosen.iter().copied().filter(|pod| pods & (16 << (pod - 1)) != 0).collect();
                let mut svc = Svc::new(net, protocol, (net.vip(vip), 80), &chosen);
                svc = match how & 3 {
                    0 => svc.local(&marked),
                    1 => svc.local(&marked).internal_local(),
                    2 => svc.terminating(&marked),
                    _ => svc.not_ready(&marked),
                };
                if how & 4 != 0 {
                    svc = svc.affinity(60);
                }
                if how & 8 != 0 {
                    svc = svc.load_balancer(net.public(vip));
                }
                if how & 16 != 0 {
                    svc = svc.node_port(30_080 + u16::from(vip));
                }
                if how & 32 != 0 {
                    svc = svc.algorithm(Algorithm::Maglev);
                }
                if how & 64 != 0 {
                    svc = svc.external_local();
                }
                svc.finish()
            })
        });
        Event::Serve(Desired { services: services.collect(), surroundings: surroundings() })
    }
}

pub(super) fn run(bytes: &[u8]) -> Result<(), String> {
    watch(&Played::new(bytes))
}

/// Calls, answers and changes, written by hand.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let send = |family: u8, protocol: u8, source: u8, odd: u8| [0, family, protocol, source, 0, 0, 3, 0, odd];
    let mut seeds = Vec::new();
    for family in 0..2 {
        for protocol in 0..3 {
            let call = send(family, protocol, 0, 0);
            let data = [0, family, protocol, 0, 0, 0, 3, 3, 0];
            let answer = [12, 0, 2];
            let change = [26, family, 0b0001_1010, 0b0001_1100];
            let empty = [26, family, 0, 0];
            let error = [21, 0, 0, 60];
            seeds.push([&call[..], &answer, &data, &error].concat());
            seeds.push([&call[..], &change, &data, &answer, &empty, &data, &call].concat());
            seeds.push([&call[..], &[24, 3], &data, &[25], &data, &answer].concat());
            seeds.push([&send(family, protocol, 2, 0x0f)[..], &[40, 1, 2, 1, 0], &data].concat());
        }
    }
    seeds
}
