//! The plan for one service port.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;

use lb_common::abi::{BackendEntry, FrontendEntry, SlotRange, SourceRangeKey, backend_flag};
use lb_common::tables::Table;

use super::Problem;
use super::layout::{self, FrontendLayout, List};
use super::op::Op;
use super::planner::{Name, Phase, Planner, State};
use super::tables::ShortName;
use super::words::{backend_words, wide_prefix};
use crate::model::desired::{Service, ServicePortName, Surroundings};

/// Numbers taken for one service, to be put back when it turns out not to fit.
#[derive(Default)]
struct Taken {
    service: Option<u32>,
    backends: Vec<u32>,
    runs: Vec<SlotRange>,
}

/// A list with its slots.
struct Placed {
    run: SlotRange,
    /// The contents, when the run is fresh.
    fresh: Option<Vec<u32>>,
}

impl Planner {
    /// Plans one service; false: it did not fit, or not whole, and the reason is among the problems.
    pub(super) fn plan_service(
        &mut self,
        name: &Name,
        service: &Service,
        surroundings: &Surroundings,
    ) -> bool {
        let mut taken = Taken::default();
        match self.reserve(name, service, surroundings, &mut taken) {
            Ok(reserved) => self.write(name, service, reserved),
            Err(problem) => {
                if let Some(id) = taken.service {
                    self.service_ids.put_back(id, 1);
                }
                for id in taken.backends {
                    self.backend_ids.put_back(id, 1);
                }
                for run in taken.runs {
                    self.slots.put_back(run.base, run.count);
                }
                self.problems.push(problem);
                false
            }
        }
    }

    /// Takes all numbers the service needs; nothing is planned before they are all there.
    fn reserve(
        &mut self,
        name: &Name,
        service: &Service,
        surroundings: &Surroundings,
        taken: &mut Taken,
    ) -> Result<Reserved, Problem> {
        if service.backends.len() > self.limits.backends_per_service as usize {
            return Err(Problem::TooManyBackends {
                service: Box::new(name.as_ref().clone()),
                found: service.backends.len(),
                limit: self.limits.backends_per_service,
            });
        }
        let state = self.services.get(name);
        let known: Vec<Option<u32>> = service
            .backends
            .iter()
            .map(|b| {
                let place = state?.place(SocketAddr::new(b.addr, b.port)).ok()?;
                Some(state?.backends[place].1)
            })
            .collect();
        let id = match state {
            Some(state) => state.id,
            None => {
                let too_much =
                    || too_much(name, "service numbers", Table::ServiceNames, 1, self.limits.services);
                let id = self.service_ids.take(1).ok_or_else(too_much)?;
                taken.service = Some(id);
                id
            }
        };
        let missing = known.iter().filter(|id| id.is_none()).count() as u32;
        let mut backends = Vec::with_capacity(known.len());
        for known in known {
            backends.push(match known {
                Some(id) => id,
                None => {
                    let capacity = self.limits.backends.saturating_sub(1);
                    let too_much = || too_much(name, "backends", Table::Backends, missing, capacity);
                    let id = self.backend_ids.take(1).ok_or_else(too_much)?;
                    taken.backends.push(id);
                    id
                }
            });
        }

        let source_ranges: BTreeSet<SourceRangeKey> =
            layout::source_ranges(service, surroundings, name.family)
                .into_iter()
                .map(|range| {
                    let (addr, bits) = wide_prefix(range);
                    SourceRangeKey { prefix_len: 32 + bits, service_id_be: id.to_be(), addr }
                })
                .collect();
        let added = source_ranges.difference(&self.tables.source_ranges).count();
        if added > 0 && self.tables.source_ranges.len() + added > self.limits.source_ranges as usize {
            let capacity = self.limits.source_ranges;
            return Err(too_much(name, "source ranges", Table::SourceRanges, added as u32, capacity));
        }

        let mut keys = BTreeSet::new();
        let frontends: Vec<FrontendLayout> = service
            .frontends
            .iter()
            .map(|frontend| layout::frontend(name, service, frontend, surroundings))
            .filter(|frontend| self.wins(name, &frontend.name) && keys.insert(frontend.name))
            .collect();
        let mut lists: BTreeMap<u8, Placed> = BTreeMap::new();
        for list in frontends.iter().flat_map(|frontend| [frontend.internal, frontend.external]) {
            if lists.contains_key(&(list as u8)) {
                continue;
            }
            let slots: Vec<u32> =
                layout::slots(service, list, &self.options).into_iter().map(|i| backends[i]).collect();
            let placed = self.place(name, id, &frontends, slots, &lists, taken)?;
            lists.insert(list as u8, placed);
        }
        Ok(Reserved { id, backends, frontends, lists, source_ranges })
    }

    /// Finds a run with these contents among those the service's frontends refer to, or takes a fresh one.
    fn place(
        &mut self,
        name: &ServicePortName,
        id: u32,
        frontends: &[FrontendLayout],
        slots: Vec<u32>,
        lists: &BTreeMap<u8, Placed>,
        taken: &mut Taken,
    ) -> Result<Placed, Problem> {
        if slots.is_empty() {
            return Ok(Placed { run: SlotRange::default(), fresh: None });
        }
        if let Some(other) = lists.values().find(|list| list.fresh.as_ref() == Some(&slots)) {
            return Ok(Placed { run: other.run, fresh: None });
        }
        let in_place = frontends
            .iter()
            .filter_map(|frontend| self.tables.frontends.get(&frontend.name))
            .filter(|entry| entry.service_id == id)
            .flat_map(|entry| [entry.internal, entry.external])
            .filter(|run| run.count as usize == slots.len())
            .find(|run| {
                let contents = self.tables.run(*run, self.limits.slots);
                contents.is_some_and(|contents| contents.eq(slots.iter().copied()))
            });
        if let Some(run) = in_place {
            return Ok(Placed { run, fresh: None });
        }
        let count = slots.len() as u32;
        let capacity = self.limits.slots;
        let base = self
            .slots
            .take(count)
            .ok_or_else(|| too_much(name, "slots in a row", Table::Slots, count, capacity))?;
        let run = SlotRange { base, count };
        taken.runs.push(run);
        Ok(Placed { run, fresh: Some(slots) })
    }

    /// Plans the operations. Frontends that do not fit are left out one by one.
    fn write(&mut self, name: &Name, service: &Service, reserved: Reserved) -> bool {
        let Reserved { id, backends, frontends, lists, source_ranges } = reserved;
        let label = layout::service_name(name);
        if self.tables.names.get(&id).map(ShortName::full) != Some(label) {
            self.emit(Phase::Make, Op::Name(id, Some(label)));
        }
        let mut state = self.services.remove(name).unwrap_or_else(|| State { id, ..State::default() });
        for key in source_ranges.difference(&state.source_ranges) {
            self.emit(Phase::Make, Op::SourceRange(*key, true));
        }
        let now = self.write_backends(id, service, &backends);
        let kept: HashSet<u32> = now.iter().map(|(_, id)| *id).collect();
        for (_, id) in state.backends.iter().filter(|(_, id)| !kept.contains(id)) {
            self.kill_backend(*id);
        }
        // Held while frontends change hands, so that none is given back between leaving one and coming to another.
        for list in lists.values() {
            self.hold(list.run);
            if let Some(slots) = &list.fresh {
                self.emit(Phase::Make, Op::Slots(list.run.base, slots.clone()));
            }
        }
        let mut whole = true;
        for frontend in &frontends {
            whole &= self.write_frontend(name, id, service, frontend, &lists);
        }
        for list in lists.values() {
            self.let_go(list.run);
        }
        for key in state.source_ranges.difference(&source_ranges) {
            self.emit(Phase::Unmake, Op::SourceRange(*key, false));
        }
        state.backends = now;
        state.source_ranges = source_ranges;
        self.services.insert(name.clone(), state);
        whole
    }

    /// Writes new and changed backends; gives all of the service's by identity.
    fn write_backends(
        &mut self,
        service_id: u32,
        service: &Service,
        ids: &[u32],
    ) -> Box<[(SocketAddr, u32)]> {
        let (in_cluster, in_local) =
            (layout::members(service, List::Cluster), layout::members(service, List::Local));
        let (in_cluster, in_local): (BTreeSet<usize>, BTreeSet<usize>) =
            (in_cluster.into_iter().collect(), in_local.into_iter().collect());
        let mut now = BTreeMap::new();
        for (index, (backend, &id)) in service.backends.iter().zip(ids).enumerate() {
            let before = self.tables.backend(id);
            let alive = before.flags & backend_flag::ALIVE != 0;
            let entry = BackendEntry {
                addr: backend_words(backend.addr),
                port_be: backend.port.to_be(),
                flags: layout::backend_flags(backend, in_cluster.contains(&index), in_local.contains(&index)),
                service_id,
                weight: backend.weight,
                // Only direct forwarding knows better; what it wrote stays as long as the backend does.
                ifindex: if alive { before.ifindex } else { 0 },
                mac: if alive { before.mac } else { [0; 6] },
                generation: if alive { before.generation } else { before.generation.wrapping_add(1) },
            };
            now.insert(SocketAddr::new(backend.addr, backend.port), id);
            if entry == before {
                continue;
            }
            if !alive && before.generation > 0 {
                self.emit(Phase::Make, Op::ResetStats(id));
                self.emit(Phase::Make, Op::ResetOpenFlows(id));
            }
            // One that stops being usable does so after the frontends have let go of it.
            let loses = before.flags & !entry.flags & (backend_flag::USABLE | backend_flag::SERVING);
            let gains_use = entry.flags & !before.flags & backend_flag::USABLE;
            let phase = if loses != 0 && gains_use == 0 { Phase::Unmake } else { Phase::Make };
            self.emit(phase, Op::Backend(id, entry));
        }
        now.into_iter().collect()
    }

    fn write_frontend(
        &mut self,
        name: &Name,
        service_id: u32,
        service: &Service,
        frontend: &FrontendLayout,
        lists: &BTreeMap<u8, Placed>,
    ) -> bool {
        let key = frontend.name;
        let before = self.tables.frontends.get(&key).copied();
        let run = |list: List| lists.get(&(list as u8)).map(|placed| placed.run).unwrap_or_default();
        let mut entry = FrontendEntry {
            frontend_id: self.frontend_id(&key).unwrap_or(0),
            service_id,
            flags: frontend.flags,
            affinity_timeout_s: service.affinity_timeout_s.unwrap_or(0),
            internal: run(frontend.internal),
            external: run(frontend.external),
            algorithm: layout::algorithm_number(service.algorithm),
            kind: frontend.kind,
            generation: before.map_or(0, |entry| entry.generation),
            ..FrontendEntry::default()
        };
        if before == Some(entry) && entry.frontend_id != 0 {
            return true;
        }
        if entry.frontend_id == 0 {
            let id = if before.is_some() || self.has_room_for_frontend(&key) {
                self.new_frontend_id()
            } else {
                None
            };
            let Some(id) = id else {
                let capacity = self.frontend_capacity(&key).min(self.limits.frontend_ids.saturating_sub(1));
                self.problems.push(Problem::FrontendTooMuch {
                    frontend: key,
                    service: Box::new(name.as_ref().clone()),
                    capacity,
                });
                return false;
            };
            entry.frontend_id = id;
        }
        entry.generation = entry.generation.wrapping_add(1);
        self.set_frontend(key, Some(entry));
        true
    }
}

struct Reserved {
    id: u32,
    /// Numbers of the service's backends, in their order.
    backends: Vec<u32>,
    /// Frontends that the service has won.
    frontends: Vec<FrontendLayout>,
    lists: BTreeMap<u8, Placed>,
    source_ranges: BTreeSet<SourceRangeKey>,
}

fn too_much(
    service: &ServicePortName,
    what: &'static str,
    table: Table,
    needed: u32,
    capacity: u32,
) -> Problem {
    Problem::ServiceTooMuch { service: Box::new(service.clone()), what, table, needed, capacity }
}
