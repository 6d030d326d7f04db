//! What holds for any sequence of packets and services, on the host build of the engine: nothing panics, every verdict has a
//! reason, what is left alone is left bit for bit, what is sent on has right checksums, replies find their way back, and flows keep
//! their backends while services change.

use std::collections::HashMap;
use std::fmt::Debug;

use lb_common::engine::Position;
use lb_common::reason::{Class, Reason};
use lb_userspace::model::desired::Protocol;

use super::look::{Look, checksums_hold, look, seems_partial};
use super::net::At;
use super::row::Say;
use super::sequence::{Event, Player, Sequence, limits};
use super::{Body, Host, Packet};

fn wrong(error: impl std::error::Error) -> String {
    error.to_string()
}

fn same<T: PartialEq + Debug>(one: T, other: T, what: impl FnOnce() -> String) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{}: {one:02x?} is not {other:02x?}", what())) }
}

fn differ<T: PartialEq + Debug>(one: T, other: T, what: impl FnOnce() -> String) -> Result<(), String> {
    if one == other { Err(format!("{}: not {one:?}", what())) } else { Ok(()) }
}

/// Sets of each flow table: more than any sequence fills.
const FLOW_SETS: u32 = 4_096;

/// Who calls whom: protocol, source, destination.
type Ends = (u8, At, At);

/// Checks one sequence packet by packet.
struct Watch<'a> {
    player: Player<'a>,
    forwarded: Vec<(Look, Vec<u8>)>,
    /// What flows have become of, as far as they are known.
    flows: HashMap<Ends, (At, At)>,
}

impl Watch<'_> {
    fn packet(&mut self, frame: &[u8], position: Position) -> Result<(), String> {
        let outcome = self.player.body.run(frame, position).map_err(wrong)?;
        let reason = outcome.reason.ok_or("not counted")?;
        match reason.class() {
            Class::Passed | Class::Dropped => {
                differ(reason, Reason::DropTables, || "the tables hold together".to_owned())?;
                same(&outcome.frame[..], frame, || format!("left alone: {:?}", reason))?;
            }
            Class::Forwarded => self.sent(frame, &outcome.frame, reason)?,
            Class::Answered => {}
        }
        Ok(())
    }

    fn sent(&mut self, frame: &[u8], out: &[u8], reason: Reason) -> Result<(), String> {
        same(frame.len(), out.len(), || "length".to_owned())?;
        let (Some(before), Some(after)) = (look(frame), look(out)) else {
            return Err("what is forwarded can be read".to_owned());
        };
        same(&frame[..before.network], &out[..before.network], || "link header".to_owned())?;
        same(&frame[before.end..], &out[before.end..], || "behind the end".to_owned())?;
        same((before.transport, before.end), (after.transport, after.end), || "headers".to_owned())?;
        if checksums_hold(frame) == Some(true) && !seems_partial(frame) {
            same(checksums_hold(out), Some(true), || format!("checksums after {:?}", reason))?;
        }
        let ends = (before.protocol, before.src, before.dst);
        let there = (after.src, after.dst);
        if after.fragment && reason == Reason::NewFlow {
            // The first fragment of a datagram opens a flow as any packet does.
            self.flows.insert(ends, there);
        }
        if after.fragment || reason == Reason::IcmpError {
            return Ok(());
        }
        match reason {
            Reason::NewFlow => {
                self.flows.insert(ends, there);
                self.reply(&before, &after)?;
            }
            Reason::ToBackend => {
                same(self.flows.get(&ends), Some(&there), || "a flow keeps its backend".to_owned())?;
                self.reply(&before, &after)?;
            }
            _ => {}
        }
        self.forwarded.push((after, out.to_vec()));
        Ok(())
    }

    /// A reply to what was sent on as `after` comes back to the client, as from whom it has called.
    fn reply(&mut self, before: &Look, after: &Look) -> Result<(), String> {
        let protocol = Protocol::from_number(before.protocol).ok_or("protocol")?;
        let packet = Packet::new(after.dst, after.src, Say::Data.upper(protocol)).payload(*b"reply");
        let expected = packet.clone().from(before.dst).to(before.src).frame();
        let frame = packet.frame();
        if seems_partial(&frame) {
            return Ok(());
        }
        let outcome = self.player.body.run(&frame, Position::default()).map_err(wrong)?;
        same(outcome.reason, Some(Reason::FromBackend), || format!("reply to {:?}", before))?;
        same(outcome.frame, expected, || "the reply".to_owned())?;
        Ok(())
    }
}

/// Checks a sequence on a host engine with empty tables.
///
/// # Errors
/// What does not hold, for people.
pub fn watch(sequence: &dyn Sequence) -> Result<(), String> {
    // Large tables take longer to make than sequences to run.
    let mut host = Host::with_flow_sets(FLOW_SETS);
    let limits = limits(&mut host).map_err(wrong)?;
    let player = Player::new(&mut host, limits).map_err(wrong)?;
    let mut watch = Watch { player, forwarded: Vec::new(), flows: HashMap::new() };
    for number in 0..sequence.count() {
        let happened = match sequence.event(number, &watch.forwarded) {
            None => Ok(()),
            Some(Event::Packet(frame, position)) => {
                watch.packet(&frame, position).map_err(|text| format!("event {number}: {text}"))?;
                Ok(())
            }
            Some(Event::Advance(seconds)) => watch.player.advance(seconds),
            Some(Event::Serve(desired)) => watch.player.serve(&desired),
            Some(Event::LoseFlows) => watch.player.lose_flows(),
        };
        happened.map_err(wrong)?;
    }
    bounded(watch.player.body)
}

/// No table holds more than it has room for.
///
/// # Errors
/// The table that does.
pub fn bounded(body: &mut dyn Body) -> Result<(), String> {
    for spec in lb_common::tables::SPECS {
        let (mut count, table) = (0_u64, spec.table);
        body.store().scan(table, &mut |_, _| count += 1).map_err(wrong)?;
        // A flow set is one entry of the map, and all of its ways are scanned as one.
        if count > u64::from(spec.max_entries) {
            return Err(format!("{table:?} holds {count} entries, there is room for {}", spec.max_entries));
        }
    }
    Ok(())
}
