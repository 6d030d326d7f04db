//! Traffic through Services, with the agent at each hook: its programs attach, clients get answers, and a restart disturbs
//! nobody.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lb_userspace::dataplane::kernel_at_least;
use serde_json::Value;

use super::datagrams::{self, DATAGRAMS};
use super::{Check, XDP_GENERIC};
use crate::node::{Agent, TestNode, VIP4, VIP6};
use crate::patience::wait_for;
use crate::scene::kernel_counter;

/// Servers behind the Service.
const SERVERS: usize = 3;
/// A port of the Service's address that it does not serve.
const OTHER_PORT: &str = "10.96.0.10:81";

/// How the agent is told to work.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    hook: &'static str,
    forwarding: &'static str,
}

/// All that a user may choose.
const WAYS: [Way; 4] = [
    Way { name: "tc-direct", hook: "tc", forwarding: "direct" },
    Way { name: "tc-kernel", hook: "tc", forwarding: "kernel" },
    Way { name: "xdp", hook: "xdp", forwarding: "auto" },
    Way { name: "xdp-generic", hook: "xdp-generic", forwarding: "auto" },
];

/// Two for each way.
pub fn checks() -> Vec<Check> {
    WAYS.into_iter()
        .flat_map(|way| {
            let needs = || (way.hook == "xdp-generic").then_some(XDP_GENERIC);
            [
                Check::new(format!("traffic/{}", way.name), needs(), move || traffic(way)),
                Check::new(format!("restart/{}", way.name), needs(), move || restart(way)),
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

impl Way {
    /// Whether packets are to be forwarded past the host's stack; none when that is the agent's choice.
    fn direct(&self) -> Option<bool> {
        (self.forwarding != "auto").then_some(self.forwarding == "direct")
    }

    fn agent(&self, node: &TestNode) -> Agent {
        node.agent(&["--hook", self.hook, "--forwarding", self.forwarding])
    }

    /// Fails unless `lb status` shows the balancing program where it was wanted, on the wires of the client and of all
    /// servers, and forwarding as wanted.
    fn assert_attached(&self, node: &TestNode) {
        let hook = really(self.hook);
        let links = node.links();
        let there: Vec<_> = links.iter().filter(|link| link["hook"] == hook).collect();
        assert_eq!(there.len(), SERVERS + 1, "{links:?}");
        if let Some(direct) = self.direct() {
            assert!(there.iter().all(|link| link["forwarding"]["direct"] == direct), "{links:?}");
        }
    }
}

/// Packets that the node's own stack has sent on.
pub(super) fn forwarded(node: &TestNode) -> u64 {
    ["Ip ForwDatagrams", "Ip6OutForwDatagrams"]
        .map(|name| kernel_counter(node.node().namespace(), name))
        .iter()
        .sum()
}

/// Connects so often; how many connections each server got.
fn answers(node: &TestNode, to: &str, times: usize) -> BTreeMap<usize, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let mut talk = node.connect(to).unwrap_or_else(|error| panic!("{error}"));
        talk.say("hello").unwrap_or_else(|error| panic!("{to}: {error}"));
        *answers.entry(talk.server).or_default() += 1;
    }
    answers
}

fn traffic(way: Way) -> String {
    let node = TestNode::new(SERVERS as u8);
    datagrams::serve(&node, SERVERS);
    node.serve(&[0, 1, 2]);
    let agent = way.agent(&node);
    way.assert_attached(&node);
    let before = forwarded(&node);
    let even: BTreeMap<usize, usize> = (0..SERVERS).map(|server| (server, 4)).collect();
    for to in [VIP4, VIP6] {
        assert_eq!(answers(&node, to, 12), even, "{to}: they do not take turns");
    }
    for to in DATAGRAMS {
        assert_eq!(datagrams::answers(node.client(), to, 12), even, "{to} UDP: they do not take turns");
    }
    let by_the_host = forwarded(&node) - before;
    if let Some(direct) = way.direct() {
        assert_eq!(by_the_host == 0, direct, "{by_the_host} packets by way of the host's stack");
    }
    assert_eq!(refused(&node, OTHER_PORT), Some(ErrorKind::ConnectionRefused));
    // One server goes: no new connection finds it.
    node.serve(&[0, 2]);
    wait_for("the change", || node.json(&["get", "services", "--service", "web"])[0]["backends"] == 2);
    assert_eq!(answers(&node, VIP4, 4), BTreeMap::from([(0, 2), (2, 2)]));
    let (ended, log) = agent.terminate();
    assert!(ended.success(), "{log}");
    let output = node.lb(&["detach"]);
    assert!(output.status.success(), "lb detach: {}", String::from_utf8_lossy(&output.stderr));
    assert!(refused(&node, VIP4).is_some(), "the Service answers after lb detach");
    format!("at {}: 28 connections, 24 UDP clients, IPv4 and IPv6", really(way.hook))
}

/// Why the client cannot connect.
fn refused(node: &TestNode, to: &str) -> Option<ErrorKind> {
    let to: SocketAddr = to.parse().expect("an address");
    let dial = move || TcpStream::connect_timeout(&to, Duration::from_secs(3)).err();
    node.client().run(dial).expect("enters").map(|error| error.kind())
}

/// What stays when programs are exchanged.
pub(super) fn places(links: &[Value]) -> Vec<[String; 4]> {
    let names = ["interface", "hook", "id", "ifindex"];
    links.iter().map(|link| names.map(|name| link[name].to_string())).collect()
}

fn restart(way: Way) -> String {
    let node = TestNode::new(SERVERS as u8);
    node.serve(&[0, 1, 2]);
    let agent = way.agent(&node);
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
    let agent = way.agent(&node);
    say("with a new agent");
    assert_eq!(places(&node.links()), places(&links), "links are made anew");
    assert_eq!(agent.log().matches("took over").count(), SERVERS + 1, "{}", agent.log());
    node.serve(&[1]);
    wait_for("the change", || node.json(&["get", "services", "--service", "web"])[0]["backends"] == 1);
    assert_eq!(answers(&node, VIP6, 2), BTreeMap::from([(1, 2)]));
    say("after a change");
    format!("at {}: 4 connections stayed", really(way.hook))
}
