//! The kernel programs do what the host engine does, packet by packet and table by table.

use std::collections::BTreeMap;

use lb_common::abi::{AffinityEntry, BackendStats, FlowEntry, FragmentEntry};
use lb_common::engine::answer::answer;
use lb_common::family::{V4Addr, V6Addr};
use lb_common::memory::MemoryPacket;
use lb_common::reason::{Class, Reason};
use lb_common::tables::Table;
use lb_userspace::maps::{MapStore, per_cpu, scan_flows};

use super::look::{look, seems_partial};
use super::row::Given;
use super::sequence::{Event, Player, Sequence, limits};
use super::{Body, Error, Host, Kernel};

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
pub type Met = BTreeMap<Reason, usize>;

/// Plays one sequence on the host and on a kernel program. Gives what they did not agree on.
///
/// # Errors
/// [`Error`]: one of them could not be used.
pub fn agree(
    kernel: &mut Kernel,
    sequence: &dyn Sequence,
    met: &mut Met,
) -> Result<Result<(), String>, Error> {
    let hook = kernel.hook();
    let mut host = Host::new();
    let limits = limits(kernel)?;
    let mut host = Player::new(&mut host, limits)?;
    let mut kernel = Player::new(kernel, limits)?;
    let mut forwarded = Vec::new();
    for number in 0..sequence.count() {
        let (frame, position) = match sequence.event(number, &forwarded) {
            None => continue,
            Some(Event::Packet(frame, position)) => (frame, position),
            Some(other) => {
                for player in [&mut host, &mut kernel] {
                    match &other {
                        Event::Advance(seconds) => player.advance(*seconds)?,
                        Event::Serve(desired) => player.serve(desired)?,
                        Event::LoseFlows => player.lose_flows()?,
                        Event::Packet(..) => {}
                    }
                }
                continue;
            }
        };
        // One complete checksum in 65,536 looks partial. At tc the kernel knows better.
        if !hook.takes(&frame) || (!hook.guesses_partial() && seems_partial(&frame)) {
            continue;
        }
        let ours = host.body.run(&frame, position)?;
        let theirs = kernel.body.run(&frame, position)?;
        if ours.reason != theirs.reason {
            let text = format!("event {number}: host {:?}, kernel {:?}", ours.reason, theirs.reason);
            return Ok(Err(text));
        }
        let Some(reason) = ours.reason else { return Ok(Err(format!("event {number} was not counted"))) };
        *met.entry(reason).or_default() += 1;
        let answered =
            reason.class() == Class::Answered && answer(&mut MemoryPacket(frame.clone()), reason).is_some();
        let given = Given { frame, position, reason, out: Vec::new(), answer: None, stats: None, like: None };
        let (action, left) = hook.after(&given, &ours.frame, answered.then_some(&ours.frame[..]));
        if theirs.action != action || left.is_some_and(|left| left != theirs.frame) {
            let text =
                format!("event {number} ({reason:?}): {given:02x?}\nhost {ours:02x?}\nkernel {theirs:02x?}");
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
