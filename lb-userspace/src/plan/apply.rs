//! Plans into maps: the only place that changes them.

use std::time::{Duration, Instant};

use super::Problem;
use super::op::{Op, Plan};
use super::planner::{Planner, Uncommitted};
use crate::maps::{MapError, MapStore};
use crate::model::desired::{Desired, Edit, Surroundings};

/// A plan that is in the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Operations of the plan.
    pub operations: usize,
    /// Map entries written or removed.
    pub entries: usize,
    /// Calls made to the store.
    pub calls: usize,
}

/// A plan that is in the maps in part.
#[derive(Debug, thiserror::Error)]
#[error("after {done} of {of} map operations, at \"{operation}\": {source}")]
pub struct ApplyError {
    /// Operations that are in the maps for sure; some of those after may be as well.
    pub done: usize,
    /// Operations of the plan.
    pub of: usize,
    /// The operation, or the first of the batch, that failed.
    pub operation: String,
    /// Why.
    #[source]
    pub source: MapError,
}

/// Carries out a plan in its order, with one call for neighbours in the same table.
///
/// # Errors
/// [`ApplyError`] at the first failure; the rest is not tried. The planner then has to adopt the maps again.
pub fn apply(store: &mut dyn MapStore, plan: &Plan) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    let kind = |op: &Op| (op.table(), op.removes());
    for batch in plan.ops.chunk_by(|a, b| kind(a) == kind(b)) {
        let (table, removes) = kind(&batch[0]);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for op in batch {
            op.encode(&mut keys, &mut values);
            applied.entries += op.entries();
        }
        let result = if removes {
            store.delete_batch(table, &keys)
        } else {
            store.update_batch(table, &keys, &values)
        };
        result.map_err(|source| ApplyError {
            done: applied.operations,
            of: plan.ops.len(),
            operation: batch[0].to_string(),
            source,
        })?;
        applied.operations += batch.len();
        applied.calls += 1;
    }
    Ok(applied)
}

/// What [`Planner::sync`] did.
#[derive(Clone, Debug, Default)]
pub struct SyncReport {
    /// What was written.
    pub applied: Applied,
    /// Everything wanted that does not go.
    pub problems: Vec<Problem>,
    /// Call again after this time.
    pub retry_after: Option<Duration>,
    /// Time for comparing and planning.
    pub planning: Duration,
    /// Time for writing.
    pub writing: Duration,
}

/// Why [`Planner::sync`] failed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The tables could not be read.
    #[error("cannot adopt what is in the maps: {0}")]
    Adopt(#[source] MapError),
    /// The tables could not be written.
    #[error("the maps are only in part up to date, {0}")]
    Apply(#[source] ApplyError),
    /// A plan of somebody else's is under way.
    #[error(transparent)]
    Uncommitted(#[from] Uncommitted),
}

impl Planner {
    /// Plans, applies and commits. After a failure the maps are read again before the next plan, so calling this again is all that
    /// is needed.
    ///
    /// # Errors
    /// [`SyncError`]; the maps are then between the old state and the new, as after a crash: every frontend is right.
    pub fn sync(&mut self, store: &mut dyn MapStore, desired: &Desired) -> Result<SyncReport, SyncError> {
        self.sync_with(store, |planner| planner.plan(desired))
    }

    /// The same for a caller who knows what has changed, as [`Self::plan_edits`] has it.
    ///
    /// # Errors
    /// As [`Self::sync`]; the edits are to be given again.
    pub fn sync_edits(
        &mut self,
        store: &mut dyn MapStore,
        surroundings: &Surroundings,
        edits: &[Edit],
    ) -> Result<SyncReport, SyncError> {
        self.sync_with(store, |planner| planner.plan_edits(surroundings, edits))
    }

    fn sync_with(
        &mut self,
        store: &mut dyn MapStore,
        plan: impl FnOnce(&mut Self) -> Result<Plan, Uncommitted>,
    ) -> Result<SyncReport, SyncError> {
        let start = Instant::now();
        if self.is_uncommitted() {
            self.readopt(store).map_err(SyncError::Adopt)?;
        }
        let plan = plan(self)?;
        let planned = Instant::now();
        let applied = apply(store, &plan).map_err(SyncError::Apply)?;
        self.commit();
        Ok(SyncReport {
            applied,
            problems: plan.problems,
            retry_after: plan.retry_after,
            planning: planned - start,
            writing: planned.elapsed(),
        })
    }
}
