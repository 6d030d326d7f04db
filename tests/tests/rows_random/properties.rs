//! What holds for any packets and services, on the host build of the engine.

use std::collections::HashMap;

use lb_common::engine::Position;
use lb_common::reason::{Class, Reason};
use lb_tests::rows::look::{Look, checksums_hold, look, seems_partial};
use lb_tests::rows::net::At;
use lb_tests::rows::row::Say;
use lb_tests::rows::{Body, Host, Packet};
use lb_userspace::model::desired::Protocol;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::actions::{Action, actions, frame};
use crate::player::{Player, limits};

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
    fn packet(&mut self, frame: &[u8], position: Position) -> Result<(), TestCaseError> {
        let outcome =
            self.player.body.run(frame, position).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let reason = outcome.reason.ok_or_else(|| TestCaseError::fail("not counted"))?;
        match reason.class() {
            Class::Passed | Class::Dropped => {
                prop_assert_ne!(reason, Reason::DropTables, "the tables hold together");
                prop_assert_eq!(&outcome.frame[..], frame, "left alone: {:?}", reason);
            }
            Class::Forwarded => self.sent(frame, &outcome.frame, reason)?,
            Class::Answered => {}
        }
        Ok(())
    }

    fn sent(&mut self, frame: &[u8], out: &[u8], reason: Reason) -> Result<(), TestCaseError> {
        prop_assert_eq!(frame.len(), out.len());
        let (Some(before), Some(after)) = (look(frame), look(out)) else {
            return Err(TestCaseError::fail("what is forwarded can be read"));
        };
        prop_assert_eq!(&frame[..before.network], &out[..before.network], "link header");
        prop_assert_eq!(&frame[before.end..], &out[before.end..], "behind the end");
        prop_assert_eq!((before.transport, before.end), (after.transport, after.end));
        if checksums_hold(frame) == Some(true) && !seems_partial(frame) {
            prop_assert_eq!(checksums_hold(out), Some(true), "checksums after {:?}", reason);
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
                prop_assert_eq!(self.flows.get(&ends), Some(&there), "a flow keeps its backend");
                self.reply(&before, &after)?;
            }
            _ => {}
        }
        self.forwarded.push((after, out.to_vec()));
        Ok(())
    }

    /// A reply to what was sent on as `after` comes back to the client, as from whom it has called.
    fn reply(&mut self, before: &Look, after: &Look) -> Result<(), TestCaseError> {
        let protocol =
            Protocol::from_number(before.protocol).ok_or_else(|| TestCaseError::fail("protocol"))?;
        let packet = Packet::new(after.dst, after.src, Say::Data.upper(protocol)).payload(*b"reply");
        let expected = packet.clone().from(before.dst).to(before.src).frame();
        let frame = packet.frame();
        if seems_partial(&frame) {
            return Ok(());
        }
        let outcome = self
            .player
            .body
            .run(&frame, Position::default())
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(outcome.reason, Some(Reason::FromBackend), "reply to {:?}", before);
        prop_assert_eq!(outcome.frame, expected);
        Ok(())
    }
}

fn check(actions: &[Action]) -> Result<(), TestCaseError> {
    let mut host = Host::new();
    let limits = limits(&mut host);
    let player = Player::new(&mut host, limits).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let mut watch = Watch { player, forwarded: Vec::new(), flows: HashMap::new() };
    for action in actions {
        match frame(action, &watch.forwarded) {
            Some((frame, position)) => watch.packet(&frame, position)?,
            None => watch.player.act(action).map_err(|error| TestCaseError::fail(error.to_string()))?,
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Nothing panics, what is left alone is left bit for bit, what is sent on has right checksums, replies find their way
    /// back, and flows keep their backends while services change.
    #[test]
    fn any_sequence(actions in actions()) {
        check(&actions)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), external: bool, egress: bool) {
        let mut host = Host::new();
        let outcome = host.run(&bytes, Position { external, egress }).expect("the host counts");
        // Without services there is nothing to do for any packet.
        prop_assert_eq!(outcome.frame, bytes);
    }
}
