//! Desired states and planners for tests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::maps::{MapStore, MemoryStore};
use crate::model::desired::*;
use crate::plan::*;

/// A clock that stands until it is moved on.
#[derive(Clone, Default)]
pub(super) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(super) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn clock(&self) -> Clock {
        let time = self.0.clone();
        Arc::new(move || Duration::from_millis(time.load(Ordering::Relaxed)))
    }
}

pub(super) fn planner(store: &dyn MapStore, clock: &TestClock) -> Planner {
    let options = Options { maglev_slots: 31, ..Options::default() };
    Planner::adopt(store, Limits::of(store).unwrap(), options, clock.clock()).unwrap()
}

/// Tables of a start from nothing.
pub(super) fn fresh(desired: &Desired) -> MemoryStore {
    let mut store = MemoryStore::new();
    planner(&store, &TestClock::default()).sync(&mut store, desired).unwrap();
    store
}

pub(super) fn text(store: &dyn MapStore) -> String {
    Tables::read(store).unwrap().dump(Numbers::Hidden)
}

pub(super) fn text_with_numbers(store: &dyn MapStore) -> String {
    Tables::read(store).unwrap().dump(Numbers::Shown)
}

pub(super) fn name(service: &str) -> ServicePortName {
    ServicePortName {
        namespace: "default".to_owned(),
        name: service.to_owned(),
        port: "http".to_owned(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    }
}

pub(super) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn frontend(kind: FrontendKind, address: &str, port: u16) -> Frontend {
    Frontend { addr: addr(address), port, kind }
}

pub(super) fn backend(address: &str, local: bool) -> Backend {
    Backend {
        addr: addr(address),
        port: 8080,
        local,
        ready: true,
        serving: true,
        terminating: false,
        weight: 1,
        target: String::new(),
    }
}

/// A ClusterIP service with port 80; backends ending in an odd number are local.
pub(super) fn service(cluster_ip: &str, backends: &[&str]) -> Service {
    let backends: Vec<Backend> =
        backends.iter().map(|text| backend(text, text.ends_with(['1', '3', '5', '7', '9']))).collect();
    Service {
        frontends: vec![frontend(FrontendKind::ClusterIp, cluster_ip, 80)],
        cluster: Some((0..backends.len()).collect()),
        local: Some((0..backends.len()).filter(|i| backends[*i].local).collect()),
        has_any_endpoints: !backends.is_empty(),
        backends,
        internal_local: false,
        external_local: false,
        affinity_timeout_s: None,
        algorithm: Algorithm::RoundRobin,
        source_ranges: Vec::new(),
        health_check_node_port: 0,
    }
}

pub(super) fn surroundings() -> Surroundings {
    Surroundings {
        node_addresses: vec![addr("192.168.0.2")],
        masquerade_addresses: vec![addr("192.168.0.2")],
        pod_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        ..Surroundings::default()
    }
}

pub(super) fn desired(services: &[(&str, Service)]) -> Desired {
    Desired {
        services: services.iter().map(|(n, service)| (name(n), service.clone())).collect(),
        surroundings: surroundings(),
    }
}
