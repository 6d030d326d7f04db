//! One packet.

use lb_common::engine::Position;
use lb_common::reason::Class;
use lb_userspace::model::desired::{Desired, Protocol};

use super::input::Input;
use crate::rows::net::{Net, surroundings};
use crate::rows::sequence::{Event, Sent, Sequence};
use crate::rows::service::Svc;
use crate::rows::watch::watch;
use crate::rows::{Body, Host, cases, row};

/// Services of both families and all protocols; 80 is the port of each.
fn world() -> Desired {
    let mut services = Vec::new();
    for net in Net::BOTH {
        for (protocol, vip) in [(Protocol::Tcp, 1), (Protocol::Udp, 2), (Protocol::Sctp, 3)] {
            let svc = Svc::new(net, protocol, (net.vip(vip), 80), &[1, 2, 3]).local(&[2]);
            services.push(svc.load_balancer(net.public(vip)).node_port(30_080 + u16::from(vip)).finish());
        }
        services.push(Svc::new(net, Protocol::Tcp, (net.vip(4), 80), &[]).finish());
    }
    Desired { services: services.into_iter().collect(), surroundings: surroundings() }
}

/// The same packet twice: the second meets what the first has left.
struct Twice<'a> {
    frame: &'a [u8],
    position: Position,
}

impl Sequence for Twice<'_> {
    fn count(&self) -> usize {
        3
    }

    fn event(&self, number: usize, _: &[Sent]) -> Option<Event> {
        Some(match number {
            0 => Event::Serve(world()),
            _ => Event::Packet(self.frame.to_vec(), self.position),
        })
    }
}

/// The first byte says where the packet is met.
pub(super) fn run(bytes: &[u8]) -> Result<(), String> {
    let mut input = Input(bytes);
    let place = input.byte();
    let position = Position { external: place & 1 != 0, egress: place & 2 != 0 };
    let frame = input.0;
    if !position.egress {
        return watch(&Twice { frame, position });
    }
    // On its way out a packet is counted when it is turned round, and else left alone.
    let mut host = Host::new();
    let outcome = host.run(frame, position).map_err(|error| error.to_string())?;
    match outcome.reason.map(lb_common::reason::Reason::class) {
        Some(Class::Forwarded) => Ok(()),
        _ if outcome.frame == frame => Ok(()),
        _ => Err(format!("{:?}, but the packet was changed", outcome.reason)),
    }
}

/// The packets of the rows, some of each.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for row in cases::all() {
        let packets = row.steps.iter().filter_map(|step| match step {
            row::Step::Packet(given) => Some(given),
            _ => None,
        });
        for given in packets.take(3) {
            let place = u8::from(given.position.external) | u8::from(given.position.egress) << 1;
            seeds.push([&[place], &given.frame[..]].concat());
        }
    }
    seeds.sort();
    seeds.dedup();
    seeds
}
