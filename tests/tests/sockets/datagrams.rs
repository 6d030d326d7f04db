//! Datagrams: connected and unconnected sockets, names of senders, backends that go.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use lb_tests::node::{VIP4, VIP6};
use lb_tests::patience::wait_for;
use lb_userspace::lab::netns::Namespace;

use crate::world::{World, servers, service};

const WEB: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const OTHER: [&str; 2] = ["10.96.0.11", "fd00:96::11"];
const MAPPED: &str = "[::ffff:10.96.0.10]:80";

/// Servers that answer a datagram with their number, and a Service in front of some.
fn world(count: usize, behind: &[usize]) -> World {
    let world = World::new(u8::try_from(count).unwrap());
    for number in 0..count {
        let socket = world.net.server(number).run(|| UdpSocket::bind("[::]:8080").unwrap()).unwrap();
        thread::spawn(move || {
            let mut room = [0; 64];
            while let Ok((_, client)) = socket.recv_from(&mut room) {
                let _gone = socket.send_to(number.to_string().as_bytes(), client);
            }
        });
    }
    world.net.write("web.yaml", &service("web", WEB, "", &servers(behind)));
    world
}

/// A socket of the cgroup, not connected.
fn socket(world: &World, from: &Namespace, to: &str) -> UdpSocket {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = world.cgroup.run(from, || UdpSocket::bind(any)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

/// Sends a datagram and returns which server answers, and under which name.
fn ask(socket: &UdpSocket, to: &str) -> (usize, SocketAddr) {
    socket.send_to(b"who?", to).unwrap();
    let mut room = [0; 64];
    let (length, from) = socket.recv_from(&mut room).unwrap();
    (String::from_utf8_lossy(&room[..length]).parse().unwrap(), from)
}

#[test]
fn unconnected_sockets_keep_a_backend_and_see_the_service() {
    let world = world(3, &[0, 1, 2]);
    let _agent = world.agent(&[]);
    for vip in [VIP4, VIP6, MAPPED] {
        let mut seen = Vec::new();
        for _ in 0..6 {
            let socket = socket(&world, world.net.client(), vip);
            let (first, from) = ask(&socket, vip);
            assert_eq!(from, vip.parse::<SocketAddr>().unwrap());
            for _ in 0..3 {
                assert_eq!(ask(&socket, vip), (first, from), "{vip}");
            }
            seen.push(first);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 0, 1, 1, 2, 2], "{vip}");
    }
    assert_eq!(world.flows(), 0);
    let calls = world.calls();
    assert_eq!((calls.get("new-flow"), calls.get("to-backend")), (Some(&18), Some(&54)), "{calls:?}");
    assert_eq!(calls.get("from-backend"), Some(&72), "{calls:?}");
    // Statistics of the backends tell the same.
    let backends = world.net.json(&["get", "backends", "--service", "web:udp"]);
    let sums = ["packets_to_backend", "packets_from_backend"].map(|field| {
        backends.as_array().unwrap().iter().map(|row| row[field].as_u64().unwrap()).sum::<u64>()
    });
    assert_eq!(sums, [72, 72], "{backends}");
}

#[test]
fn connected_sockets_see_the_service_as_peer_and_as_sender() {
    let world = world(2, &[0, 1]);
    let _agent = world.agent(&[]);
    for (vip, from) in [VIP4, VIP6, MAPPED].into_iter().flat_map(|vip| [(vip, 0), (vip, 1)]) {
        // A pod, and a backend of the Service itself.
        let from = if from == 0 { world.net.client() } else { world.net.server(0) };
        let socket = socket(&world, from, vip);
        world.cgroup.run(from, || socket.connect(vip)).unwrap();
        let name = vip.parse::<SocketAddr>().unwrap();
        assert_eq!(socket.peer_addr().unwrap(), name);
        socket.send(b"who?").unwrap();
        let mut room = [0; 64];
        assert_eq!(socket.recv_from(&mut room).unwrap(), (1, name));
        // A datagram to another name than the peer's, in between.
        assert_eq!(ask(&socket, vip), (usize::from(room[0] - b'0'), name));
    }
    assert_eq!(world.flows(), 0);
}

#[test]
fn c4_a_socket_connected_to_a_backend_that_has_gone_is_closed_and_others_are_not() {
    let world = world(2, &[0, 1]);
    let agent = world.agent(&[]);
    let mut room = [0; 64];
    let mut connect = |vip: &str| {
        let socket = socket(&world, world.net.client(), vip);
        world.cgroup.run(world.net.client(), || socket.connect(vip)).unwrap();
        socket.send(b"who?").unwrap();
        socket.recv(&mut room).unwrap();
        (usize::from(room[0] - b'0'), socket)
    };
    let sockets: Vec<_> = [VIP4, VIP4, VIP6, VIP6, MAPPED, MAPPED].map(&mut connect).into();
    assert_eq!(sockets.iter().filter(|(server, _)| *server == 0).count(), 3);
    let unconnected = [VIP4, VIP6].map(|vip| {
        let [first, second] = [(); 2].map(|()| socket(&world, world.net.client(), vip));
        // One of them has the backend that goes.
        let servers: BTreeSet<_> = [ask(&first, vip).0, ask(&second, vip).0].into();
        assert_eq!(servers.len(), 2);
        (vip, [first, second])
    });
    world.net.write("web.yaml", &service("web", WEB, "", &servers(&[1])));
    for (server, socket) in &sockets {
        if *server == 0 {
            wait_for("the end of a socket", || {
                socket.send(b"still there?").is_err_and(|error| error.kind() == ErrorKind::ConnectionAborted)
                    || socket.peer_addr().is_err()
            });
        }
    }
    agent.wait_log("UDP sockets whose backend has gone");
    for (server, socket) in sockets {
        if server == 1 {
            socket.send(b"who?").unwrap();
            let mut room = [0; 64];
            assert_eq!((socket.recv(&mut room).unwrap(), room[0]), (1, b'1'));
        }
    }
    // Those that are not connected dial another with the next datagram.
    for (vip, sockets) in unconnected {
        for socket in sockets {
            assert_eq!(ask(&socket, vip).0, 1, "{vip}");
        }
    }
    assert_eq!(connect(VIP4).0, 1);
}

#[test]
fn c6_two_services_with_one_backend_answer_a_socket_each_under_its_name() {
    let world = world(1, &[0]);
    world.net.write("other.yaml", &service("other", OTHER, "", &servers(&[0])));
    let _agent = world.agent(&[]);
    for [one, other] in [[VIP4, "10.96.0.11:80"], [VIP6, "[fd00:96::11]:80"]] {
        let socket = socket(&world, world.net.client(), one);
        for _ in 0..2 {
            assert_eq!(ask(&socket, one).1, one.parse().unwrap());
            assert_eq!(ask(&socket, other).1, other.parse().unwrap());
        }
    }
}

#[test]
fn v1_datagrams_for_nobody_are_refused() {
    let world = world(1, &[]);
    let _agent = world.agent(&[]);
    for vip in [VIP4, VIP6, MAPPED] {
        let socket = socket(&world, world.net.client(), vip);
        let refused = socket.send_to(b"who?", vip).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{vip}");
        let refused = world.cgroup.run(world.net.client(), || socket.connect(vip)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{vip}");
    }
}
