//! The same packets among many Services and among one.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use lb_common::reason::Reason;
use lb_common::tables::{Spec, Table};
use lb_tests::rows::net::Net;
use lb_tests::rows::service::Svc;
use lb_userspace::model::desired::Protocol;
use serde::Serialize;

use super::driver::{Driver, Headers, noop};
use super::hook::Hook;
use super::world::{Kind, World, flags};
use super::{on_one_cpu, timed};
use crate::manifests;
use crate::sample::{Random, Spread};

/// Flows of each kind.
const FLOWS: u32 = 1_024;
/// Packets of a sample.
const PACKETS: u32 = 131_072;
/// The hook: the others differ by the same.
const HOOK: Hook = Hook::Xdp;
/// What is sent.
const KIND: Kind = Kind { net: Net::V4, protocol: Protocol::Tcp };

/// What a packet of 1,024 established flows costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Growth {
    /// With one Service, ns more than doing nothing.
    pub(crate) alone_ns: Spread,
    /// All flows to one Service among many.
    pub(crate) among_ns: Spread,
    /// All flows to different ones among many.
    pub(crate) apart_ns: Spread,
    /// `among_ns` against `alone_ns`, in the same round.
    pub(crate) among_ratio: Spread,
    /// `apart_ns` against `alone_ns`, in the same round.
    pub(crate) apart_ratio: Spread,
}

/// Flows in a world, ready to be driven.
struct Driven {
    ours: Driver,
    idle: Driver,
}

/// A world with so many Services.
fn world(services: u32) -> anyhow::Result<World> {
    let svc = |number: u32| {
        let at = manifests::service(number);
        Svc::new(Net::V4, Protocol::Tcp, (IpAddr::V4(*at.ip()), at.port()), &[1, 2, 3])
    };
    let all: Vec<Svc> = (0..services).map(svc).collect();
    let capacity = |spec: &Spec| match spec.table {
        Table::FrontendsV4 | Table::Turns => (2 * services + 1_024).max(spec.max_entries),
        _ => spec.max_entries,
    };
    World::new(&[HOOK], &all, capacity)
}

impl Driven {
    /// Opens flows from `first` on, each to the Service that `service` says.
    fn new(
        world: &World,
        idle: BorrowedFd<'_>,
        first: u32,
        random: &mut Random,
        service: impl Fn(u32) -> u32,
    ) -> anyhow::Result<Self> {
        let mut frames = Vec::new();
        for flow in 0..FLOWS {
            let (client, at) = (KIND.client(first + flow), manifests::service(service(flow)));
            let service = (IpAddr::V4(*at.ip()), at.port());
            world.open(HOOK, KIND, client, service)?;
            frames.push(KIND.packet(client, service, flags::ACK).frame());
        }
        random.shuffle(&mut frames);
        let (network, transport) = KIND.headers();
        let headers = Headers::new(&frames, network + transport, None).context("make a list of packets")?;
        let driver = |target| Driver::new(HOOK, &headers, target, HOOK.pass()).context("load the driver");
        Ok(Self { ours: driver(world.program(HOOK)?)?, idle: driver(idle)? })
    }

    /// ns for each packet more than doing nothing.
    fn sample(&self, world: &World) -> anyhow::Result<f64> {
        let ours = world.counting(Reason::ToBackend, 2 * u64::from(PACKETS), || {
            self.ours.run(PACKETS)?;
            Ok(timed(|| self.ours.run(PACKETS))?)
        })?;
        self.idle.run(PACKETS)?;
        let idle = timed(|| self.idle.run(PACKETS))?;
        // What the call itself costs is in both.
        Ok((ours - idle) / f64::from(PACKETS))
    }
}

/// Measures.
pub(crate) fn measure(services: u32, rounds: usize, seed: u64) -> anyhow::Result<Growth> {
    on_one_cpu(|| {
        let mut random = Random::new(seed);
        let noop = noop(HOOK).context("load a program that does nothing")?;
        let (one, many) = (world(1)?, world(services)?);
        let apart = |flow: u32| (u64::from(flow) * u64::from(services) / u64::from(FLOWS)) as u32;
        let driven = [
            (&one, Driven::new(&one, noop.as_fd(), 0, &mut random, |_| 0)?),
            (&many, Driven::new(&many, noop.as_fd(), 0, &mut random, |_| services / 2)?),
            (&many, Driven::new(&many, noop.as_fd(), FLOWS, &mut random, apart)?),
        ];
        let mut samples = [const { Vec::new() }; 3];
        let mut order = [0, 1, 2];
        for _ in 0..2 * rounds {
            random.shuffle(&mut order);
            for at in order {
                let (world, driven) = &driven[at];
                samples[at].push(driven.sample(world)?);
            }
        }
        let [alone, among, apart] = &samples;
        let ratio = |of: &[f64]| Spread::of(of.iter().zip(alone).map(|(many, one)| many / one));
        let (among_ratio, apart_ratio) = (ratio(among), ratio(apart));
        let [alone_ns, among_ns, apart_ns] = samples.map(Spread::of);
        Ok(Growth { alone_ns, among_ns, apart_ns, among_ratio, apart_ratio })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs root.
    #[test]
    fn packets_are_put_back_and_met_as_said() {
        // Fails by itself if a packet is met otherwise than on an established flow.
        let growth = measure(3, 1, 1).expect("the programs are loaded (as root) and driven");
        assert!(growth.apart_ns.median.is_finite());
    }

    /// Needs root.
    #[test]
    fn a_packet_met_otherwise_is_noticed() {
        let mut random = Random::new(1);
        let noop = noop(HOOK).expect("a program that does nothing");
        let world = world(1).expect("a world (as root)");
        let driven = Driven::new(&world, noop.as_fd(), 0, &mut random, |_| 0).expect("flows");
        let other = world.counting(Reason::NewFlow, 10, || Ok(driven.ours.run(10)?));
        let error = other.expect_err("they are not new").to_string();
        assert!(error.contains("another case was timed"), "{error}");
        // A packet that does nothing is counted as nothing.
        let idle = world.counting(Reason::ToBackend, 10, || Ok(driven.idle.run(10)?));
        assert!(idle.is_err());
    }
}
