//! Real sockets on the loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Health, HealthError, rfc3339};
use crate::model::health::Checks;
use crate::model::{Allocations, Built, Interface, ModelConfig, NodePortAddresses, build};
use crate::source::Objects;
use crate::source::document;

/// A port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn config() -> ModelConfig {
    ModelConfig {
        node_name: "n".to_owned(),
        interfaces: vec![Interface {
            name: "lo".to_owned(),
            addresses: vec!["127.0.0.1/8".parse().unwrap()],
        }],
        nodeport_addresses: NodePortAddresses::Ranges(vec!["127.0.0.1/32".parse().unwrap()]),
        ..ModelConfig::default()
    }
}

/// A Service with a health check on `port` and so many ready endpoints here.
fn built(port: u16, ready: u8) -> (Objects, Built) {
    let endpoints: Vec<_> = (1..=ready)
        .map(|i| serde_json::json!({"addresses": [format!("10.0.0.{i}")], "nodeName": "n"}))
        .collect();
    let objects = [
        serde_json::json!({
            "kind": "Service", "metadata": {"name": "web"},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": port, "ports": [{"port": 80}],
            },
        }),
        serde_json::json!({
            "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"port": 8080}],
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": endpoints,
        }),
    ];
    let objects: Objects = objects.into_iter().map(|o| document::decode(o).unwrap().unwrap()).collect();
    let built = build(&config(), &objects, &Allocations::default());
    (objects, built)
}

fn update(health: &mut Health, (objects, built): &(Objects, Built), in_kernel: bool) -> Vec<HealthError> {
    let node = objects.nodes.values().next().map(|node| &**node);
    health.update(&config(), node, &Checks::of(built), in_kernel)
}

/// What a client gets, head in lower case.
async fn get(address: SocketAddr, path: &'static str) -> std::io::Result<(String, String)> {
    let ask = move || -> std::io::Result<(String, String)> {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Ok((head.to_lowercase(), body.to_owned()))
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[tokio::test]
async fn h1_ports_open_answer_and_close_with_their_services() {
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut health = Health::new(Duration::ZERO);
    assert!(update(&mut health, &built(port, 2), true).is_empty());
    let (head, body) = get(address, "/").await.unwrap();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    for line in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 2",
    ] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["localEndpoints"], 2);
    assert_eq!(body["service"], serde_json::json!({"namespace": "default", "name": "web"}));

    assert!(update(&mut health, &built(port, 0), true).is_empty());
    let (head, _) = get(address, "/healthz").await.unwrap();
    assert!(head.starts_with("http/1.1 503 "), "{head}");

    assert!(update(&mut health, &built(port, 1), false).is_empty());
    let (head, body) = get(address, "/").await.unwrap();
    assert!(
        head.starts_with("http/1.1 503 ") && body.contains(r#""serviceProxyHealthy":false"#),
        "{head} {body}"
    );

    assert!(update(&mut health, &<(Objects, Built)>::default(), true).is_empty());
    assert_eq!(health.listening().count(), 0);
    // The task that held the socket ends when the runtime gets to it.
    tokio::task::yield_now().await;
    assert!(get(address, "/").await.is_err());
}

#[tokio::test]
async fn h1_a_pod_of_both_families_counts_once_for_a_service_of_one() {
    let port = free_port();
    let objects = [
        serde_json::json!({
            "kind": "Service", "metadata": {"name": "web"},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": port, "ports": [{"port": 80}], "selector": {"app": "web"},
            },
        }),
        serde_json::json!({
            "kind": "Pod", "metadata": {"name": "web-1", "labels": {"app": "web"}}, "spec": {"nodeName": "n"},
            "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }),
    ];
    let objects: Objects = objects.into_iter().map(|o| document::decode(o).unwrap().unwrap()).collect();
    let built = build(&config(), &objects, &Allocations::default());
    let mut health = Health::new(Duration::ZERO);
    assert!(update(&mut health, &(objects, built), true).is_empty());
    let (_, body) = get(SocketAddr::from(([127, 0, 0, 1], port)), "/").await.unwrap();
    assert!(body.contains(r#""localEndpoints":1,"#), "{body}");
}

#[tokio::test]
async fn h1_a_taken_port_is_reported_and_tried_again() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut health = Health::new(Duration::ZERO);
    let errors = update(&mut health, &built(port, 1), true);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().starts_with(&format!("127.0.0.1:{port}: cannot listen")), "{}", errors[0]);
    drop(holder);
    assert!(update(&mut health, &built(port, 1), true).is_empty());
    assert!(get(SocketAddr::from(([127, 0, 0, 1], port)), "/").await.is_ok());
}

#[tokio::test]
async fn h2_ready_after_the_first_synchronisation() {
    let mut health = Health::new(Duration::ZERO);
    let address = health.serve_agent("127.0.0.1:0".parse().unwrap()).unwrap();
    let status = async |path| get(address, path).await.unwrap().0[9..12].to_owned();
    assert_eq!((status("/livez").await, status("/readyz").await), ("200".to_owned(), "503".to_owned()));
    update(&mut health, &<(Objects, Built)>::default(), true);
    assert_eq!((status("/readyz").await, status("/healthz").await), ("200".to_owned(), "200".to_owned()));
    update(&mut health, &<(Objects, Built)>::default(), false);
    assert_eq!((status("/readyz").await, status("/healthz").await), ("200".to_owned(), "503".to_owned()));
    assert_eq!(status("/other").await, "404");
}

#[tokio::test]
async fn h2_a_node_on_its_way_out_fails_healthz_alone() {
    let mut health = Health::new(Duration::from_secs(60));
    let address = health.serve_agent("127.0.0.1:0".parse().unwrap()).unwrap();
    let node = serde_json::json!({
        "kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]},
    });
    let objects: Objects = [document::decode(node).unwrap().unwrap()].into_iter().collect();
    update(&mut health, &(objects, Built::default()), true);
    let (head, body) = get(address, "/healthz").await.unwrap();
    assert!(head.starts_with("http/1.1 503 ") && body.contains(r#""nodeEligible":false"#), "{head} {body}");
    assert!(get(address, "/livez").await.unwrap().0.starts_with("http/1.1 200 "));
}

#[test]
fn times_in_utc() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_709_251_200, "2024-03-01T00:00:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(rfc3339(Some(Duration::from_secs(seconds))), text);
    }
}
