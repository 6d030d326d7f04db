//! What the filter lets through, and when it forgets.

use lb_common::abi::{FlowEntry, FlowKey};
use lb_common::engine::filter::{cell, place};

use super::build::*;
use crate::maps::{MapStore, MemoryStore, put_flow};
use crate::plan::words::v4_word;
use crate::plan::*;

/// The bits of an IPv4 address, as the kernel programs see them.
fn bits(store: &MemoryStore, text: &str) -> u64 {
    let (word, shift) = place(v4_word(text.parse().unwrap()));
    Tables::read(store).unwrap().filter_word(word) >> shift & cell::ALL
}

#[test]
fn addresses_get_in_with_the_plan_that_needs_them() {
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut planner = planner(&store, &clock);
    assert_eq!(bits(&store, "10.96.0.10"), 0);
    let plan = planner.plan(&desired(&[("web", service("10.96.0.10", &["10.1.0.1"]))])).unwrap();
    let at = |wanted: fn(&Op) -> bool| plan.ops.iter().position(wanted).unwrap();
    let last_word = plan.ops.iter().rposition(|op| matches!(op, Op::Filter(..))).unwrap();
    assert!(last_word < at(|op| matches!(op, Op::Frontend(..))), "before anything refers to them: {plan}");
    apply(&mut store, &plan).unwrap();
    planner.commit();
    assert_eq!(bits(&store, "10.96.0.10"), cell::DIALLED);
    assert_eq!(bits(&store, "10.1.0.1"), cell::ANSWERS);
}

#[test]
fn tidying_keeps_what_flows_need() {
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut planner = planner(&store, &clock);
    let both = desired(&[
        ("mail", service("10.96.0.11", &["10.1.0.2"])),
        ("web", service("10.96.0.10", &["10.1.0.1"])),
    ]);
    planner.sync(&mut store, &both).unwrap();
    planner.sync(&mut store, &desired(&[])).unwrap();
    // Somebody still talks to the one.
    let mut key: FlowKey<u32> = bytemuck::Zeroable::zeroed();
    let mut entry: FlowEntry<u32> = bytemuck::Zeroable::zeroed();
    let word = |text: &str| v4_word(text.parse().unwrap());
    (key.src, key.dst, key.protocol) = (word("10.1.0.9"), word("10.96.0.10"), 6);
    (entry.src, entry.dst) = (word("10.1.0.9"), word("10.1.0.1"));
    put_flow(&mut store, 3, &key, &entry).unwrap();

    assert_ne!(bits(&store, "10.96.0.11"), 0, "nothing is cleared by a plan");
    planner.tidy_filter(&mut store).unwrap();
    assert_eq!(bits(&store, "10.96.0.10"), cell::DIALLED);
    assert_eq!(bits(&store, "10.1.0.1"), cell::ANSWERS);
    assert_eq!((bits(&store, "10.96.0.11"), bits(&store, "10.1.0.2")), (0, 0));

    store.delete(lb_common::tables::Table::FlowsV4, &3_u32.to_ne_bytes()).unwrap();
    planner.tidy_filter(&mut store).unwrap();
    assert_eq!((bits(&store, "10.96.0.10"), bits(&store, "10.1.0.1")), (0, 0));
    planner.sync(&mut store, &both).unwrap();
    assert_eq!((bits(&store, "10.96.0.11"), bits(&store, "10.1.0.2")), (cell::DIALLED, cell::ANSWERS));
}
