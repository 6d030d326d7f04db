//! What a change costs, and what rests.

use lb_common::tables::Table;

use super::build::*;
use crate::maps::{MapStore, MemoryStore};
use crate::model::desired::*;
use crate::plan::*;

const THREE: [&str; 3] = ["10.1.0.1", "10.1.0.2", "10.1.0.3"];

fn backend_entry(store: &MemoryStore, id: u32) -> lb_common::abi::BackendEntry {
    let value = store.lookup(Table::Backends, &id.to_ne_bytes()).unwrap().unwrap();
    bytemuck::pod_read_unaligned(&value)
}

#[test]
fn a_replaced_pod_is_a_handful_of_operations_in_order() {
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut planner = planner(&store, &clock);
    planner.sync(&mut store, &desired(&[("web", service("10.96.0.10", &THREE))])).unwrap();
    let after = desired(&[("web", service("10.96.0.10", &["10.1.0.1", "10.1.0.2", "10.1.0.4"]))]);
    let plan = planner.plan(&after).unwrap();
    assert_eq!(
        plan.to_string(),
        "\
write SLOTS 3: [1, 2, 4]
write BACKENDS #4: 10.1.0.4:8080 service #1 alive,serving,usable generation 1
write FILTER word 9680: 0020000000000000
write FRONTENDS_V4 10.96.0.10:80/TCP: #1 service #1 masquerade-node,masquerade-external,drop-external internal 3+3 external 3+3
write BACKENDS #3: 10.1.0.3:8080 service #1 dead generation 1
"
    );
    assert!(plan.entries() <= 8, "{}", plan.entries());
    assert!(planner.plan(&after).is_err(), "the plan is neither applied nor given up");
    apply(&mut store, &plan).unwrap();
    planner.commit();
    assert_eq!(text(&store), text(&fresh(&after)));
    assert!(planner.plan(&after).unwrap().is_empty());
}

#[test]
fn a_terminating_backend_keeps_number_and_generation() {
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut planner = planner(&store, &clock);
    planner.sync(&mut store, &desired(&[("web", service("10.96.0.10", &THREE))])).unwrap();
    let before = backend_entry(&store, 3);
    let mut web = service("10.96.0.10", &THREE);
    (web.backends[2].ready, web.backends[2].terminating) = (false, true);
    (web.cluster, web.local) = (Some(vec![0, 1]), Some(vec![0]));
    let plan = planner.plan(&desired(&[("web", web)])).unwrap();
    assert!(matches!(plan.ops.last(), Some(Op::Backend(3, _))), "after the frontend has let go: {plan}");
    apply(&mut store, &plan).unwrap();
    planner.commit();
    let after = backend_entry(&store, 3);
    assert_eq!((after.generation, after.service_id), (before.generation, before.service_id));
    assert_eq!(before.flags & !after.flags, lb_common::abi::backend_flag::USABLE);
}

#[test]
fn freed_numbers_rest_and_come_back_with_another_generation() {
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut planner = planner(&store, &clock);
    let step = |planner: &mut Planner, store: &mut MemoryStore, backends: &[&str]| {
        planner.sync(store, &desired(&[("web", service("10.96.0.10", backends))])).unwrap();
    };
    step(&mut planner, &mut store, &["10.1.0.1"]);
    step(&mut planner, &mut store, &["10.1.0.2"]);
    assert_eq!(backend_entry(&store, 1).flags, 0);
    assert_eq!(super::super::words::v4(backend_entry(&store, 1).addr[0]).to_string(), "10.1.0.1");
    store.update(Table::BackendStats, &1_u32.to_ne_bytes(), &[7; 48]).unwrap();
    store.update(Table::OpenFlows, &1_u32.to_ne_bytes(), &[7; 8]).unwrap();
    clock.advance(99);
    step(&mut planner, &mut store, &["10.1.0.3"]);
    assert_eq!(backend_entry(&store, 1).flags, 0, "number 1 has rested 99 ms only");
    assert_eq!(backend_entry(&store, 3).generation, 1);
    clock.advance(1);
    step(&mut planner, &mut store, &["10.1.0.4"]);
    let again = backend_entry(&store, 1);
    assert_eq!(super::super::words::v4(again.addr[0]).to_string(), "10.1.0.4");
    assert_eq!(again.generation, 2);
    assert_eq!(
        store.lookup(Table::BackendStats, &1_u32.to_ne_bytes()).unwrap(),
        None,
        "counters begin at zero"
    );
}

#[test]
fn slots_that_a_frontend_refers_to_are_never_written() {
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut planner = planner(&store, &clock);
    for step in 0..200_u32 {
        let backends: Vec<String> = (0..step % 7).map(|i| format!("10.1.{step}.{i}")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        let before = Tables::read(&store).unwrap();
        let plan = planner
            .plan(&desired(&[("a", service("10.96.0.10", &backends)), ("b", service("10.96.0.11", &THREE))]))
            .unwrap();
        for op in &plan.ops {
            let Op::Slots(base, slots) = op else { continue };
            let written = *base..*base + slots.len() as u32;
            for entry in before.frontends.values() {
                for run in [entry.internal, entry.external] {
                    let overlap = run.base.max(written.start) < (run.base + run.count).min(written.end);
                    assert!(!overlap, "{run:?} overwritten by {op}");
                }
            }
        }
        apply(&mut store, &plan).unwrap();
        planner.commit();
        clock.advance(u64::from(step % 60));
    }
    assert!(
        planner.tables().slots.len() < 64,
        "{} slots used: nothing is reused",
        planner.tables().slots.len()
    );
}

#[test]
fn lists_that_change_places_are_kept() {
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut planner = planner(&store, &clock);
    let mut web = service("10.96.0.10", &THREE);
    web.frontends.push(frontend(FrontendKind::NodePort, "192.168.0.2", 30_080));
    web.internal_local = true;
    web.external_local = false;
    planner.sync(&mut store, &desired(&[("web", web.clone())])).unwrap();
    // ClusterIP: from the local list to the cluster list; node port: the other way for clients from outside.
    (web.internal_local, web.external_local) = (false, true);
    let plan = planner.plan(&desired(&[("web", web.clone())])).unwrap();
    assert!(!plan.ops.iter().any(|op| matches!(op, Op::Slots(..))), "{plan}");
    apply(&mut store, &plan).unwrap();
    planner.commit();
    clock.advance(1000);
    // What they refer to must not be given to others.
    let other = service("10.96.0.11", &["10.1.9.1", "10.1.9.2", "10.1.9.3"]);
    let both = desired(&[("other", other), ("web", web)]);
    planner.sync(&mut store, &both).unwrap();
    assert_eq!(text(&store), text(&fresh(&both)));
}

#[test]
fn ten_thousand_services() {
    let state = |n: usize| {
        let services: Vec<(String, Service)> = (0..n)
            .map(|i| {
                let (a, b) = (i / 250, i % 250);
                let pods: Vec<String> =
                    (1..4).map(|pod| format!("10.1.{}.{}", i % 256, pod + i / 256 * 4)).collect();
                let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
                (format!("service-{i:05}"), service(&format!("10.100.{a}.{b}"), &pods))
            })
            .collect();
        let list: Vec<(&str, Service)> = services.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
        desired(&list)
    };
    let mut desired = state(10_000);
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut planner = planner(&store, &clock);
    let report = planner.sync(&mut store, &desired).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems.first());
    assert_eq!(store.len(Table::FrontendsV4), 20_000);
    desired.services.get_mut(&name("service-05000")).unwrap().backends[1].addr = addr("10.1.250.250");
    let plan = planner.plan(&desired).unwrap();
    assert!(plan.entries() <= 8, "{plan}");
    apply(&mut store, &plan).unwrap();
    planner.commit();
    assert_eq!(text(&store), text(&fresh(&desired)));
}
