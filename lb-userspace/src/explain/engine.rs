//! The host build of the engine meets the packet.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use lb_common::abi::{FrontendEntry, FrontendKey};
use lb_common::engine::answer::answer;
use lb_common::engine::open::{Origin, frontend_key, origin};
use lb_common::engine::{Position, process};
use lb_common::memory::{Memory, MemoryPacket};
use lb_common::reason::{Class, Reason};
use lb_common::tables::Table;

use super::packet::{Headers, Kind, headers};
use super::target::Question;
use crate::model::desired::Desired;
use crate::plan::words::{v4_word, v6_words};
use crate::plan::{Limits, Options, Planner, steady_clock};

/// What became of the packet.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) reason: Reason,
    pub(super) origin: Origin,
    /// The frontend's entry, when one matched.
    pub(super) frontend: Option<FrontendEntry>,
    /// The packet afterwards: rewritten, answered, or as it came.
    pub(super) frame: Vec<u8>,
    /// Its headers, when it was rewritten or answered.
    pub(super) after: Option<Headers>,
    /// Map operations between what the tables held and what the manifests want.
    pub(super) operations: usize,
}

/// Fills the tables and runs the packet. What `memory` holds already is taken over, as a restarted agent does it.
pub(super) fn run(mut memory: Memory, desired: &Desired, question: &Question) -> anyhow::Result<Run> {
    let limits = Limits::of(&memory)?;
    let mut planner = Planner::adopt(&memory, limits, Options::default(), steady_clock())?;
    let report = planner.sync(&mut memory, desired)?;
    if let Some(problem) = report.problems.first() {
        bail!("{problem}");
    }
    let position = Position { egress: false, external: question.external };
    let (origin, frontend) = before(&memory, question);
    let mut packet = MemoryPacket(question.packet.frame()?);
    let reason = process(&mut packet, &&memory, position);
    let changed = match reason.class() {
        Class::Forwarded => true,
        Class::Answered => answer(&mut packet, reason).is_some(),
        Class::Passed | Class::Dropped => false,
    };
    let after = match changed {
        true => Some(headers(&packet.0).context("what came out has no headers")?),
        false => None,
    };
    Ok(Run { reason, origin, frontend, frame: packet.0, after, operations: report.applied.operations })
}

/// Where the packet comes from, and the frontend it is for.
fn before(memory: &Memory, question: &Question) -> (Origin, Option<FrontendEntry>) {
    let Headers { source, destination } = question.packet.headers;
    let protocol = match question.packet.kind {
        Kind::Transport(protocol) => protocol.number(),
        Kind::Ping => 0,
    };
    let port_be = destination.port.unwrap_or(0).to_be();
    let tables = &memory;
    let origin = match source.address {
        IpAddr::V4(address) => origin(tables, v4_word(address), question.external),
        IpAddr::V6(address) => origin(tables, v6_words(address), question.external),
    };
    let frontend = match destination.address {
        IpAddr::V4(address) => {
            let key: FrontendKey<_> = frontend_key(v4_word(address), port_be, protocol);
            memory.get(Table::FrontendsV4, &key)
        }
        IpAddr::V6(address) => {
            let key: FrontendKey<_> = frontend_key(v6_words(address), port_be, protocol);
            memory.get(Table::FrontendsV6, &key)
        }
    };
    (origin, frontend.filter(|_| protocol != 0))
}
