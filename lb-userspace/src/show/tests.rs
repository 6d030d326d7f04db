//! Listings from tables in memory.

use std::net::Ipv4Addr;
use std::path::Path;

use lb_common::abi::{
    ABI_VERSION, AffinityEntry, AffinityKey, BackendStats, Counter, FlowEntry, FlowKey, IfaceEntry, Meta,
    flow_flag, flow_state, protocol,
};
use lb_common::reason::{REASON_SLOTS, Reason};
use lb_common::tables::Table;

use super::output::{Format, Listing, render};
use super::{affinity, backends, flows, services, stats, status};
use crate::maps::{MapStore, MemoryStore, put_flow};
use crate::model::desired::*;
use crate::plan::words::v4_word;
use crate::plan::{Limits, Options, Planner, steady_clock};

fn word(text: &str) -> u32 {
    v4_word(text.parse::<Ipv4Addr>().unwrap())
}

/// Backends 1 to 3, the third terminating; the first two on this node.
fn store() -> MemoryStore {
    let backends: Vec<Backend> = (1..4)
        .map(|i| Backend {
            addr: format!("10.1.0.{i}").parse().unwrap(),
            port: 8080,
            local: i < 3,
            ready: i != 3,
            serving: true,
            terminating: i == 3,
            weight: 1,
            target: String::new(),
        })
        .collect();
    let frontend = |addr: &str, port, kind| Frontend { addr: addr.parse().unwrap(), port, kind };
    let service = Service {
        frontends: vec![
            frontend("10.96.0.10", 80, FrontendKind::ClusterIp),
            frontend("192.168.0.2", 30080, FrontendKind::NodePort),
        ],
        backends,
        cluster: Some(vec![0, 1]),
        local: Some(vec![0]),
        has_any_endpoints: true,
        internal_local: false,
        external_local: true,
        affinity_timeout_s: Some(60),
        algorithm: Algorithm::RoundRobin,
        source_ranges: Vec::new(),
        health_check_node_port: 0,
    };
    let name = ServicePortName {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        port: "http".to_owned(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    };
    let mut desired = Desired::default();
    desired.services.insert(name, service);
    let mut store = MemoryStore::new();
    let limits = Limits::of(&store).unwrap();
    Planner::adopt(&store, limits, Options::default(), steady_clock())
        .unwrap()
        .sync(&mut store, &desired)
        .unwrap();
    put(&mut store, Table::Turns, &2_u32, &40_u64);
    put(&mut store, Table::Turns, &3_u32, &2_u64);
    let stats = BackendStats {
        to_backend: Counter { packets: 10, bytes: 1000 },
        from_backend: Counter { packets: 8, bytes: 8000 },
        flows_opened: 3,
        flows_closed: 2,
    };
    put(&mut store, Table::BackendStats, &1_u32, &stats);
    let meta =
        Meta { abi_version: ABI_VERSION, synced: 1, ticks_per_second: 100, agent_pid: 0, flow_seed: 1 };
    put(&mut store, Table::Meta, &0_u32, &meta);
    store
}

fn put<K: bytemuck::Pod, V: bytemuck::Pod>(store: &mut MemoryStore, table: Table, key: &K, value: &V) {
    store.update(table, bytemuck::bytes_of(key), bytemuck::bytes_of(value)).unwrap();
}

fn flow(store: &mut MemoryStore, client_port: u16, protocol: u8, state: u8, flags: u8, last_seen: u32) {
    let mut key: FlowKey<u32> = bytemuck::Zeroable::zeroed();
    (key.src, key.dst) = (word("10.1.0.9"), word("10.96.0.10"));
    (key.sport_be, key.dport_be) = (client_port.to_be(), 80_u16.to_be());
    key.protocol = protocol;
    let mut entry: FlowEntry<u32> = bytemuck::Zeroable::zeroed();
    (entry.src, entry.dst) = (word("10.1.0.9"), word("10.1.0.1"));
    (entry.sport_be, entry.dport_be) = (client_port.to_be(), 8080_u16.to_be());
    (entry.backend_id, entry.backend_generation, entry.frontend_id) = (1, 1, 1);
    (entry.last_seen, entry.state, entry.flags) = (last_seen, state, flags);
    put_flow(store, u32::from(client_port), &key, &entry).unwrap();
}

fn cells(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

#[test]
fn services_as_table_and_json() {
    let listing = services::collect(&store(), &services::Filter::default()).unwrap();
    assert_eq!(
        cells(&listing.text()),
        [
            vec!["SERVICE", "TYPE", "FRONTEND", "ALGORITHM", "POLICY", "BACKENDS", "NEW CONNECTIONS"],
            vec![
                "default/web:http/TCP",
                "ClusterIP",
                "10.96.0.10:80/TCP",
                "round-robin",
                "Cluster, affinity 60 s",
                "2",
                "42"
            ],
            vec![
                "default/web:http/TCP",
                "NodePort",
                "192.168.0.2:30080/TCP",
                "round-robin",
                "Cluster, outside Local, affinity 60 s",
                "2, outside 1",
                "0"
            ],
        ]
    );
    let json: serde_json::Value = serde_json::from_str(&render(Format::Json, &listing).unwrap()).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({
            "service": "default/web:http/TCP", "type": "NodePort", "address": "192.168.0.2", "port": 30080,
            "protocol": "TCP", "algorithm": "round-robin", "internal_policy": "Cluster",
            "external_policy": "Local", "affinity_seconds": 60, "backends": 2, "external_backends": 1,
            "when_empty": "drop", "new_connections": 0,
        })
    );
    assert!(render(Format::Yaml, &listing).unwrap().contains("type: NodePort"));
    let none = services::Filter { service: Some("other".to_owned()) };
    assert_eq!(services::collect(&store(), &none).unwrap().text(), "no services\n");
}

#[test]
fn backends_with_state_and_traffic() {
    let listing = backends::collect(&store(), &backends::Filter::default()).unwrap();
    let text = listing.text();
    let rows = cells(&text);
    assert_eq!(
        rows[1],
        ["default/web:http/TCP", "10.1.0.1:8080", "usable", "yes", "1", "10 / 8", "1000 / 8000", "3", "2"]
    );
    assert_eq!(rows[3][1..4], ["10.1.0.3:8080", "serving", "no"]);
    assert_eq!(rows.len(), 4);
}

#[test]
fn flows_are_one_line_each() {
    let mut store = store();
    let established = flow_state::REPLIED | flow_state::CONFIRMED;
    flow(&mut store, 1001, protocol::TCP, established, 0, 900);
    flow(&mut store, 1002, protocol::TCP, 0, 0, 500);
    flow(&mut store, 1003, protocol::TCP, established | flow_state::RESET, 0, 990);
    flow(&mut store, 1004, protocol::UDP, flow_state::REPLIED, 0, 100);
    flow(&mut store, 1005, protocol::UDP, 0, 0, 0);
    flow(&mut store, 1006, protocol::TCP, established, flow_flag::REPLY, 0);
    let collect = |filter: &flows::Filter| flows::collect(&store, filter, |hz| Some(10 * hz)).unwrap().text();
    let text = collect(&flows::Filter::default());
    let rows: Vec<Vec<&str>> = cells(&text);
    let told: Vec<(&str, &str, &str)> = rows[1..].iter().map(|row| (row[2], row[5], row[6])).collect();
    assert_eq!(
        told,
        [
            ("10.1.0.9:1003", "closing", "0 s"),
            ("10.1.0.9:1001", "established", "1 s"),
            ("10.1.0.9:1002", "opening", "5 s"),
            ("10.1.0.9:1004", "udp-answered", "9 s"),
            ("10.1.0.9:1005", "udp", "10 s"),
        ]
    );
    assert_eq!(rows[1][3..5], ["10.96.0.10:80", "10.1.0.1:8080"]);
    assert_eq!(rows[1][0], "default/web:http/TCP");
    let limited = collect(&flows::Filter { limit: 2, ..flows::Filter::default() });
    assert!(limited.ends_with("2 of 5 flows, --limit shows more\n"), "{limited}");
    let one = collect(&flows::Filter { state: Some("opening".to_owned()), ..flows::Filter::default() });
    assert_eq!(one.lines().count(), 2, "{one}");
    // Without a clock there is no age, and nothing else is lost.
    let no_clock = flows::collect(&store, &flows::Filter::default(), |_| None).unwrap().text();
    assert_eq!(no_clock.lines().count(), 6);
}

#[test]
fn affinity_of_clients() {
    let mut store = store();
    for (client, backend_id, backend_generation) in
        [("10.1.0.9", 1, 1), ("10.1.0.8", 3, 1), ("10.1.0.7", 2, 9)]
    {
        let client = crate::plan::words::wide(client.parse().unwrap());
        let key = AffinityKey { client, service_id: 1 };
        let entry = AffinityEntry { backend_id, backend_generation, last_seen: 700 };
        put(&mut store, Table::Affinity, &key, &entry);
    }
    let text = affinity::collect(&store, &affinity::Filter::default(), |hz| Some(10 * hz)).unwrap().text();
    let rows = cells(&text);
    assert_eq!(rows[1], ["default/web:http/TCP", "10.1.0.8", "10.1.0.3:8080", "no", "3 s"]);
    assert_eq!(rows[2], ["default/web:http/TCP", "10.1.0.9", "10.1.0.1:8080", "yes", "3 s"]);
    assert_eq!(rows.len(), 3, "a number that was used again says nothing: {text}");
}

#[test]
fn stats_by_interface_and_reason() {
    let mut store = store();
    put(&mut store, Table::Ifaces, &7_u32, &IfaceEntry::new("eth0", 1, 0));
    let counter = Counter { packets: 5, bytes: 500 };
    put(&mut store, Table::IfaceStats, &(REASON_SLOTS + Reason::NewFlow as u32), &counter);
    put(&mut store, Table::IfaceStats, &(Reason::NotOurs as u32), &counter);
    let text = stats::collect(&store, &stats::Filter::default()).unwrap().text();
    let rows = cells(&text);
    assert_eq!(rows[1][..6], ["(others)", "passed", "not-ours", "V8", "5", "500"]);
    assert_eq!(rows[2][..6], ["eth0", "forwarded", "new-flow", "S1", "5", "500"]);
    assert_eq!(rows.len(), 3);
    let filter = stats::Filter { iface: Some("eth".to_owned()) };
    assert_eq!(stats::collect(&store, &filter).unwrap().text().lines().count(), 2);
}

#[test]
fn status_counts() {
    let status = status::collect(&store(), Path::new("/nowhere")).unwrap();
    let text = status.text();
    assert!(text.contains("agent           not running; the programs go on"), "{text}");
    assert!(text.contains("synchronised    yes"), "{text}");
    assert!(text.contains("backends        3 of 262144"), "{text}");
    assert!(text.contains("slots           3 of"), "{text}");
    assert!(text.contains("attached to     nothing"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&render(Format::Json, &status).unwrap()).unwrap();
    assert_eq!(json["services"], serde_json::json!({"used": 1, "capacity": 65536}));
    assert_eq!(json["agent"], serde_json::json!({"pid": 0, "running": false}));
}
