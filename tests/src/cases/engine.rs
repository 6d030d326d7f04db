//! The packet engine as a prober: the host build, or a kernel program by test runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket};
use lb_common::engine::Position;
use lb_common::reason::Class;
use lb_userspace::model::desired::{Desired, Protocol};
use lb_userspace::plan::{Limits, Options, Planner, steady_clock};

use super::probe::{Observed, Probe, Prober, Verdict};
use crate::rows::Body;

/// Rounds over all backends that a probe makes: with turns every backend is seen in the first, chance wants more.
const ROUNDS: usize = 4;
/// First source port of the probes.
const FIRST_PORT: u16 = 20_000;

/// Asks the engine.
pub struct Engine {
    name: String,
    body: Box<dyn Body>,
    desired: Desired,
    next_port: u16,
}

impl Engine {
    /// A prober over this body, which it has for itself.
    pub fn new(body: Box<dyn Body>) -> Self {
        Self {
            name: format!("engine at {:?}", body.hook()),
            body,
            desired: Desired::default(),
            next_port: FIRST_PORT,
        }
    }

    /// A source port that no probe has had since the tables were emptied.
    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        port
    }
}

/// The first packet of a flow.
fn frame(probe: &Probe, source_port: u16) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (probe.from, probe.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (from, to) => link.ipv6(wide(from).octets(), wide(to).octets(), 64),
    };
    let mut bytes = Vec::new();
    let written = match probe.protocol {
        Protocol::Tcp => ip.tcp(source_port, probe.port, 1, 1024).syn().write(&mut bytes, &[]),
        Protocol::Udp => ip.udp(source_port, probe.port).write(&mut bytes, b"probe"),
        Protocol::Sctp => {
            // Ports, verification tag, checksum left to the device, and an INIT chunk's header.
            let mut header = [source_port.to_be_bytes(), probe.port.to_be_bytes()].concat();
            header.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4]);
            ip.write(&mut bytes, IpNumber::SCTP, &header)
        }
    };
    written.expect("a vector takes all bytes");
    bytes
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Where a packet comes from and goes to.
fn ends(frame: &[u8]) -> Result<(SocketAddr, SocketAddr), String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
    let (from, to, payload) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => (
            IpAddr::V4(Ipv4Addr::from(ip.header().source())),
            IpAddr::V4(Ipv4Addr::from(ip.header().destination())),
            ip.payload().payload,
        ),
        Some(NetSlice::Ipv6(ip)) => (
            IpAddr::V6(Ipv6Addr::from(ip.header().source())),
            IpAddr::V6(Ipv6Addr::from(ip.header().destination())),
            ip.payload().payload,
        ),
        _ => return Err("no IP header in what came out".to_owned()),
    };
    let ports = payload.get(..4).ok_or("no ports in what came out")?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Ok((SocketAddr::new(from, port(0)), SocketAddr::new(to, port(2))))
}

impl Prober for Engine {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&mut self, desired: &Desired) -> Result<(), String> {
        self.body.clear().map_err(|error| error.to_string())?;
        self.next_port = FIRST_PORT;
        self.desired = desired.clone();
        let store = self.body.store();
        let limits = Limits::of(store).map_err(|error| error.to_string())?;
        let mut planner = Planner::adopt(store, limits, Options::default(), steady_clock())
            .map_err(|error| error.to_string())?;
        let report = planner.sync(store, desired).map_err(|error| error.to_string())?;
        match report.problems.first() {
            Some(problem) => Err(problem.to_string()),
            None => Ok(()),
        }
    }

    fn probe(&mut self, probe: &Probe) -> Result<Observed, String> {
        let most = self.desired.services.values().map(|service| service.backends.len()).max().unwrap_or(0);
        let mut verdicts: Vec<Verdict> = Vec::new();
        let mut backends = BTreeSet::new();
        let mut masqueraded = BTreeMap::new();
        for _ in 0..(most * ROUNDS).max(2) {
            let source = SocketAddr::new(probe.from, self.port());
            let frame = frame(probe, source.port());
            let outcome = self.body.run(&frame, Position::default()).map_err(|error| error.to_string())?;
            let reason = outcome.reason.ok_or("the packet was not counted")?;
            let verdict = match reason.class() {
                Class::Forwarded => {
                    let (from, to) = ends(&outcome.frame)?;
                    backends.insert(to);
                    // A packet of the node itself keeps its address when masqueraded, but not its port.
                    let changed = from != source;
                    if masqueraded.insert(to, changed).is_some_and(|before| before != changed) {
                        return Err(format!("to {to}: masqueraded now and then"));
                    }
                    Verdict::Forward(BTreeSet::new())
                }
                Class::Passed => Verdict::Untouched,
                Class::Answered => Verdict::Reject,
                Class::Dropped => Verdict::Drop,
            };
            if !verdicts.contains(&verdict) {
                verdicts.push(verdict);
            }
        }
        let verdict = match verdicts.as_slice() {
            [Verdict::Forward(_)] => Verdict::Forward(backends),
            [verdict] => verdict.clone(),
            several => return Err(format!("now one thing, now another: {several:?}")),
        };
        Ok(Observed { verdict, masqueraded })
    }
}

/// The engine everywhere it runs: on the host, and in each kernel program.
///
/// # Errors
/// A program cannot be loaded: not root, or the kernel refuses.
pub fn everywhere() -> Result<Vec<Box<dyn Prober>>, crate::rows::Error> {
    use crate::rows::{Hook, Host, Kernel};
    let mut probers: Vec<Box<dyn Prober>> = vec![Box::new(Engine::new(Box::new(Host::new())))];
    for hook in [Hook::Xdp, Hook::XdpFrags, Hook::Tc] {
        probers.push(Box::new(Engine::new(Box::new(Kernel::load(hook)?))));
    }
    Ok(probers)
}
