//! Balancing at sockets, and what becomes of it where the kernel cannot: then packets are balanced, and `lb` says so.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

use lb_userspace::dataplane::kernel_at_least;

use super::datagrams::{self, DATAGRAMS};
use super::{Check, SOCKET_LB};
use crate::cgroup::TestCgroup;
use crate::node::{Talk, TestNode, VIP4, VIP6};
use crate::patience::wait_for;

const SERVERS: usize = 3;

/// Where it is, and what is there where it is not.
pub fn checks() -> Vec<Check> {
    vec![
        Check::new("sockets/balanced", Some(SOCKET_LB), balanced),
        Check::new("sockets/closed", Some(SOCKET_LB), closed),
        Check::new("sockets/auto", None, auto),
    ]
}

/// TCP and UDP sockets of a cgroup dial backends in turn, and no packet is rewritten.
fn balanced() -> String {
    let node = TestNode::new(SERVERS as u8);
    let cgroup = TestCgroup::new(&node.namespace_name("cgroup"));
    datagrams::serve(&node, SERVERS);
    node.serve(&[0, 1, 2]);
    let agent = node.agent(&["--socket-lb", "on", "--cgroup", cgroup.text()]);
    let even: BTreeMap<usize, usize> = (0..SERVERS).map(|server| (server, 2)).collect();
    for to in [VIP4, VIP6] {
        let mut answers = BTreeMap::new();
        for _ in 0..6 {
            let talk = cgroup.run(node.client(), || Talk::new(to)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(talk.peer(), to.parse::<SocketAddr>().expect("an address"));
            *answers.entry(talk.server).or_default() += 1;
        }
        assert_eq!(answers, even, "{to}");
    }
    for to in DATAGRAMS {
        let mut answers = BTreeMap::new();
        for _ in 0..6 {
            let socket = cgroup.run(node.client(), || datagrams::socket(to));
            *answers.entry(datagrams::ask(&socket)).or_default() += 1;
        }
        assert_eq!(answers, even, "{to} UDP");
    }
    assert_eq!(node.json(&["get", "flows"])["total"], 0, "packets were rewritten");
    let hooks = node.json(&["status"])["sockets"]["hooks"].as_array().map_or(0, Vec::len);
    // Nobody serves it: the call itself fails.
    let other = SocketAddr::new(VIP4.parse::<SocketAddr>().expect("an address").ip(), 81);
    let error = cgroup
        .run(node.client(), || std::net::TcpStream::connect(other))
        .expect_err("nobody is there")
        .kind();
    let wanted =
        if kernel_at_least(5, 18) { ErrorKind::ConnectionRefused } else { ErrorKind::PermissionDenied };
    assert_eq!(error, wanted, "a port that nobody serves");
    agent.kill();
    let talk = cgroup.run(node.client(), || Talk::new(VIP4));
    assert!(talk.is_ok(), "without an agent: {talk:?}");
    format!("{hooks} hooks; a refused call: {error}")
}

/// A connected UDP socket is closed when its backend goes.
fn closed() -> String {
    let node = TestNode::new(2);
    let cgroup = TestCgroup::new(&node.namespace_name("cgroup"));
    datagrams::serve(&node, 1);
    let agent = node.agent(&["--socket-lb", "on", "--cgroup", cgroup.text()]);
    let socket = cgroup.run(node.client(), || datagrams::socket(DATAGRAMS[0]));
    assert_eq!(datagrams::ask(&socket), 0);
    datagrams::publish(&node, &[1]);
    agent.wait_log("UDP sockets whose backend has gone");
    let log = agent.log();
    assert!(log.contains("closed 1 UDP sockets"), "{log}");
    wait_for("the end of the socket", || socket.peer_addr().is_err());
    String::new()
}

/// `auto` takes it where it is; elsewhere packets are balanced, and log and status say so.
fn auto() -> String {
    let node = TestNode::new(SERVERS as u8);
    let cgroup = TestCgroup::new(&node.namespace_name("cgroup"));
    node.serve(&[0, 1, 2]);
    let agent = node.agent(&["--socket-lb", "auto", "--cgroup", cgroup.text()]);
    let talk = cgroup.run(node.client(), || Talk::new(VIP4)).unwrap_or_else(|error| panic!("{error}"));
    assert!(talk.server < SERVERS);
    let flows = node.json(&["get", "flows"])["total"].as_u64().expect("a number");
    let status = node.json(&["status"]);
    if kernel_at_least(SOCKET_LB.since.0, SOCKET_LB.since.1) {
        assert_eq!((flows, status["sockets"].is_null()), (0, false), "{status}");
        return "at sockets".to_owned();
    }
    assert_eq!((flows, status["sockets"].is_null()), (1, true), "{status}");
    assert!(agent.log().contains("sockets are not balanced, their packets are"), "{}", agent.log());
    "not at sockets: by packet".to_owned()
}
