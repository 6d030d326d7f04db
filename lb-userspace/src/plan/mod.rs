//! Desired state and what is in the maps → a plan: a list of map operations that can be printed, tested and applied.
//!
//! - [`Tables`]: the agent's tables, decoded; prints as text.
//! - [`layout`], [`spread`], [`classes`]: what the tables should say about one service, and about the surroundings.
//! - [`numbers`]: ids and runs of slots.
//! - [`Planner`]: compares, gives out numbers and makes the [`Plan`].
//! - [`apply`]: the only place that changes maps.
//!
//! # Why a packet never sees a mix
//! A plan has three parts. *Make* writes what nothing refers to yet: names, new backends, fresh runs of slots. *Flip*
//! writes the frontends, each entry as a whole: from there on packets see the new backends. *Unmake* marks backends dead,
//! and removes names and ranges. Runs of slots and ids that become free rest for 100 ms, so that a packet
//! that looked up the old entry finds what it expects. Any first part of a plan followed by a restart leads to the same tables:
//! the planner takes up the numbers it finds ([`Planner::adopt`]) and plans again.

mod adopt;
mod apply;
mod claims;
pub mod classes;
mod dump;
mod filter;
pub mod layout;
mod limits;
pub mod numbers;
mod op;
mod planner;
mod service;
pub mod spread;
mod tables;
#[cfg(test)]
mod tests;
pub mod words;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use apply::{Applied, ApplyError, SyncError, SyncReport, apply};
pub use dump::Numbers;
pub(crate) use dump::{algorithm_name, backend_addr, kind_name};
pub use limits::{Limits, Problem, size_option};
pub use op::{Op, Plan};
pub use planner::Planner;
pub use tables::Tables;

/// Time since some fixed moment; tests bring their own.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A clock that goes on steadily while the machine runs.
pub fn steady_clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

/// Source ports for masqueraded flows: above the usual range for local sockets (32768–60999) and for node ports.
pub const DEFAULT_MASQUERADE_PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// What the planner may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Slots of a Maglev table; the next prime is taken if it is none (S3).
    pub maglev_slots: u32,
    /// First source port for masqueraded flows.
    pub snat_port_first: u16,
    /// Number of source ports from there on.
    pub snat_port_count: u16,
    /// How long a freed number rests: a packet is done with what it looked up in far less.
    pub rest: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            maglev_slots: spread::MAGLEV_SLOTS,
            snat_port_first: 0,
            snat_port_count: 0,
            rest: Duration::from_millis(100),
        }
        .with_masquerade_ports(&DEFAULT_MASQUERADE_PORTS)
    }
}

impl Options {
    /// The same with these source ports for masqueraded flows; 0 is none.
    #[must_use]
    pub fn with_masquerade_ports(mut self, ports: &RangeInclusive<u16>) -> Self {
        self.snat_port_first = *ports.start();
        self.snat_port_count = ports.len() as u16;
        self
    }
}
