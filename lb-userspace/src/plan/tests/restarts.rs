//! Restarts, crashes and faults: the tables always end as those of a fresh start.

use std::sync::Arc;

use proptest::prelude::*;

use super::build::*;
use crate::maps::{FaultyStore, MapStore, MemoryStore};
use crate::model::desired::*;
use crate::plan::*;

/// One edit of a desired state.
#[derive(Clone, Debug)]
enum Edit {
    Remove(u8),
    /// Backends by number, with state by number.
    Backends(u8, Vec<(u8, u8)>),
    Kinds(u8, u8),
    Policies(u8, u8),
    Algorithm(u8, u8),
    Surroundings(u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let which = 0_u8..5;
    prop_oneof![
        1 => which.clone().prop_map(Edit::Remove),
        6 => (which.clone(), prop::collection::vec((0_u8..8, 0_u8..4), 0..6)).prop_map(|(s, b)| Edit::Backends(s, b)),
        2 => (which.clone(), any::<u8>()).prop_map(|(s, k)| Edit::Kinds(s, k)),
        2 => (which.clone(), any::<u8>()).prop_map(|(s, p)| Edit::Policies(s, p)),
        2 => (which, any::<u8>()).prop_map(|(s, a)| Edit::Algorithm(s, a)),
        1 => any::<u8>().prop_map(Edit::Surroundings),
    ]
}

fn relist(service: &mut Service) {
    let list = |local: bool| {
        (0..service.backends.len())
            .filter(|i| service.backends[*i].ready && (!local || service.backends[*i].local))
            .collect::<Vec<_>>()
    };
    service.cluster = Some(list(false));
    service.local = Some(list(true));
    service.has_any_endpoints = service.backends.iter().any(|b| b.ready);
}

fn change(state: &mut Desired, edit: &Edit) {
    let entry = |state: &mut Desired, s: u8| -> ServicePortName {
        let name = name(&format!("s{s}"));
        state.services.entry(name.clone()).or_insert_with(|| service(&format!("10.96.0.{s}"), &["10.1.0.1"]));
        name
    };
    match edit {
        Edit::Remove(s) => {
            state.services.remove(&name(&format!("s{s}")));
        }
        Edit::Backends(s, backends) => {
            let name = entry(state, *s);
            let service = state.services.get_mut(&name).unwrap();
            let mut list: Vec<(u8, u8)> = backends.clone();
            list.sort_unstable();
            list.dedup_by_key(|(backend, _)| *backend);
            service.backends = list
                .into_iter()
                .map(|(b, how)| Backend {
                    ready: how & 1 == 0,
                    serving: how != 3,
                    terminating: how & 1 == 1,
                    weight: u16::from(how) * 10 + 1,
                    ..backend(&format!("10.1.0.{b}"), b % 2 == 1)
                })
                .collect();
            relist(service);
        }
        Edit::Kinds(s, kinds) => {
            let name = entry(state, *s);
            let service = state.services.get_mut(&name).unwrap();
            // Addresses shared with other services now and then.
            let address = format!("10.96.0.{}", if kinds & 8 != 0 { *s } else { s / 2 });
            service.frontends = vec![frontend(FrontendKind::ClusterIp, &address, 80)];
            if kinds & 1 != 0 {
                service.frontends.push(frontend(
                    FrontendKind::NodePort,
                    "192.168.0.2",
                    30_000 + u16::from(*s),
                ));
            }
            if kinds & 2 != 0 {
                service.frontends.push(frontend(FrontendKind::LoadBalancer, "203.0.113.7", 80));
            }
            if kinds & 4 != 0 {
                service.frontends.push(frontend(FrontendKind::ExternalIp, "203.0.113.8", 80));
            }
            if kinds & 0x70 == 0 {
                service.frontends.clear();
            }
        }
        Edit::Policies(s, policies) => {
            let name = entry(state, *s);
            let service = state.services.get_mut(&name).unwrap();
            service.internal_local = policies & 1 != 0;
            service.external_local = policies & 2 != 0;
            service.affinity_timeout_s = (policies & 4 != 0).then_some(10);
            service.source_ranges = ["192.168.0.0/24", "198.51.100.0/24", "203.0.113.0/24"]
                .iter()
                .enumerate()
                .filter(|(bit, _)| policies & (8 << bit) != 0)
                .map(|(_, range)| range.parse().unwrap())
                .collect();
        }
        Edit::Algorithm(s, algorithm) => {
            let name = entry(state, *s);
            state.services.get_mut(&name).unwrap().algorithm = match algorithm % 5 {
                0 => Algorithm::RoundRobin,
                1 => Algorithm::Random,
                2 => Algorithm::Maglev,
                3 => Algorithm::LeastConnections,
                _ => Algorithm::Weighted,
            };
        }
        Edit::Surroundings(how) => {
            state.surroundings = surroundings();
            if how & 1 != 0 {
                state.surroundings.pod_cidrs.clear();
            }
            state.surroundings.masquerade_all = how & 2 != 0;
            if how & 4 != 0 {
                state.surroundings.node_addresses.push(addr("10.1.0.200"));
            }
            state.surroundings.no_vip_ping = how & 8 != 0;
        }
    }
}

/// Every frontend refers to backends that are alive and its own service's, whatever else is unfinished.
fn check_frontends(store: &MemoryStore) -> Result<(), TestCaseError> {
    use lb_common::abi::backend_flag;
    let tables = Tables::read(store).unwrap();
    for (name, entry) in &tables.frontends {
        for run in [entry.internal, entry.external] {
            for id in tables.run(run, u32::MAX).unwrap() {
                let backend = tables.backend(id);
                prop_assert!(backend.flags & backend_flag::ALIVE != 0, "{name}: backend {id} is dead");
                prop_assert_eq!(backend.service_id, entry.service_id, "{}: of another service", name);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_edits_end_as_a_fresh_start(edits in prop::collection::vec((edit(), 0_u64..80, 0_u8..20), 1..40)) {
        let (mut store, clock) = (MemoryStore::new(), TestClock::default());
        let mut planner = planner(&store, &clock);
        let mut state = desired(&[]);
        for (edit, pause, restart) in edits {
            change(&mut state, &edit);
            planner.sync(&mut store, &state).unwrap();
            prop_assert_eq!(text(&store), text(&fresh(&state)), "after {:?}", edit);
            prop_assert_eq!(&Tables::read(&store).unwrap().frontends, &planner.tables().frontends);
            check_frontends(&store)?;
            prop_assert!(planner.plan(&state).unwrap().is_empty());
            if restart == 0 {
                planner.readopt(&store).unwrap();
                let plan = planner.plan(&state).unwrap();
                prop_assert!(plan.is_empty(), "a restart changes nothing, but wanted\n{}", plan);
            }
            clock.advance(pause);
        }
    }

    #[test]
    fn a_crash_anywhere_converges(edits in prop::collection::vec(edit(), 1..12)) {
        let (mut store, clock) = (MemoryStore::new(), TestClock::default());
        let mut state = desired(&[]);
        for edit in edits {
            change(&mut state, &edit);
            let plan = planner(&store, &clock).plan(&state).unwrap();
            let want = text(&fresh(&state));
            let ids_kept = ids(&Tables::read(&store).unwrap());
            for stop in 0..=plan.ops.len() {
                let mut crashed = store.clone();
                let part = Plan { ops: plan.ops[..stop].to_vec(), ..Plan::default() };
                apply(&mut crashed, &part).unwrap();
                check_frontends(&crashed)?;
                let mut again = planner(&crashed, &clock);
                again.sync(&mut crashed, &state).unwrap();
                prop_assert_eq!(text(&crashed), want.clone(), "stopped after {} of\n{}", stop, plan);
                check_frontends(&crashed)?;
                for (name, id) in ids(&Tables::read(&crashed).unwrap()) {
                    if let Some(before) = ids_kept.get(&name) {
                        prop_assert_eq!(*before, id, "{} changed its number", name);
                    }
                }
            }
            apply(&mut store, &plan).unwrap();
        }
    }

    #[test]
    fn spoilt_tables_are_mended(
        edits in prop::collection::vec(edit(), 1..6),
        damage in prop::collection::vec((any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>()), 0..12),
    ) {
        let clock = TestClock::default();
        let mut state = desired(&[]);
        for edit in &edits {
            change(&mut state, edit);
        }
        let mut store = fresh(&state);
        for (table, entry, byte, value) in damage {
            spoil(&mut store, table, entry, byte, value);
        }
        clock.advance(1000);
        let mut planner = planner(&store, &clock);
        let report = planner.sync(&mut store, &state).unwrap();
        // What was damaged may have claimed all of a table; then it goes in two steps.
        if report.retry_after.is_some() {
            clock.advance(100);
            planner.sync(&mut store, &state).unwrap();
        }
        prop_assert_eq!(text(&store), text(&fresh(&state)));
        check_frontends(&store)?;
        let tables = Tables::read(&store).unwrap();
        let mut numbers: Vec<u32> =
            tables.frontends.iter().filter(|(name, _)| !name.is_owner()).map(|(_, entry)| entry.frontend_id).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), count, "two frontends with one number");
        prop_assert!(numbers.first() != Some(&0));
    }

    #[test]
    fn faults_are_overcome(
        edits in prop::collection::vec(edit(), 1..12),
        seed in any::<u64>(),
        told in any::<bool>(),
    ) {
        let faulty = FaultyStore::failing_at_random(MemoryStore::new(), 30, seed, libc::ENOMEM);
        let mut store = faulty;
        let clock = TestClock::default();
        let mut state = desired(&[]);
        let mut planner = planner(store.inner(), &clock);
        for edit in edits {
            let before = state.clone();
            change(&mut state, &edit);
            let edits = edits_between(&before, &state);
            let mut sync = |store: &mut FaultyStore<MemoryStore>| match told {
                true => planner.sync_edits(store, &state.surroundings, &edits),
                false => planner.sync(store, &state),
            };
            let mut tries = 0;
            while let Err(error) = sync(&mut store) {
                check_frontends(store.inner())?;
                tries += 1;
                prop_assert!(tries < 200, "{}", error);
            }
            prop_assert_eq!(text(store.inner()), text(&fresh(&state)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2))]

    /// Each map operation fails with a chance of one in ten, while a thousand changes arrive, one for each try.
    #[test]
    fn a_thousand_changes_through_a_store_that_fails(edits in prop::collection::vec(edit(), 1000), seed in any::<u64>()) {
        let mut store = FaultyStore::failing_at_random(MemoryStore::new(), 100, seed, libc::ENOMEM);
        let clock = TestClock::default();
        let mut state = desired(&[]);
        let mut planner = planner(store.inner(), &clock);
        let mut failed = 0;
        for edit in edits {
            change(&mut state, &edit);
            failed += u32::from(planner.sync(&mut store, &state).is_err());
            check_frontends(store.inner())?;
        }
        prop_assert!(failed > 100, "only {} of 1000 tries failed", failed);
        let mut tries = 0;
        while let Err(error) = planner.sync(&mut store, &state) {
            check_frontends(store.inner())?;
            tries += 1;
            prop_assert!(tries < 2000, "{}", error);
        }
        prop_assert_eq!(text(store.inner()), text(&fresh(&state)));
    }
}

/// What somebody who knows would tell the planner.
fn edits_between(before: &Desired, after: &Desired) -> Vec<crate::model::desired::Edit> {
    let names = before.services.keys().chain(after.services.keys());
    let differing = names.filter(|name| before.services.get(*name) != after.services.get(*name));
    differing.map(|name| (Arc::new(name.clone()), after.services.get(name).cloned().map(Arc::new))).collect()
}

/// Changes one byte of one entry, of its key or of its value.
fn spoil(store: &mut MemoryStore, table: u8, entry: u16, byte: u16, value: u8) {
    let table = Tables::ALL[usize::from(table) % Tables::ALL.len()];
    let entries = store.dump(table).unwrap();
    if entries.is_empty() {
        return;
    }
    let (mut key, mut content) = entries[usize::from(entry) % entries.len()].clone();
    let byte = usize::from(byte) % (key.len() + content.len());
    if byte < key.len() {
        key[byte] = value;
    } else {
        content[byte - key.len()] = value;
    }
    // An index past the end is refused, and spoils nothing.
    let _ = store.update(table, &key, &content);
}

fn ids(tables: &Tables) -> std::collections::BTreeMap<String, u32> {
    tables.names.keys().map(|id| (tables.service(*id), *id)).collect()
}

#[test]
fn a_failure_names_operation_and_key() {
    let mut store = FaultyStore::failing_after(MemoryStore::new(), 3, libc::E2BIG);
    let clock = TestClock::default();
    let mut planner = planner(store.inner(), &clock);
    let state = desired(&[("web", service("10.96.0.10", &["10.1.0.1"]))]);
    let error = planner.sync(&mut store, &state).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("cannot write"), "{text}");
    assert!(text.contains("in table"), "{text}");
}
