//! The planner: what changed, who has which frontend, and the order of operations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{BackendEntry, FrontendEntry, SlotRange, SourceRangeKey, backend_flag};
use lb_common::engine::filter::cell;

use super::adopt::Strays;
use super::classes::{classes, settings};
use super::numbers::Allocator;
use super::op::{Op, Plan};
use super::words::{FrontendName, prefix};
use super::{Clock, Limits, Options, Problem, Tables, dump};
use crate::model::desired::{Desired, Edit, Service, ServicePortName, Surroundings};

/// Names are shared between the planner's indices.
pub(super) type Name = Arc<ServicePortName>;

/// When an operation happens within a plan.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Before anything refers to it.
    Make,
    /// New and changed frontends.
    Flip,
    /// Frontends that go.
    Drop,
    /// What nothing refers to any more.
    Unmake,
    /// Names, last of all: until then a restart knows whose leftovers it finds.
    Forget,
}

const PHASES: usize = 5;

/// What is in the tables for one service port.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) id: u32,
    /// Backends that are alive: identity and number, ordered.
    pub(super) backends: Box<[(SocketAddr, u32)]>,
    pub(super) source_ranges: BTreeSet<SourceRangeKey>,
}

impl State {
    /// Where a backend is, or belongs.
    pub(super) fn place(&self, identity: SocketAddr) -> Result<usize, usize> {
        self.backends.binary_search_by_key(&identity, |(known, _)| *known)
    }
}

/// Turns desired states into plans, and remembers what is in the tables.
///
/// A plan is to be applied whole and then [committed](Self::commit); after a failure the tables are to be
/// [adopted](Self::readopt) again. [`Self::sync`] does all of that.
pub struct Planner {
    pub(super) options: Options,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) tables: Tables,
    pub(super) frontend_ids: Allocator,
    pub(super) service_ids: Allocator,
    pub(super) backend_ids: Allocator,
    pub(super) slots: Allocator,
    /// How many lists of frontends refer to a run of slots.
    pub(super) runs: HashMap<SlotRange, u32>,
    /// Runs that overlap others or leave the table: found when adopting, never used again.
    pub(super) spoilt_runs: HashSet<SlotRange>,
    /// Frontends found with a number that another one has, or that is out of range.
    pub(super) spoilt_ids: HashSet<FrontendName>,
    /// Frontend numbers whose counters are not zero.
    pub(super) used_turns: HashSet<u32>,
    pub(super) services: BTreeMap<Name, State>,
    pub(super) desired: BTreeMap<Name, Arc<Service>>,
    /// What was desired before the tables were adopted again, until the next plan.
    pub(super) carried: BTreeMap<Name, Arc<Service>>,
    pub(super) surroundings: Option<Surroundings>,
    pub(super) claims: HashMap<FrontendName, BTreeSet<Name>>,
    pub(super) contested: BTreeSet<FrontendName>,
    /// Entries of the tables of frontends, IPv4 and IPv6.
    pub(super) frontend_counts: [u32; 2],
    /// How many of them the plan removes.
    pub(super) leaving: [u32; 2],
    /// Frontends of kind ClusterIP by address.
    pub(super) cluster_ips: HashMap<IpAddr, u32>,
    /// Services that did not fit.
    pub(super) unsatisfied: BTreeSet<Name>,
    pub(super) owners_left_out: BTreeSet<IpAddr>,
    pub(super) classes_left_out: bool,
    pub(super) strays: Strays,
    pub(super) fresh: bool,
    pub(super) uncommitted: bool,
    pub(super) phases: [Vec<Op>; PHASES],
    pub(super) problems: Vec<Problem>,
}

impl Planner {
    /// What is in the tables once the last plan is applied.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Whether a plan waits for [`Self::commit`] or [`Self::readopt`].
    pub fn is_uncommitted(&self) -> bool {
        self.uncommitted
    }

    /// The last plan was applied whole.
    pub fn commit(&mut self) {
        self.uncommitted = false;
        for (count, leaving) in self.frontend_counts.iter_mut().zip(&mut self.leaving) {
            *count -= std::mem::take(leaving);
        }
        let now = (self.clock)();
        self.settle(now);
    }

    pub(super) fn settle(&mut self, now: Duration) {
        for numbers in [&mut self.frontend_ids, &mut self.service_ids, &mut self.backend_ids, &mut self.slots]
        {
            numbers.settle(now);
        }
    }

    /// What to do so that the tables say what is desired.
    ///
    /// # Errors
    /// The last plan was neither committed nor given up by adopting again.
    pub fn plan(&mut self, desired: &Desired) -> Result<Plan, Uncommitted> {
        let surroundings = &desired.surroundings;
        let around_changed = self.surroundings.as_ref() != Some(surroundings);
        let edits = self.compare(desired, around_changed);
        self.plan_some(surroundings, around_changed, edits)
    }

    /// The same for a caller who knows which services may have changed since the last plan: the others stay as they are, also
    /// over [`Self::readopt`].
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn plan_edits(&mut self, surroundings: &Surroundings, edits: &[Edit]) -> Result<Plan, Uncommitted> {
        let around_changed = self.surroundings.as_ref() != Some(surroundings);
        let edits = if self.fresh || around_changed {
            self.all_with(edits)
        } else {
            let edits: BTreeMap<_, _> = edits.iter().cloned().collect();
            edits
                .into_iter()
                .map(served)
                .filter(|(name, after)| self.desired.get(name) != after.as_ref())
                .collect()
        };
        self.plan_some(surroundings, around_changed, edits)
    }

    fn plan_some(
        &mut self,
        surroundings: &Surroundings,
        around_changed: bool,
        edits: Vec<Edit>,
    ) -> Result<Plan, Uncommitted> {
        if self.uncommitted {
            return Err(Uncommitted);
        }
        let rest = self.options.rest;
        let now = (self.clock)();
        for numbers in [&mut self.frontend_ids, &mut self.service_ids, &mut self.backend_ids, &mut self.slots]
        {
            numbers.wake(now, rest);
        }
        self.carried.clear();
        let names = edits.iter().map(|(name, _)| name.clone()).collect();
        let mut changes = Changes { names, touched: BTreeMap::new(), addresses: BTreeSet::new() };
        if self.fresh {
            self.clear_strays();
            changes.touched.extend(self.tables.frontends.keys().map(|name| (*name, None)));
            changes.addresses.extend(self.tables.frontends.keys().filter(|n| n.is_owner()).map(|n| n.addr));
        }
        if around_changed || self.classes_left_out {
            self.plan_surroundings(surroundings);
        }
        let mut work: BTreeSet<Name> = std::mem::take(&mut self.unsatisfied);
        work.extend(changes.names.iter().cloned());
        let mut maybe_gone = changes.names.clone();
        if self.fresh {
            maybe_gone.extend(self.services.keys().cloned());
        }
        self.take_claims(edits, &mut changes.touched, &mut changes.addresses, &mut work);

        for name in &work {
            let Some(service) = self.desired.get(name).cloned() else { continue };
            if !self.plan_service(name, &service, surroundings) {
                self.unsatisfied.insert(name.clone());
            }
        }
        for name in changes.touched.into_keys().filter(|name| !name.is_owner()) {
            self.drop_unclaimed(name);
        }
        if around_changed {
            changes.addresses.extend(self.cluster_ips.keys());
        }
        changes.addresses.append(&mut self.owners_left_out);
        for addr in changes.addresses {
            self.plan_owner(addr, surroundings);
        }
        self.drop_services(maybe_gone);
        self.report_contested();
        if around_changed {
            self.surroundings = Some(surroundings.clone());
        }
        self.fresh = false;
        Ok(self.finish())
    }

    pub(super) fn finish(&mut self) -> Plan {
        let mut ops = Vec::new();
        // Taken, not emptied: the room that a large plan takes is not needed again soon.
        for mut phase in std::mem::take(&mut self.phases) {
            // One table after another, so that each takes one call; within a table the order stays.
            phase.sort_by_key(|op| (op.removes(), op.table()));
            if ops.is_empty() {
                ops = phase;
            } else {
                ops.append(&mut phase);
            }
        }
        self.uncommitted = !ops.is_empty();
        let problems = std::mem::take(&mut self.problems);
        let expects = [&self.frontend_ids, &self.service_ids, &self.backend_ids, &self.slots]
            .iter()
            .any(|numbers| numbers.expects());
        let may_pass = problems.iter().any(Problem::may_pass);
        // A table that only has its entries removed at the end of this plan has room in the next.
        let retry = may_pass && (expects || ops.iter().any(Op::removes));
        Plan { ops, problems, retry_after: retry.then_some(self.options.rest) }
    }

    /// Which services differ from the last plan. Those without frontends count as absent (F3).
    fn compare(&self, desired: &Desired, all: bool) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        let mut old = self.desired.iter().peekable();
        for (name, service) in desired.services.iter().filter(|(_, s)| !s.frontends.is_empty()) {
            while let Some((gone, _)) = old.next_if(|(known, _)| known.as_ref() < name) {
                edits.push((gone.clone(), None));
            }
            match old.next_if(|(known, _)| known.as_ref() == name) {
                Some((known, before)) if all || before.as_ref() != service => {
                    edits.push((known.clone(), Some(Arc::new(service.clone()))));
                }
                Some(_) => {}
                None => edits.push((Arc::new(name.clone()), Some(Arc::new(service.clone())))),
            }
        }
        edits.extend(old.map(|(gone, _)| (gone.clone(), None)));
        edits
    }

    /// All there is, with these edits.
    fn all_with(&self, edits: &[Edit]) -> Vec<Edit> {
        let known = self
            .carried
            .iter()
            .chain(&self.desired)
            .map(|(name, service)| (name.clone(), Some(service.clone())));
        let mut all: BTreeMap<_, _> = known.collect();
        all.extend(edits.iter().cloned().map(served));
        all.into_iter().collect()
    }

    /// Takes apart those of `names` that are no longer desired.
    fn drop_services(&mut self, names: Vec<Name>) {
        for name in names.into_iter().filter(|name| !self.desired.contains_key(name)).collect::<Vec<_>>() {
            let Some(state) = self.services.remove(&name) else { continue };
            for (_, id) in state.backends {
                self.kill_backend(id);
            }
            for key in state.source_ranges {
                self.emit(Phase::Unmake, Op::SourceRange(key, false));
            }
            self.emit(Phase::Forget, Op::Name(state.id, None));
            self.service_ids.release(state.id, 1);
        }
    }

    fn plan_surroundings(&mut self, surroundings: &Surroundings) {
        let wanted = settings(surroundings, &self.options);
        if wanted != self.tables.settings {
            self.emit(Phase::Make, Op::Settings(wanted));
        }
        let wanted = classes(surroundings);
        let gone: Vec<_> =
            self.tables.classes.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        self.classes_left_out = false;
        for (key, class) in wanted {
            match self.tables.classes.get(&key) {
                Some(before) if *before == class => continue,
                None if self.tables.classes.len() >= self.limits.classes as usize => {
                    self.classes_left_out = true;
                    let range = prefix(key.addr, key.prefix_len);
                    self.problems.push(Problem::ClassTooMuch {
                        range: range.map(|net| net.to_string()).unwrap_or_default(),
                        capacity: self.limits.classes,
                    });
                }
                _ => self.emit(Phase::Make, Op::Class(key, Some(class))),
            }
        }
        for key in gone {
            self.emit(Phase::Unmake, Op::Class(key, None));
        }
    }

    pub(super) fn emit(&mut self, phase: Phase, op: Op) {
        if let Op::Frontend(name, entry) = &op {
            let count = &mut self.frontend_counts[usize::from(!name.addr.is_ipv4())];
            match (entry.is_some(), self.tables.frontends.contains_key(name)) {
                (true, false) => *count += 1,
                // What goes keeps its place until the plan is applied: see `commit`.
                (false, true) => self.leaving[usize::from(!name.addr.is_ipv4())] += 1,
                _ => {}
            }
        }
        match &op {
            Op::Frontend(name, Some(_)) => self.let_through(name.addr, cell::DIALLED),
            Op::Backend(_, entry) if entry.flags & backend_flag::ALIVE != 0 => {
                self.let_through(dump::backend_addr(entry).ip(), cell::ANSWERS);
            }
            _ => {}
        }
        self.tables.apply(&op);
        self.phases[phase as usize].push(op);
    }

    pub(super) fn frontend_capacity(&self, name: &FrontendName) -> u32 {
        if name.addr.is_ipv4() { self.limits.frontends_v4 } else { self.limits.frontends_v6 }
    }

    pub(super) fn has_room_for_frontend(&self, name: &FrontendName) -> bool {
        let used = if name.addr.is_ipv4() { self.frontend_counts[0] } else { self.frontend_counts[1] };
        used < self.frontend_capacity(name)
    }

    /// A number for a new frontend, its counters at zero.
    pub(super) fn new_frontend_id(&mut self) -> Option<u32> {
        let id = self.frontend_ids.take(1)?;
        if self.used_turns.remove(&id) {
            self.emit(Phase::Make, Op::ResetTurns(id));
        }
        Some(id)
    }

    /// The number of a frontend that is in place, unless it cannot keep it.
    pub(super) fn frontend_id(&self, name: &FrontendName) -> Option<u32> {
        let entry = self.tables.frontends.get(name)?;
        (!self.spoilt_ids.contains(name)).then_some(entry.frontend_id)
    }

    /// One more user of a run of slots.
    pub(super) fn hold(&mut self, run: SlotRange) {
        if run.count > 0 {
            *self.runs.entry(run).or_default() += 1;
        }
    }

    /// One user of a run of slots less; the last one gives it back.
    pub(super) fn let_go(&mut self, run: SlotRange) {
        let Some(users) = self.runs.get_mut(&run) else { return };
        *users -= 1;
        if *users == 0 {
            self.runs.remove(&run);
            if !self.spoilt_runs.contains(&run) {
                self.slots.release(run.base, run.count);
            }
        }
    }

    /// Writes or removes a frontend, and lets go of the slots and numbers that the old entry held.
    pub(super) fn set_frontend(&mut self, name: FrontendName, entry: Option<FrontendEntry>) {
        let before = self.tables.frontends.get(&name).copied();
        for run in entry.iter().flat_map(|entry| [entry.internal, entry.external]) {
            self.hold(run);
        }
        for run in before.iter().flat_map(|entry| [entry.internal, entry.external]) {
            self.let_go(run);
        }
        let spoilt = self.spoilt_ids.remove(&name);
        if let Some(before) = before
            && entry.is_none()
            && !name.is_owner()
            && !spoilt
        {
            self.used_turns.insert(before.frontend_id);
            self.frontend_ids.release(before.frontend_id, 1);
        }
        let phase = if entry.is_some() { Phase::Flip } else { Phase::Drop };
        self.emit(phase, Op::Frontend(name, entry));
    }

    /// Marks a backend dead, keeping its address, and lets go of its number.
    pub(super) fn kill_backend(&mut self, id: u32) {
        let entry = BackendEntry { flags: 0, ..self.tables.backend(id) };
        self.emit(Phase::Unmake, Op::Backend(id, entry));
        if id > 0 && id < self.limits.backends {
            self.backend_ids.release(id, 1);
        }
    }
}

/// A service without frontends counts as absent (F3).
fn served((name, service): Edit) -> Edit {
    (name, service.filter(|service| !service.frontends.is_empty()))
}

struct Changes {
    names: Vec<Name>,
    /// Frontends whose claims may change, with who had them.
    touched: BTreeMap<FrontendName, Option<Name>>,
    /// Addresses whose owner's entry may change.
    addresses: BTreeSet<IpAddr>,
}

/// A plan was made while the one before was neither committed nor given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the last plan was neither applied nor given up")]
pub struct Uncommitted;
