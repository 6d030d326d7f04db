//! What each step costs in operations on the maps.

use lb_userspace::maps::MemoryStore;
use lb_userspace::model::desired::Desired;
use lb_userspace::plan::{Limits, Options, Planner, steady_clock};

/// The maps over the steps of a file.
pub(in crate::cases) struct Writes {
    store: MemoryStore,
    planner: Option<Planner>,
}

impl Writes {
    pub(in crate::cases) fn new() -> Self {
        Self { store: MemoryStore::new(), planner: None }
    }

    /// Brings the maps up to date and counts the operations.
    pub(in crate::cases) fn count(&mut self, desired: &Desired) -> Result<usize, String> {
        let planner = match &mut self.planner {
            Some(planner) => planner,
            None => {
                let limits = Limits::of(&self.store).map_err(|error| error.to_string())?;
                let planner = Planner::adopt(&self.store, limits, Options::default(), steady_clock());
                self.planner.insert(planner.map_err(|error| error.to_string())?)
            }
        };
        let report = planner.sync(&mut self.store, desired).map_err(|error| error.to_string())?;
        if let Some(problem) = report.problems.first() {
            return Err(format!("not everything could be planned: {problem}"));
        }
        Ok(report.applied.operations)
    }
}
