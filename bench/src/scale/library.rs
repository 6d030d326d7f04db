//! The steps from files to maps one by one, in this process.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_common::tables::Spec;
use lb_userspace::maps::KernelStore;
use lb_userspace::model::allocate::{Allocator, Ranges};
use lb_userspace::model::desired::{Edit, Surroundings};
use lb_userspace::model::{Basis, Model, ModelConfig, News};
use lb_userspace::plan::{Limits, Options, Planner, apply, steady_clock};
use lb_userspace::source::{Change, Source};
use nix::time::{ClockId, clock_gettime};

use super::Setting;
use super::counting::{Counting, Written};
use super::live::PODS;
use crate::manifests::{self, POD_CIDR, SERVICE_CIDR};
use crate::sample::Spread;

/// What the steps take.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Steps {
    /// Reading and checking the files, ms.
    pub(crate) parse_ms: f64,
    /// From objects to the desired state, ms.
    pub(crate) model_ms: f64,
    /// From the desired state to a plan for empty maps, ms.
    pub(crate) plan_ms: Spread,
    /// Writing it, ms.
    pub(crate) write_ms: Spread,
    /// What was written.
    pub(crate) load: Written,
    /// From a file with one other endpoint of one Service until it is written: reading, planning and writing, ms.
    pub(crate) change_ms: Spread,
    /// What was written for that.
    pub(crate) change: Written,
}

/// Measures a setting whose manifests are in `manifests`.
pub(crate) fn steps(
    setting: Setting,
    folder: &Path,
    rounds: usize,
    changes_wanted: usize,
) -> anyhow::Result<Steps> {
    let config = ModelConfig {
        service_cidrs: vec![SERVICE_CIDR.parse()?],
        pod_cidrs: vec![POD_CIDR.parse()?],
        ..ModelConfig::default()
    };
    let changing = |pod: Ipv4Addr| {
        let text = manifests::documents(setting.services, &[pod]);
        fs::write(folder.join("changing.yaml"), text).context("write a manifest")
    };
    changing(PODS[0])?;
    let start = cpu()?;
    let mut source = Source::new([folder]);
    let changes = source.look();
    let parse_ms = millis(start)?;
    ensure!(source.problems().is_empty(), "the manifests have problems: {:?}", source.problems().first());
    let start = cpu()?;
    let (mut allocator, _) = Allocator::open(Ranges::default(), None);
    allocator.allocate(&source.store().services());
    let mut model = Model::default();
    let edits = update(&mut model, &config, &source, &allocator, &changes);
    let model_ms = millis(start)?;
    let (mut plan_ms, mut write_ms) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..rounds.max(1) {
        drop(last.take());
        let mut store =
            Counting::new(KernelStore::create(|spec| setting.entries(spec)).context("make maps")?);
        let limits = Limits::of(&store)?;
        let mut planner = Planner::adopt(&store, limits, Options::default(), steady_clock())?;
        let [plan, write] = sync(&mut planner, &mut store, model.surroundings(), &edits)?;
        plan_ms.push(plan);
        write_ms.push(write);
        let load = store.take();
        last = Some((store, planner, load));
    }
    let (mut store, mut planner, load) = last.context("no round")?;
    drop(edits);
    let (mut change_ms, mut change) = (Vec::new(), Written::default());
    for number in 0..changes_wanted {
        changing(PODS[(number + 1) % 2])?;
        let start = cpu()?;
        let changes = source.look();
        let edits = update(&mut model, &config, &source, &allocator, &changes);
        sync(&mut planner, &mut store, model.surroundings(), &edits)?;
        change_ms.push(millis(start)?);
        let written = store.take();
        change = if written.operations > change.operations { written } else { change };
    }
    Ok(Steps {
        parse_ms,
        model_ms,
        plan_ms: Spread::of(plan_ms),
        write_ms: Spread::of(write_ms),
        load,
        change_ms: Spread::of(change_ms),
        change,
    })
}

/// What the model makes of changes; they are about Services with addresses of their own.
fn update(
    model: &mut Model,
    config: &ModelConfig,
    source: &Source,
    allocator: &Allocator,
    changes: &[Change],
) -> Vec<Edit> {
    let basis = Basis { config, store: source.store(), allocations: allocator.given() };
    model.update(basis, News { changes, reallocated: &BTreeSet::new() })
}

/// Brings the maps to this state. Gives the time for planning and for writing, ms.
fn sync(
    planner: &mut Planner,
    store: &mut Counting,
    surroundings: &Surroundings,
    edits: &[Edit],
) -> anyhow::Result<[f64; 2]> {
    let start = cpu()?;
    let plan = planner.plan_edits(surroundings, edits)?;
    let plan_ms = millis(start)?;
    ensure!(plan.problems.is_empty(), "it does not fit: {:?}", plan.problems.first());
    let start = cpu()?;
    apply(store, &plan)?;
    planner.commit();
    Ok([plan_ms, millis(start)?])
}

/// CPU time of this thread, which does all of this alone: the same as the time that passes on an idle machine.
fn cpu() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read the thread's CPU time")?.into())
}

fn millis(since: Duration) -> anyhow::Result<f64> {
    Ok(cpu()?.saturating_sub(since).as_secs_f64() * 1e3)
}

impl Setting {
    /// Entries of a map: as many as by default, and more of those that would not do.
    pub(crate) fn entries(self, spec: &Spec) -> u32 {
        use lb_common::tables::Table;
        match spec.table {
            Table::FrontendsV4 | Table::FrontendsV6 | Table::Turns => self.frontends().max(spec.max_entries),
            _ => spec.max_entries,
        }
    }

    /// Entries of the frontends tables: each Service has two, one for its port and one for its address.
    pub(crate) fn frontends(self) -> u32 {
        (2 * self.services + 1_024).next_power_of_two().max(65_536)
    }
}
