//! A body and the agent's planner for it.

use std::sync::Arc;
use std::time::Duration;

use lb_common::tables::Table;
use lb_tests::rows::{Body, Error, body::clear};
use lb_userspace::plan::{Limits, Options, Planner};

use crate::actions::Action;

/// A body whose tables the planner fills.
pub(crate) struct Player<'a> {
    pub(crate) body: &'a mut dyn Body,
    planner: Planner,
}

impl<'a> Player<'a> {
    /// With empty tables. The limits are given, so that all players make the same plans.
    pub(crate) fn new(body: &'a mut dyn Body, limits: Limits) -> Result<Self, Error> {
        body.clear()?;
        let options =
            Options { maglev_slots: 61, snat_port_first: 61_000, snat_port_count: 8, ..Options::default() };
        // A clock that stands: no number is used twice.
        let planner = Planner::adopt(body.store(), limits, options, Arc::new(|| Duration::ZERO))?;
        Ok(Self { body, planner })
    }

    /// Lets happen what is no packet.
    pub(crate) fn act(&mut self, action: &Action) -> Result<(), Error> {
        match action {
            Action::Advance(seconds) => self.body.advance(*seconds),
            Action::Serve(desired) => {
                // Two services may claim one frontend; that is no matter here.
                self.planner.sync(self.body.store(), desired)?;
                Ok(())
            }
            Action::LoseFlows => {
                clear(self.body.store(), Table::FlowsV4)?;
                clear(self.body.store(), Table::FlowsV6)
            }
            _ => Ok(()),
        }
    }
}

/// What fits into the tables of either body.
pub(crate) fn limits(body: &mut dyn Body) -> Limits {
    Limits::of(body.store()).expect("a body has all tables")
}
