//! Who may answer a socket: policies, refusals, affinity, and namespaces that are left alone.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lb_tests::node::{VIP4, VIP6, address};
use lb_userspace::lab::netns::Namespace;

use crate::world::{World, servers, service};

/// Another Service's addresses.
const OTHER: [&str; 2] = ["10.96.0.11", "fd00:96::11"];
const WEB: [&str; 2] = ["10.96.0.10", "fd00:96::10"];

/// Why a connection fails.
fn refusal(world: &World, from: &Namespace, to: &str) -> ErrorKind {
    let to: SocketAddr = to.parse().unwrap();
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(30));
    world.cgroup.run(from, connect).expect_err("a refusal").kind()
}

#[test]
fn v1_v5_v6_a_socket_is_refused_at_once() {
    let world = World::new(1);
    world.net.write("empty.yaml", &service("empty", WEB, "", &[]));
    world.net.write("web.yaml", &service("web", OTHER, "", &servers(&[0])));
    let _agent = world.agent(&[]);
    let node = world.net.node().namespace();
    for from in [world.net.client(), node] {
        for vip in [VIP4, VIP6] {
            // V1: no backend anywhere.
            assert_eq!(refusal(&world, from, vip), ErrorKind::ConnectionRefused, "{vip}");
        }
        // V5: a port that the Service does not have; by IPv4, by IPv6, and by IPv4 on an IPv6 socket.
        for closed in ["10.96.0.11:81", "[fd00:96::11]:81", "[::ffff:10.96.0.11]:81"] {
            assert_eq!(refusal(&world, from, closed), ErrorKind::ConnectionRefused, "{closed}");
        }
        // V6: in the service range, but nobody's.
        assert_eq!(refusal(&world, from, "10.96.0.99:80"), ErrorKind::PermissionDenied);
    }
    let calls = world.calls();
    assert_eq!(calls.get("rejected-no-backend"), Some(&4), "{calls:?}");
    assert_eq!(calls.get("rejected-port"), Some(&6), "{calls:?}");
    assert_eq!(calls.get("drop-unowned"), Some(&2), "{calls:?}");
}

#[test]
fn v2_v3_local_policy_holds_for_sockets() {
    let world = World::new(2);
    let local = "internalTrafficPolicy: Local,";
    let mut both = servers(&[0]);
    both.extend([4, 6].map(|family| (address(1, family), "elsewhere")));
    let elsewhere: Vec<_> = both.iter().filter(|(_, node)| *node == "elsewhere").cloned().collect();
    world.net.write("web.yaml", &service("web", WEB, local, &both));
    world.net.write("other.yaml", &service("other", OTHER, local, &elsewhere));
    let _agent = world.agent(&["--node-name", "here"]);
    for vip in [VIP4, VIP6] {
        for _ in 0..4 {
            assert_eq!(world.dial(vip).server, 0);
        }
    }
    assert_eq!(refusal(&world, world.net.client(), "10.96.0.11:80"), ErrorKind::PermissionDenied);
    assert_eq!(world.calls().get("drop-no-local-backend"), Some(&1));
}

#[test]
fn s4_a_client_keeps_its_backend_whichever_way_it_dials() {
    let world = World::new(3);
    world.net.write("web.yaml", &service("web", WEB, "sessionAffinity: ClientIP,", &servers(&[0, 1, 2])));
    let _agent = world.agent(&[]);
    for vip in [VIP4, VIP6] {
        let first = world.net.connect(vip).unwrap().server;
        for _ in 0..4 {
            assert_eq!(world.dial(vip).server, first, "{vip}: not the one the packet path remembers");
            assert_eq!(world.net.connect(vip).unwrap().server, first, "{vip}");
        }
    }
    assert_eq!(world.calls().get("new-flow"), Some(&8), "{:?}", world.calls());
    // The node is another client; what its socket chose first stays, too.
    let node = world.net.node().namespace();
    let first = world.connect(node, VIP4).unwrap().server;
    for _ in 0..4 {
        assert_eq!(world.connect(node, VIP4).unwrap().server, first);
    }
    let remembered = world.net.json(&["get", "affinity"]);
    let clients: Vec<_> = remembered.as_array().unwrap().iter().map(|row| row["client"].clone()).collect();
    assert_eq!(clients.len(), 3, "{clients:?}");
    assert!(clients.contains(&"172.31.0.1".into()), "{clients:?}");
}

#[test]
fn a_pod_whose_address_is_not_known_is_left_to_the_packet_path_where_it_matters() {
    let world = World::new(3);
    world.net.write("web.yaml", &service("web", WEB, "sessionAffinity: ClientIP,", &servers(&[0, 1, 2])));
    // Two addresses: which of them a socket will have depends on whom it dials.
    let ip = world
        .net
        .client()
        .command("ip")
        .unwrap()
        .args(["addr", "add", "10.77.0.99/32", "dev", "lo"])
        .status();
    assert!(ip.unwrap().success());
    let _agent = world.agent(&[]);
    let first = world.dial(VIP4).server;
    for _ in 0..4 {
        assert_eq!(world.dial(VIP4).server, first);
    }
    assert_eq!(world.flows(), 5);
    assert_eq!(world.calls().get("left-to-packets"), Some(&5));
}

#[test]
fn an_excluded_namespace_is_left_to_the_packet_path() {
    let world = World::new(1);
    world.net.serve(&[0]);
    let client = world.net.client().name().to_owned();
    let agent = world.agent(&["--socket-lb-exclude", &client]);
    let mut talk = world.dial(VIP4);
    talk.say("by packets").unwrap();
    assert_eq!(world.flows(), 1);
    assert_eq!(world.connect(world.net.server(0), VIP4).unwrap().server, 0);
    assert_eq!(world.flows(), 1, "others are not excluded");
    // Another start, another wish.
    agent.terminate();
    let _agent = world.agent(&[]);
    world.dial(VIP4).say("by socket").unwrap();
    assert_eq!(world.flows(), 1);
}
