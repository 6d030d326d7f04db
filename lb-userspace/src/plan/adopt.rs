//! Taking up what is in the tables, so that a restart changes nothing that need not change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use lb_common::abi::{BackendEntry, SlotRange, SourceRangeKey, backend_flag};
use lb_common::tables::Table;

use super::layout::port_name;
use super::numbers::Allocator;
use super::op::Op;
use super::planner::{Name, Phase, Planner, State};
use super::{Clock, Limits, Options, Tables, dump};
use crate::maps::{MapError, MapStore};

/// Leftovers that belong to no service, found when adopting.
#[derive(Clone, Debug, Default)]
pub(super) struct Strays {
    pub(super) backends: Vec<u32>,
    names: Vec<u32>,
    source_ranges: Vec<SourceRangeKey>,
    /// Service numbers that only strays use.
    ids: BTreeSet<u32>,
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
            carried: BTreeMap::new(),
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

    /// Adopts again with the same options, after a failure; what was desired stays so.
    ///
    /// # Errors
    /// As [`Self::adopt`]; then the planner is as it was.
    pub fn readopt(&mut self, store: &dyn MapStore) -> Result<(), MapError> {
        let mut again = Self::adopt(store, self.limits, self.options, self.clock.clone())?;
        again.carried = std::mem::take(&mut self.carried);
        again.carried.append(&mut self.desired);
        *self = again;
        Ok(())
    }

    fn adopt_services(&mut self) {
        let mut by_id: HashMap<u32, Name> = HashMap::new();
        for (&id, entry) in &self.tables.names {
            let known = self.service_ids.take_at(id, 1);
            match port_name(&entry.full()).map(Arc::new) {
                Some(name) if known && !self.services.contains_key(&name) => {
                    by_id.insert(id, name.clone());
                    self.services.insert(name, State { id, ..State::default() });
                }
                _ => self.strays.names.push(id),
            }
        }
        let mut found: HashMap<Name, BTreeMap<SocketAddr, u32>> = HashMap::new();
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
            match by_id.get(&entry.service_id) {
                Some(name) if known => {
                    let backends = found.entry(name.clone()).or_default();
                    if *backends.entry(dump::backend_addr(entry)).or_insert(id) != id {
                        self.strays.backends.push(id);
                    }
                }
                _ => {
                    self.strays.backends.push(id);
                    self.strays.ids.insert(entry.service_id);
                }
            }
        }
        for (name, backends) in found {
            if let Some(state) = self.services.get_mut(&name) {
                state.backends = backends.into_iter().collect();
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

    pub(super) fn clear_strays(&mut self) {
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
}
