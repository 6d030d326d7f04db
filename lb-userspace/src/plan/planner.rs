//! The planner: what changed, who has which frontend, and the order of operations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{BackendEntry, FrontendEntry, SlotRange, SourceRangeKey, backend_flag};
use lb_common::tables::Table;

use super::classes::{classes, settings};
use super::layout::{key_of, owner_flags, port_name};
use super::numbers::Allocator;
use super::op::{Op, Plan};
use super::words::{FrontendName, prefix};
use super::{Clock, Limits, Options, Problem, Tables, dump};
use crate::maps::{MapError, MapStore};
use crate::model::desired::{Desired, FrontendKind, Service, ServicePortName, Surroundings};

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
    /// Backends that are alive, by identity.
    pub(super) backends: BTreeMap<SocketAddr, u32>,
    pub(super) source_ranges: BTreeSet<SourceRangeKey>,
}

/// Leftovers that belong to no service, found when adopting.
#[derive(Clone, Debug, Default)]
struct Strays {
    backends: Vec<u32>,
    names: Vec<u32>,
    source_ranges: Vec<SourceRangeKey>,
    /// Service numbers that only strays use.
    ids: BTreeSet<u32>,
}

/// Turns desired states into plans, and remembers what is in the tables.
///
/// A plan is to be applied whole and then [committed](Self::commit); after a failure the tables are to be
/// [adopted](Self::readopt) again. [`Self::sync`] does all of that.
pub struct Planner {
    pub(super) options: Options,
    pub(super) limits: Limits,
    clock: Clock,
    pub(super) tables: Tables,
    pub(super) frontend_ids: Allocator,
    pub(super) service_ids: Allocator,
    pub(super) backend_ids: Allocator,
    pub(super) slots: Allocator,
    /// How many lists of frontends refer to a run of slots.
    pub(super) runs: HashMap<SlotRange, u32>,
    /// Runs that overlap others or leave the table: found when adopting, never used again.
    spoilt_runs: HashSet<SlotRange>,
    /// Frontends found with a number that another one has, or that is out of range.
    spoilt_ids: HashSet<FrontendName>,
    /// Frontend numbers whose counters are not zero.
    used_turns: HashSet<u32>,
    pub(super) services: BTreeMap<Name, State>,
    desired: BTreeMap<Name, Service>,
    surroundings: Option<Surroundings>,
    claims: HashMap<FrontendName, BTreeSet<Name>>,
    contested: BTreeSet<FrontendName>,
    /// Entries of the tables of frontends, IPv4 and IPv6.
    frontend_counts: [u32; 2],
    /// How many of them the plan removes.
    leaving: [u32; 2],
    /// Frontends of kind ClusterIP by address.
    cluster_ips: HashMap<IpAddr, u32>,
    /// Services that did not fit.
    unsatisfied: BTreeSet<Name>,
    owners_left_out: BTreeSet<IpAddr>,
    classes_left_out: bool,
    strays: Strays,
    fresh: bool,
    uncommitted: bool,
    phases: [Vec<Op>; PHASES],
    pub(super) problems: Vec<Problem>,
}

impl Planner {
    /// Takes up what is in the tables: every number found stays in use by what has it.
    ///
    /// # Errors
    /// [`MapError`], naming the table that could not be read.
    pub fn adopt(
        store: &dyn MapStore,
        limits: Limits,
        options: Options,
        clock: Clock,
    ) -> Result<Self, MapError> {
        let tables = Tables::read(store)?;
        let mut used_turns = HashSet::new();
        store.scan(Table::Turns, &mut |key, _| {
            if let Ok(index) = bytemuck::try_pod_read_unaligned::<u32>(key) {
                used_turns.insert(index / 2);
            }
        })?;
        let mut planner = Self {
            options,
            limits,
            clock,
            tables,
            frontend_ids: Allocator::new(1, limits.frontend_ids),
            service_ids: Allocator::new(1, limits.services.saturating_add(1)),
            backend_ids: Allocator::new(1, limits.backends),
            slots: Allocator::new(0, limits.slots),
            runs: HashMap::new(),
            spoilt_runs: HashSet::new(),
            spoilt_ids: HashSet::new(),
            used_turns,
            services: BTreeMap::new(),
            desired: BTreeMap::new(),
            surroundings: None,
            claims: HashMap::new(),
            contested: BTreeSet::new(),
            frontend_counts: [0; 2],
            leaving: [0; 2],
            cluster_ips: HashMap::new(),
            unsatisfied: BTreeSet::new(),
            owners_left_out: BTreeSet::new(),
            classes_left_out: false,
            strays: Strays::default(),
            fresh: true,
            uncommitted: false,
            phases: Default::default(),
            problems: Vec::new(),
        };
        planner.adopt_services();
        planner.adopt_frontends();
        planner.adopt_slots();
        let now = (planner.clock)();
        planner.settle(now);
        Ok(planner)
    }

    /// Adopts again with the same options, after a failure.
    ///
    /// # Errors
    /// As [`Self::adopt`]; then the planner is as it was.
    pub fn readopt(&mut self, store: &dyn MapStore) -> Result<(), MapError> {
        *self = Self::adopt(store, self.limits, self.options, self.clock.clone())?;
        Ok(())
    }

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

    fn settle(&mut self, now: Duration) {
        for numbers in [&mut self.frontend_ids, &mut self.service_ids, &mut self.backend_ids, &mut self.slots]
        {
            numbers.settle(now);
        }
    }

    fn adopt_services(&mut self) {
        let mut by_id: HashMap<u32, Name> = HashMap::new();
        for (&id, entry) in &self.tables.names {
            let known = self.service_ids.take_at(id, 1);
            match port_name(entry).map(Arc::new) {
                Some(name) if known && !self.services.contains_key(&name) => {
                    by_id.insert(id, name.clone());
                    self.services.insert(name, State { id, ..State::default() });
                }
                _ => self.strays.names.push(id),
            }
        }
        for (id, entry) in (0_u32..).zip(&self.tables.backends) {
            if *entry == BackendEntry::default() {
                continue;
            }
            let known = self.backend_ids.take_at(id, 1);
            if entry.flags & backend_flag::ALIVE == 0 {
                if known {
                    self.backend_ids.release(id, 1);
                }
                continue;
            }
            let state = by_id.get(&entry.service_id).and_then(|name| self.services.get_mut(name));
            match state {
                Some(state) if known => {
                    let kept = *state.backends.entry(dump::backend_addr(entry)).or_insert(id);
                    if kept != id {
                        self.strays.backends.push(id);
                    }
                }
                _ => {
                    self.strays.backends.push(id);
                    self.strays.ids.insert(entry.service_id);
                }
            }
        }
        for key in &self.tables.source_ranges {
            let id = u32::from_be(key.service_id_be);
            match by_id.get(&id).and_then(|name| self.services.get_mut(name)) {
                Some(state) => {
                    state.source_ranges.insert(*key);
                }
                None => {
                    self.strays.source_ranges.push(*key);
                    self.strays.ids.insert(id);
                }
            }
        }
        // Numbers of strays must not be given to anyone before the strays are gone.
        let service_ids = &mut self.service_ids;
        self.strays.ids.retain(|id| service_ids.take_at(*id, 1));
    }

    fn adopt_frontends(&mut self) {
        for (name, entry) in &self.tables.frontends {
            self.frontend_counts[usize::from(!name.addr.is_ipv4())] += 1;
            if !name.is_owner() && !self.frontend_ids.take_at(entry.frontend_id, 1) {
                self.spoilt_ids.insert(*name);
            }
        }
    }

    fn adopt_slots(&mut self) {
        for entry in self.tables.frontends.values() {
            for run in [entry.internal, entry.external] {
                if run.count > 0 {
                    *self.runs.entry(run).or_default() += 1;
                }
            }
        }
        let mut runs: Vec<SlotRange> = self.runs.keys().copied().collect();
        runs.sort_by_key(|run| (run.base, run.count));
        for run in runs {
            if !self.slots.take_at(run.base, run.count) {
                self.spoilt_runs.insert(run);
            }
        }
        if !self.spoilt_runs.is_empty() {
            let spoilt = self.spoilt_runs.clone();
            let touches = |run: &SlotRange, other: &SlotRange| {
                run != other
                    && u64::from(run.base) < u64::from(other.base) + u64::from(other.count)
                    && u64::from(other.base) < u64::from(run.base) + u64::from(run.count)
            };
            let others = self.runs.keys().filter(|run| spoilt.iter().any(|other| touches(run, other)));
            self.spoilt_runs.extend(others.copied().collect::<Vec<_>>());
        }
        // What somebody wrote and nobody refers to was freed a moment ago, maybe: it rests. Spoilt runs keep what is left of
        // them taken, as far as they are not anybody else's.
        let mut index = 0;
        let written = self.tables.slots.len().min(self.limits.slots as usize);
        while index < written {
            let mut end = index;
            while end < written && self.tables.slots[end] != 0 {
                if !self.slots.take_at(end as u32, 1) {
                    break;
                }
                end += 1;
            }
            if end > index {
                self.slots.release(index as u32, (end - index) as u32);
            }
            index = end + 1;
        }
    }

    /// What to do so that the tables say what is desired.
    ///
    /// # Errors
    /// The last plan was neither committed nor given up by adopting again.
    pub fn plan(&mut self, desired: &Desired) -> Result<Plan, Uncommitted> {
        self.plan_some(desired, None)
    }

    /// The same for a caller who knows which services may have changed since the last plan: the others are not even compared.
    /// Surroundings are.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn plan_changed(
        &mut self,
        desired: &Desired,
        names: &[ServicePortName],
    ) -> Result<Plan, Uncommitted> {
        self.plan_some(desired, Some(names))
    }

    fn plan_some(
        &mut self,
        desired: &Desired,
        only: Option<&[ServicePortName]>,
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
        let surroundings = &desired.surroundings;
        let around_changed = self.surroundings.as_ref() != Some(surroundings);
        let names = match only {
            Some(names) if !self.fresh && !around_changed => self.compare_named(desired, names),
            _ => self.compare(desired, around_changed),
        };
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
        self.take_claims(desired, changes.names, &mut changes.touched, &mut changes.addresses, &mut work);

        for name in &work {
            let Some(service) = self.desired.remove(name) else { continue };
            if !self.plan_service(name, &service, surroundings) {
                self.unsatisfied.insert(name.clone());
            }
            self.desired.insert(name.clone(), service);
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

    fn finish(&mut self) -> Plan {
        let mut ops = Vec::new();
        for phase in &mut self.phases {
            // One table after another, so that each takes one call; within a table the order stays.
            phase.sort_by_key(|op| (op.removes(), op.table()));
            ops.append(phase);
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
    fn compare(&self, desired: &Desired, all: bool) -> Vec<Name> {
        let mut names = Vec::new();
        let mut old = self.desired.iter().peekable();
        for (name, service) in desired.services.iter().filter(|(_, s)| !s.frontends.is_empty()) {
            while let Some((gone, _)) = old.next_if(|(old, _)| old.as_ref() < name) {
                names.push(gone.clone());
            }
            match old.next_if(|(old, _)| old.as_ref() == name) {
                Some((known, before)) => {
                    if all || before != service {
                        names.push(known.clone());
                    }
                }
                None => names.push(Arc::new(name.clone())),
            }
        }
        names.extend(old.map(|(gone, _)| gone.clone()));
        names
    }

    /// The same for some of them.
    fn compare_named(&self, desired: &Desired, names: &[ServicePortName]) -> Vec<Name> {
        let names: BTreeSet<&ServicePortName> = names.iter().collect();
        let differs = |name: &&ServicePortName| {
            let after = desired.services.get(*name).filter(|service| !service.frontends.is_empty());
            after != self.desired.get(*name)
        };
        names.into_iter().filter(differs).map(|name| Arc::new(name.clone())).collect()
    }

    /// Brings claims up to date with the changed services, and adds to `work` whoever wins or loses a frontend by that.
    fn take_claims(
        &mut self,
        desired: &Desired,
        names: Vec<Name>,
        touched: &mut BTreeMap<FrontendName, Option<Name>>,
        addresses: &mut BTreeSet<IpAddr>,
        work: &mut BTreeSet<Name>,
    ) {
        for name in names {
            let after = desired.services.get(name.as_ref()).filter(|s| !s.frontends.is_empty());
            let before = self.desired.remove(&name);
            let same = match (&before, after) {
                (Some(before), Some(after)) => before.frontends == after.frontends,
                _ => false,
            };
            if !same {
                for frontend in before.iter().flat_map(|service| &service.frontends) {
                    let key = key_of(&name, frontend);
                    let claims = self.claims.entry(key).or_default();
                    touched.entry(key).or_insert_with(|| claims.first().cloned());
                    claims.remove(&name);
                    if frontend.kind == FrontendKind::ClusterIp {
                        addresses.insert(frontend.addr);
                        if let Some(count) = self.cluster_ips.get_mut(&frontend.addr) {
                            *count = count.saturating_sub(1);
                        }
                    }
                }
                for frontend in after.iter().flat_map(|service| &service.frontends) {
                    let key = key_of(&name, frontend);
                    let claims = self.claims.entry(key).or_default();
                    touched.entry(key).or_insert_with(|| claims.first().cloned());
                    claims.insert(name.clone());
                    if frontend.kind == FrontendKind::ClusterIp {
                        addresses.insert(frontend.addr);
                        *self.cluster_ips.entry(frontend.addr).or_default() += 1;
                    }
                }
            }
            if let Some(after) = after {
                self.desired.insert(name, after.clone());
            }
        }
        for (key, before) in touched {
            let Some(claims) = self.claims.get(key) else { continue };
            let after = claims.first();
            if after != before.as_ref() {
                work.extend(before.iter().chain(after).cloned());
            }
            if claims.len() > 1 {
                self.contested.insert(*key);
            } else {
                self.contested.remove(key);
            }
            if claims.is_empty() {
                self.claims.remove(key);
            }
        }
        self.cluster_ips.retain(|_, count| *count > 0);
    }

    /// Whether `name` is the one who has this frontend (F1).
    pub(super) fn wins(&self, name: &Name, frontend: &FrontendName) -> bool {
        self.claims.get(frontend).and_then(BTreeSet::first) == Some(name)
    }

    fn drop_unclaimed(&mut self, key: FrontendName) {
        let Some(entry) = self.tables.frontends.get(&key) else { return };
        if let Some(winner) = self.claims.get(&key).and_then(BTreeSet::first) {
            // Planned, or left as it was for want of room: then it must at least be the winner's own.
            if self.services.get(winner).is_some_and(|state| state.id == entry.service_id) {
                return;
            }
        }
        self.set_frontend(key, None);
    }

    fn plan_owner(&mut self, addr: IpAddr, surroundings: &Surroundings) {
        let name = FrontendName::owner(addr);
        let before = self.tables.frontends.get(&name).copied();
        if !self.cluster_ips.contains_key(&addr) {
            if before.is_some() {
                self.set_frontend(name, None);
            }
            return;
        }
        let flags = owner_flags(surroundings, name.family());
        let generation = before.map_or(0, |entry| entry.generation);
        let entry = FrontendEntry { flags, generation, ..FrontendEntry::default() };
        if before == Some(entry) {
            return;
        }
        if before.is_none() && !self.has_room_for_frontend(&name) {
            let capacity = self.frontend_capacity(&name);
            self.problems.push(Problem::OwnerTooMuch { frontend: name, capacity });
            self.owners_left_out.insert(addr);
            return;
        }
        self.set_frontend(name, Some(FrontendEntry { generation: generation.wrapping_add(1), ..entry }));
    }

    /// Takes apart those of `names` that are no longer desired.
    fn drop_services(&mut self, names: Vec<Name>) {
        for name in names.into_iter().filter(|name| !self.desired.contains_key(name)).collect::<Vec<_>>() {
            let Some(state) = self.services.remove(&name) else { continue };
            for id in state.backends.into_values() {
                self.kill_backend(id);
            }
            for key in state.source_ranges {
                self.emit(Phase::Unmake, Op::SourceRange(key, false));
            }
            self.emit(Phase::Forget, Op::Name(state.id, None));
            self.service_ids.release(state.id, 1);
        }
    }

    fn clear_strays(&mut self) {
        let strays = std::mem::take(&mut self.strays);
        for id in strays.backends {
            self.kill_backend(id);
        }
        for key in strays.source_ranges {
            self.emit(Phase::Unmake, Op::SourceRange(key, false));
        }
        for id in strays.names {
            self.emit(Phase::Forget, Op::Name(id, None));
            if id > 0 && id <= self.limits.services {
                self.service_ids.release(id, 1);
            }
        }
        for id in strays.ids {
            self.service_ids.release(id, 1);
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

    fn report_contested(&mut self) {
        for key in &self.contested {
            let mut claims = self.claims.get(key).into_iter().flatten();
            let Some(winner) = claims.next() else { continue };
            for loser in claims {
                self.problems.push(Problem::Taken {
                    frontend: *key,
                    winner: Box::new(winner.as_ref().clone()),
                    loser: Box::new(loser.as_ref().clone()),
                });
            }
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
