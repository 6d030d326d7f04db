//! Connections through a Service, with the agent at each hook: its programs attach, clients get answers, and a restart
//! disturbs nobody.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lb_userspace::dataplane::kernel_at_least;
use serde_json::Value;

use super::Check;
use crate::node::{TestNode, VIP4, VIP6};
use crate::patience::wait_for;

/// Servers behind the Service.
const SERVERS: usize = 3;
/// A port of the Service's address that it does not serve.
const OTHER_PORT: &str = "10.96.0.10:81";

/// One for each hook that a user may choose.
pub fn checks() -> Vec<Check> {
    ["tc", "xdp", "xdp-generic"]
        .into_iter()
        .flat_map(|hook| {
            [
                Check::new(format!("traffic/{hook}"), None, move || traffic(hook)),
                Check::new(format!("restart/{hook}"), None, move || restart(hook)),
            ]
        })
        .collect()
}

/// What `lb status` calls the hook on this kernel.
fn really(hook: &str) -> &str {
    match hook {
        "tc" if kernel_at_least(6, 6) => "tcx",
        "tc" => "clsact",
        hook => hook,
    }
}

/// Fails unless the balancing program is where it was wanted, on the wires of the client and of all servers.
fn assert_attached(node: &TestNode, hook: &str) {
    // clsact filters are no links, and have no pins.
    if really(hook) == "clsact" {
        return;
    }
    let links = node.links();
    let there = links.iter().filter(|link| link["hook"] == really(hook)).count();
    assert_eq!(there, SERVERS + 1, "{links:?}");
}

/// Connects so often to each; how many connections each server got.
fn answers(node: &TestNode, to: &str, times: usize) -> BTreeMap<usize, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let mut talk = node.connect(to).unwrap_or_else(|error| panic!("{error}"));
        talk.say("hello").unwrap_or_else(|error| panic!("{to}: {error}"));
        *answers.entry(talk.server).or_default() += 1;
    }
    answers
}

fn traffic(hook: &str) -> String {
    let node = TestNode::new(SERVERS as u8);
    node.serve(&[0, 1, 2]);
    let agent = node.agent(&["--hook", hook]);
    assert_attached(&node, hook);
    let even: BTreeMap<usize, usize> = (0..SERVERS).map(|server| (server, 4)).collect();
    for to in [VIP4, VIP6] {
        assert_eq!(answers(&node, to, 12), even, "{to}: they do not take turns");
    }
    assert_eq!(refused(&node, OTHER_PORT), Some(ErrorKind::ConnectionRefused));
    // One server goes: no new connection finds it.
    node.serve(&[0, 2]);
    wait_for("the change", || node.json(&["get", "services"])[0]["backends"] == 2);
    assert_eq!(answers(&node, VIP4, 4), BTreeMap::from([(0, 2), (2, 2)]));
    let (ended, log) = agent.terminate();
    assert!(ended.success(), "{log}");
    let output = node.lb(&["detach"]);
    assert!(output.status.success(), "lb detach: {}", String::from_utf8_lossy(&output.stderr));
    assert!(refused(&node, VIP4).is_some(), "the Service answers after lb detach");
    format!("at {}: 28 connections, IPv4 and IPv6", really(hook))
}

/// Why the client cannot connect.
fn refused(node: &TestNode, to: &str) -> Option<ErrorKind> {
    let to: SocketAddr = to.parse().expect("an address");
    let dial = move || TcpStream::connect_timeout(&to, Duration::from_secs(3)).err();
    node.client().run(dial).expect("enters").map(|error| error.kind())
}

/// What stays when programs are exchanged.
fn places(links: &[Value]) -> Vec<[String; 4]> {
    let names = ["interface", "hook", "id", "ifindex"];
    links.iter().map(|link| names.map(|name| link[name].to_string())).collect()
}

fn restart(hook: &str) -> String {
    let node = TestNode::new(SERVERS as u8);
    node.serve(&[0, 1, 2]);
    let agent = node.agent(&["--hook", hook]);
    let mut talks: Vec<_> =
        [VIP4, VIP6, VIP4, VIP6].iter().map(|to| node.connect(to).expect("connects")).collect();
    let mut say = |when: &str| {
        for talk in &mut talks {
            talk.say(when).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
    };
    say("before");
    let links = node.links();
    agent.kill();
    say("without an agent");
    assert_eq!(node.connect(VIP4).map(|talk| talk.server < SERVERS), Ok(true));
    let agent = node.agent(&["--hook", hook]);
    say("with a new agent");
    assert_eq!(places(&node.links()), places(&links), "links are made anew");
    assert_eq!(agent.log().matches("took over").count(), SERVERS + 1, "{}", agent.log());
    node.serve(&[1]);
    wait_for("the change", || node.json(&["get", "services"])[0]["backends"] == 1);
    assert_eq!(answers(&node, VIP6, 2), BTreeMap::from([(1, 2)]));
    say("after a change");
    format!("at {}: 4 connections stayed", really(hook))
}
