//! Connections: which backend, under which name, and what is left to do for packets.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use lb_tests::node::{VIP4, VIP6};
use lb_tests::patience::wait_for;

use crate::world::World;

/// [`VIP4`], dialled by an IPv6 socket.
const MAPPED: &str = "[::ffff:10.96.0.10]:80";

#[test]
fn connections_go_to_each_backend_in_turn_and_their_packets_are_not_rewritten() {
    let world = World::new(3);
    world.net.serve(&[0, 1, 2]);
    let _agent = world.agent(&[]);
    for vip in [VIP4, VIP6, MAPPED] {
        let mut talks: Vec<_> = (0..9).map(|_| world.dial(vip)).collect();
        let mut count = BTreeMap::<usize, u32>::new();
        for talk in &mut talks {
            *count.entry(talk.server).or_default() += 1;
            talk.say("hello").unwrap();
            // The name that was dialled, not the backend's.
            assert_eq!(talk.peer(), vip.parse::<SocketAddr>().unwrap());
        }
        assert_eq!(count, BTreeMap::from([(0, 3), (1, 3), (2, 3)]), "{vip}");
    }
    assert_eq!(world.flows(), 0, "packets of sockets that dialled a backend are rewritten");
    assert_eq!(world.calls().get("new-flow"), Some(&27), "{:?}", world.calls());
    wait_for("the end of all connections to be counted", || world.opened_and_closed() == (27, 27));
}

#[test]
fn sockets_outside_of_the_cgroup_and_addresses_that_are_not_ours_are_left_alone() {
    let world = World::new(2);
    world.net.serve(&[0]);
    let _agent = world.agent(&[]);
    let mut talk = world.net.connect(VIP4).unwrap();
    talk.say("hello").unwrap();
    assert_eq!(world.flows(), 1);
    assert_eq!(world.calls(), BTreeMap::new());
    // A backend by its own name, and something that is none.
    for number in [0, 1] {
        let address = format!("{}:8080", lb_tests::node::address(number, 4));
        assert_eq!(world.dial(&address).peer().to_string(), address);
    }
    assert_eq!(world.calls(), BTreeMap::from([("not-ours".to_owned(), 2)]));
}

#[test]
fn processes_of_the_node_and_backends_themselves_reach_services() {
    let world = World::new(1);
    world.net.serve(&[0]);
    world.net.ip("addr add fd00:172::1/128 dev lo");
    let _agent = world.agent(&[]);
    for vip in [VIP4, VIP6, MAPPED] {
        // No hook of an interface sees what the node itself sends, so there would be nobody to translate it.
        let mut talk = world.connect(world.net.node().namespace(), vip).unwrap();
        talk.say("from the node").unwrap();
        assert_eq!(talk.peer(), vip.parse::<SocketAddr>().unwrap());
        // Hairpin (A3): the only backend is the client itself.
        let mut talk = world.connect(world.net.server(0), vip).unwrap();
        assert_eq!(talk.server, 0);
        talk.say("to myself").unwrap();
    }
    assert_eq!(world.flows(), 0);
}

#[test]
fn a_backend_on_the_nodes_own_network_is_reached() {
    let world = World::new(0);
    let node = world.net.node().namespace();
    let listener = node.run(|| TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
    world.net.write(
        "web.yaml",
        &crate::world::service(
            "web",
            ["10.96.0.10", "fd00:96::10"],
            "",
            &[("172.31.0.1".to_owned(), "here")],
        ),
    );
    let _agent = world.agent(&[]);
    for from in [node, world.net.client()] {
        let stream = world.cgroup.run(from, || std::net::TcpStream::connect(VIP4)).unwrap();
        let (accepted, client) = listener.accept().unwrap();
        assert_eq!(client, stream.local_addr().unwrap());
        assert_eq!(accepted.local_addr().unwrap(), "172.31.0.1:8080".parse().unwrap());
    }
}

#[test]
fn an_ordinary_program_in_the_cgroup_sees_the_service() {
    let world = World::new(1);
    world.net.serve(&[0]);
    let _agent = world.agent(&[]);
    for vip in [VIP4, VIP6] {
        let mut socat = world.cgroup.command(world.net.client(), "socat");
        // The server says its number, then repeats what it is told until the end.
        let output =
            socat.args(["-d", "-d", "-", &format!("TCP:{vip}")]).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{said}");
    }
    assert_eq!(world.flows(), 0);
    assert_eq!(world.calls().get("new-flow"), Some(&2));
}
