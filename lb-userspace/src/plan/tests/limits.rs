//! One past each limit.

use lb_common::tables::Table;

use super::build::*;
use crate::maps::MemoryStore;
use crate::model::desired::*;
use crate::plan::*;

/// Two services fit, the third does not; then the first goes and there is room.
fn two_of_three(store: MemoryStore, change: impl Fn(&mut Limits), says: &str) {
    let (mut store, clock) = (store, TestClock::default());
    let mut limits = Limits::of(&store).unwrap();
    change(&mut limits);
    let mut planner = Planner::adopt(&store, limits, Options::default(), clock.clock()).unwrap();
    let a = ("a", service("10.96.0.10", &["10.1.0.1", "10.1.0.2"]));
    let b = ("b", service("10.96.0.11", &["10.1.0.3", "10.1.0.4"]));
    let c = ("c", service("10.96.0.12", &["10.1.0.5", "10.1.0.6"]));
    let two = desired(&[a.clone(), b.clone()]);
    let report = planner.sync(&mut store, &two).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let with_two = text(&store);
    let three = desired(&[a, b.clone(), c.clone()]);
    for _ in 0..2 {
        let report = planner.sync(&mut store, &three).unwrap();
        let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        assert!(problems.iter().any(|p| p.contains(says) && p.contains("default/c")), "{problems:?}");
        let kept: Vec<&str> = with_two.lines().collect();
        let now = text(&store);
        assert!(kept.iter().all(|line| now.lines().any(|l| l == *line)), "{with_two}\nbecame\n{now}");
    }
    // A restart in this state is no different.
    planner.readopt(&store).unwrap();
    assert!(!planner.sync(&mut store, &three).unwrap().problems.is_empty());
    let other_two = desired(&[b, c]);
    let report = planner.sync(&mut store, &other_two).unwrap();
    if !report.problems.is_empty() {
        assert!(report.retry_after.is_some());
        clock.advance(report.retry_after.unwrap().as_millis() as u64);
        let report = planner.sync(&mut store, &other_two).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
    assert_eq!(text(&store), text(&fresh(&other_two)));
}

#[test]
fn services() {
    two_of_three(MemoryStore::new().with_capacity(Table::ServiceNames, 2), |_| {}, "--max-services");
}

#[test]
fn backends() {
    two_of_three(MemoryStore::new().with_capacity(Table::Backends, 5), |_| {}, "--max-backends");
}

#[test]
fn slots() {
    two_of_three(MemoryStore::new().with_capacity(Table::Slots, 5), |_| {}, "--max-slots");
}

#[test]
fn frontends() {
    // An owner each.
    two_of_three(MemoryStore::new().with_capacity(Table::FrontendsV4, 4), |_| {}, "--max-frontends");
}

#[test]
fn frontend_numbers() {
    two_of_three(MemoryStore::new(), |limits| limits.frontend_ids = 3, "--max-frontends");
}

#[test]
fn a_service_that_grows_too_large_keeps_working() {
    let (mut store, clock) = (MemoryStore::new(), TestClock::default());
    let mut limits = Limits::of(&store).unwrap();
    limits.backends_per_service = 2;
    let mut planner = Planner::adopt(&store, limits, Options::default(), clock.clock()).unwrap();
    planner.sync(&mut store, &desired(&[("a", service("10.96.0.10", &["10.1.0.1", "10.1.0.2"]))])).unwrap();
    let before = text_with_numbers(&store);
    let large = desired(&[("a", service("10.96.0.10", &["10.1.0.1", "10.1.0.2", "10.1.0.3"]))]);
    let report = planner.sync(&mut store, &large).unwrap();
    assert_eq!(
        report.problems[0].to_string(),
        "default/a:http/TCP left as it is: it has 3 backends, one service port may have 2"
    );
    assert_eq!(text_with_numbers(&store), before);
}

#[test]
fn ranges() {
    let mut store = MemoryStore::new().with_capacity(Table::SourceRanges, 2).with_capacity(Table::Classes, 5);
    let clock = TestClock::default();
    let mut planner = planner(&store, &clock);
    let mut web = service("10.96.0.10", &["10.1.0.1"]);
    web.frontends.push(frontend(FrontendKind::LoadBalancer, "203.0.113.7", 80));
    web.source_ranges =
        ["198.51.100.0/24", "198.51.101.0/24", "198.51.103.0/24"].map(|r| r.parse().unwrap()).to_vec();
    let mut state = desired(&[("web", web)]);
    state.surroundings.node_addresses.push(addr("192.168.0.3"));
    let report = planner.sync(&mut store, &state).unwrap();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.iter().any(|p| p.contains("--max-source-ranges") && p.contains("default/web")),
        "{problems:?}"
    );
    assert!(problems.iter().any(|p| p.contains("--max-classes")), "{problems:?}");
    assert!(!text(&store).contains("frontend 203.0.113.7"), "never open to everyone");
}
