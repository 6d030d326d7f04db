//! The kernel programs do what the host engine does, packet by packet and table by table. Needs root.

use std::cell::RefCell;
use std::collections::BTreeMap;

use lb_common::abi::{AffinityEntry, BackendStats, FlowEntry, FragmentEntry};
use lb_common::engine::answer::answer;
use lb_common::family::{V4Addr, V6Addr};
use lb_common::memory::MemoryPacket;
use lb_common::reason::{Class, Reason};
use lb_common::tables::Table;
use lb_tests::rows::look::{look, seems_partial};
use lb_tests::rows::row::Given;
use lb_tests::rows::{Body, Error, Hook, Host, Kernel};
use lb_userspace::maps::{MapStore, per_cpu, scan_flows};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::actions::{Action, actions, frame};
use crate::player::{Player, limits};

/// Tables that the programs write, and that must come out alike.
const WRITTEN: &[Table] = &[
    Table::FlowsV4,
    Table::FlowsV6,
    Table::Affinity,
    Table::Fragments,
    Table::Turns,
    Table::OpenFlows,
    Table::BackendStats,
];

/// A table's contents without times, and with the sums over all CPUs.
fn contents(store: &dyn MapStore, table: Table) -> Result<BTreeMap<Vec<u8>, String>, Error> {
    macro_rules! timeless {
        ($value:expr, $entry:ty) => {{
            let mut entry: $entry = bytemuck::pod_read_unaligned($value);
            entry.last_seen = 0;
            format!("{entry:?}")
        }};
    }
    let mut contents = BTreeMap::new();
    macro_rules! flows {
        ($address:ty) => {{
            scan_flows::<$address>(store, &mut |key, entry| {
                let entry = FlowEntry { last_seen: 0, ..*entry };
                contents.insert(bytemuck::bytes_of(key).to_vec(), format!("{entry:?}"));
            })?;
            return Ok(contents);
        }};
    }
    match table {
        Table::FlowsV4 => flows!(V4Addr),
        Table::FlowsV6 => flows!(V6Addr),
        _ => {}
    }
    store.scan(table, &mut |key, value| {
        let text = match table {
            Table::Affinity => timeless!(value, AffinityEntry),
            Table::Fragments => timeless!(value, FragmentEntry),
            Table::BackendStats => {
                let add = |mut sum: [u64; 6], cpu: BackendStats| {
                    let parts = [
                        cpu.to_backend.packets,
                        cpu.to_backend.bytes,
                        cpu.from_backend.packets,
                        cpu.from_backend.bytes,
                        cpu.flows_opened,
                        cpu.flows_closed,
                    ];
                    sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
                    sum
                };
                format!("{:?}", per_cpu::<BackendStats>(value).fold([0; 6], add))
            }
            _ => format!("{value:?}"),
        };
        contents.insert(key.to_vec(), text);
    })?;
    Ok(contents)
}

/// How many packets met which reason.
type Met = BTreeMap<Reason, usize>;

/// Plays one sequence on both.
fn play(kernel: &mut Kernel, actions: &[Action], met: &mut Met) -> Result<Result<(), String>, Error> {
    let hook = kernel.hook();
    let mut host = Host::new();
    let limits = limits(kernel);
    let mut host = Player::new(&mut host, limits)?;
    let mut kernel = Player::new(kernel, limits)?;
    let mut forwarded = Vec::new();
    for (number, action) in actions.iter().enumerate() {
        let Some((frame, position)) = frame(action, &forwarded) else {
            host.act(action)?;
            kernel.act(action)?;
            continue;
        };
        // One complete checksum in 65,536 looks partial. At tc the kernel knows better.
        if !hook.takes(&frame) || (!hook.guesses_partial() && seems_partial(&frame)) {
            continue;
        }
        let ours = host.body.run(&frame, position)?;
        let theirs = kernel.body.run(&frame, position)?;
        if ours.reason != theirs.reason {
            let text = format!("action {number}: host {:?}, kernel {:?}", ours.reason, theirs.reason);
            return Ok(Err(text));
        }
        let Some(reason) = ours.reason else { return Ok(Err(format!("action {number} was not counted"))) };
        *met.entry(reason).or_default() += 1;
        let answered =
            reason.class() == Class::Answered && answer(&mut MemoryPacket(frame.clone()), reason).is_some();
        let given = Given { frame, position, reason, out: Vec::new(), answer: None, stats: None, like: None };
        let (action, left) = hook.after(&given, &ours.frame, answered.then_some(&ours.frame[..]));
        if theirs.action != action || left.is_some_and(|left| left != theirs.frame) {
            let text =
                format!("action {number} ({reason:?}): {given:02x?}\nhost {ours:02x?}\nkernel {theirs:02x?}");
            return Ok(Err(text));
        }
        if reason.class() == Class::Forwarded
            && let Some(look) = look(&ours.frame)
        {
            forwarded.push((look, ours.frame));
        }
    }
    for table in WRITTEN {
        let (ours, theirs) = (contents(host.body.store(), *table)?, contents(kernel.body.store(), *table)?);
        if ours != theirs {
            return Ok(Err(format!("{table:?}: host {ours:#?}\nkernel {theirs:#?}")));
        }
    }
    Ok(Ok(()))
}

/// Reasons that sequences meet often, and how often at the very least.
const COMMON: &[(Reason, usize)] = &[
    (Reason::NewFlow, 100),
    (Reason::ToBackend, 25),
    (Reason::FromBackend, 75),
    (Reason::IcmpError, 15),
    (Reason::LateFragment, 25),
    (Reason::Malformed, 50),
    (Reason::RejectedNoBackend, 25),
    (Reason::RejectedPort, 50),
    (Reason::DropUnowned, 25),
];

fn check(hook: Hook) {
    let kernel = Kernel::load(hook).unwrap_or_else(|error| panic!("root and kernel 5.18 needed: {error}"));
    let kernel = RefCell::new(kernel);
    let config =
        Config { cases: 200, max_shrink_iters: 2_000, source_file: Some(file!()), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let met = RefCell::new(Met::new());
    let result = runner.run(&actions(), |actions| {
        match play(&mut kernel.borrow_mut(), &actions, &mut met.borrow_mut()) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(text)) => Err(TestCaseError::fail(text)),
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        }
    });
    match result {
        Ok(()) => {
            // Sequences that meet nothing would agree as well.
            let met = met.borrow();
            for (reason, least) in COMMON {
                let count = met.get(reason).copied().unwrap_or(0);
                assert!(count >= *least, "{reason:?} was met {count} times only");
            }
        }
        Err(TestError::Fail(reason, actions)) => panic!("{reason}\nactions: {actions:#?}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn xdp() {
    check(Hook::Xdp);
}

#[test]
fn xdp_frags() {
    check(Hook::XdpFrags);
}

#[test]
fn tc() {
    check(Hook::Tc);
}
