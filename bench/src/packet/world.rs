//! The programs with a few Services in their maps, and flows through them.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use aya::programs::Program;
use lb_common::reason::Reason;
use lb_common::tables::{Spec, Table};
use lb_tests::rows::kernel::Loaded;
use lb_tests::rows::look::look;
use lb_tests::rows::net::{At, Net, surroundings};
use lb_tests::rows::packet::{Packet, Upper};
use lb_tests::rows::service::Svc;
use lb_userspace::dataplane;
use lb_userspace::maps::MapStore;
use lb_userspace::model::desired::{Desired, Protocol};
use lb_userspace::plan::{Limits, Options, Planner};

use super::hook::Hook;
use crate::bpf::{self, Ran};

/// The Services' port.
const PORT: u16 = 80;
/// Source ports of each client, from here on.
const FIRST_PORT: u16 = 1024;
/// Flows of each client.
const FLOWS_PER_CLIENT: u32 = 1024;
/// Sets of each flow table: room for twice as many flows as usual, so that none of those timed has had to make way.
pub(crate) const FLOW_SETS: u32 = 131_072;
/// Bytes behind the transport header.
const PAYLOAD: usize = 64;

/// Entries of the maps.
pub(crate) fn capacity(spec: &Spec) -> u32 {
    match spec.table {
        Table::FlowsV4 | Table::FlowsV6 => FLOW_SETS,
        _ => spec.max_entries,
    }
}

/// A family and a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The family.
    pub(crate) net: Net,
    /// The transport.
    pub(crate) protocol: Protocol,
}

impl Kind {
    /// TCP and UDP in both families.
    pub(crate) const ALL: [Self; 4] = [
        Self { net: Net::V4, protocol: Protocol::Tcp },
        Self { net: Net::V4, protocol: Protocol::Udp },
        Self { net: Net::V6, protocol: Protocol::Tcp },
        Self { net: Net::V6, protocol: Protocol::Udp },
    ];

    /// The table its flows are in.
    pub(crate) const fn flows(self) -> Table {
        match self.net {
            Net::V4 => Table::FlowsV4,
            Net::V6 => Table::FlowsV6,
        }
    }

    /// Bytes of the network header and of the transport header.
    pub(crate) const fn headers(self) -> (usize, usize) {
        let network = match self.net {
            Net::V4 => 20,
            Net::V6 => 40,
        };
        let transport = match self.protocol {
            Protocol::Tcp => 20,
            Protocol::Udp | Protocol::Sctp => 8,
        };
        (network, transport)
    }

    /// A packet with these TCP flags, or of UDP.
    pub(crate) fn packet(self, src: At, dst: At, flags: u8) -> Packet {
        let upper = match self.protocol {
            Protocol::Tcp => Upper::Tcp { flags, numbers: [1_000, 2_000], window: 512, options: Vec::new() },
            Protocol::Udp | Protocol::Sctp => Upper::Udp,
        };
        Packet::new(src, dst, upper).payload(vec![0x55; PAYLOAD])
    }

    /// The Service of this kind.
    pub(crate) fn service(self) -> At {
        (self.net.vip(10), PORT)
    }

    /// The client's address and port of a flow.
    pub(crate) fn client(self, flow: u32) -> At {
        let port = FIRST_PORT + (flow % FLOWS_PER_CLIENT) as u16;
        (self.net.client((flow / FLOWS_PER_CLIENT) as u8), port)
    }
}

/// TCP flags.
pub(crate) mod flags {
    /// First packet.
    pub(crate) const SYN: u8 = 0x02;
    /// Data.
    pub(crate) const ACK: u8 = 0x10;
}

/// Programs and tables.
#[derive(Debug)]
pub(crate) struct World {
    loaded: Loaded,
}

impl World {
    /// Loads the programs of some hooks, with `capacity` giving the sizes of their tables, and fills in the Services.
    pub(crate) fn new(
        hooks: &[Hook],
        services: &[Svc],
        capacity: impl Fn(&Spec) -> u32,
    ) -> anyhow::Result<Self> {
        let programs: Vec<_> = hooks.iter().map(|hook| hook.program()).collect();
        let mut loaded = Loaded::new(&programs, &dataplane::config(), capacity)
            .context("load the kernel programs (as root)")?;
        let services = services.iter().map(Svc::finish).collect();
        let desired = Desired { services, surroundings: surroundings() };
        let limits = Limits::of(&loaded.store)?;
        let clock = Arc::new(|| Duration::ZERO);
        let mut planner = Planner::adopt(&loaded.store, limits, Options::default(), clock)?;
        let report = planner.sync(&mut loaded.store, &desired)?;
        ensure!(report.problems.is_empty(), "the Services do not fit: {:?}", report.problems);
        Ok(Self { loaded })
    }

    /// Our program at a hook.
    pub(crate) fn program(&self, hook: Hook) -> anyhow::Result<BorrowedFd<'_>> {
        let fd = match self.loaded.ebpf.program(hook.program()) {
            Some(Program::Xdp(program)) => program.fd()?,
            Some(Program::SchedClassifier(program)) => program.fd()?,
            _ => bail!("the object has no program {}", hook.program()),
        };
        Ok(fd.as_fd())
    }

    /// Forgets all flows of a kind.
    pub(crate) fn clear_flows(&mut self, kind: Kind) -> anyhow::Result<()> {
        let mut keys = Vec::new();
        self.loaded.store.scan(kind.flows(), &mut |key, _| keys.extend_from_slice(key))?;
        Ok(self.loaded.store.delete_batch(kind.flows(), &keys)?)
    }

    /// Opens so many flows, up to the client's answer to the backend's answer. Gives each flow's backend.
    pub(crate) fn establish(&self, kind: Kind, flows: u32) -> anyhow::Result<Vec<At>> {
        (0..flows).map(|flow| self.open(Hook::Tc, kind, kind.client(flow), kind.service())).collect()
    }

    /// Opens one flow. Gives its backend.
    pub(crate) fn open(&self, hook: Hook, kind: Kind, client: At, service: At) -> anyhow::Result<At> {
        let program = self.program(hook)?;
        let first = pass(program, hook, &kind.packet(client, service, flags::SYN))?;
        let backend = look(&first).context("no packet came out")?.dst;
        ensure!(backend.0 != service.0, "a flow was not translated");
        pass(program, hook, &kind.packet(backend, client, flags::SYN | flags::ACK))?;
        pass(program, hook, &kind.packet(client, service, flags::ACK))?;
        Ok(backend)
    }

    /// Does `body` and fails unless exactly so many packets have been counted meanwhile, all for this reason.
    pub(crate) fn counting<T>(
        &self,
        reason: Reason,
        packets: u64,
        body: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let expected = |number: usize| if number == reason as usize { packets } else { 0 };
        let name =
            |number: usize| u8::try_from(number).ok().and_then(Reason::from_number).map_or("?", Reason::name);
        let before = self.loaded.reasons()?;
        let result = body()?;
        let after = self.loaded.reasons()?;
        let counted: Vec<u64> =
            after.iter().zip(&before).map(|(after, before)| after.packets - before.packets).collect();
        if counted.iter().enumerate().any(|(number, &counted)| counted != expected(number)) {
            let met = counted.iter().enumerate().filter(|(_, counted)| **counted != 0);
            let met: Vec<String> =
                met.map(|(number, counted)| format!("{counted} {}", name(number))).collect();
            bail!("another case was timed than {packets} {}: {}", reason.name(), met.join(", "));
        }
        Ok(result)
    }
}

/// Sends one packet through a program.
fn pass(program: BorrowedFd<'_>, hook: Hook, packet: &Packet) -> anyhow::Result<Vec<u8>> {
    let Ran { result, frame } = bpf::test_run(program, &packet.frame(), 1)?;
    ensure!(result == hook.pass(), "a packet was not sent on: the program returned {}", result as i32);
    Ok(frame)
}

/// An address outside of all Services.
pub(crate) fn elsewhere(net: Net, number: u8) -> IpAddr {
    net.outside(number)
}
