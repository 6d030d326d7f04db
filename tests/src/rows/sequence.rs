//! Sequences of anything that may happen, for random tests.

use std::sync::Arc;
use std::time::Duration;

use lb_common::engine::Position;
use lb_common::tables::Table;
use lb_userspace::model::desired::Desired;
use lb_userspace::plan::{Limits, Options, Planner};

use super::body::clear;
use super::look::Look;
use super::{Body, Error};

/// A packet that came out: what it is, and its bytes.
pub type Sent = (Look, Vec<u8>);

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A packet comes.
    Packet(Vec<u8>, Position),
    /// Seconds pass.
    Advance(u32),
    /// Services change.
    Serve(Desired),
    /// Flows are lost.
    LoseFlows,
}

/// Things that happen one after another.
pub trait Sequence {
    /// How many.
    fn count(&self) -> usize;

    /// The one of this number, after `sent` has come out so far; `None` when it comes to nothing then.
    fn event(&self, number: usize, sent: &[Sent]) -> Option<Event>;
}

/// A body whose tables the planner fills.
pub struct Player<'a> {
    /// The body.
    pub body: &'a mut dyn Body,
    planner: Planner,
}

impl<'a> Player<'a> {
    /// With empty tables. The limits are given, so that all players make the same plans.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub fn new(body: &'a mut dyn Body, limits: Limits) -> Result<Self, Error> {
        body.clear()?;
        let options =
            Options { maglev_slots: 61, snat_port_first: 61_000, snat_port_count: 8, ..Options::default() };
        // A clock that stands: no number is used twice.
        let planner = Planner::adopt(body.store(), limits, options, Arc::new(|| Duration::ZERO))?;
        Ok(Self { body, planner })
    }

    /// Lets seconds pass.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub fn advance(&mut self, seconds: u32) -> Result<(), Error> {
        self.body.advance(seconds)
    }

    /// Brings the tables to a state. Two services may claim one frontend; that is no matter here.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub fn serve(&mut self, desired: &Desired) -> Result<(), Error> {
        self.planner.sync(self.body.store(), desired)?;
        Ok(())
    }

    /// Empties the flow tables.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub fn lose_flows(&mut self) -> Result<(), Error> {
        clear(self.body.store(), Table::FlowsV4)?;
        clear(self.body.store(), Table::FlowsV6)
    }
}

/// What fits into the tables of a body.
///
/// # Errors
/// It lacks a table.
pub fn limits(body: &mut dyn Body) -> Result<Limits, Error> {
    Ok(Limits::of(body.store())?)
}
