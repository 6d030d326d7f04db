//! Native XDP on network cards with a driver of their own: virtio-net.
//!
//! ```text
//!      client  server 0              server 1
//!      veth-c  veth-s0                  │ wire 2
//!          \     /                   card-s
//!         node, agent ───────────────────┘
//!           card-c
//!             │ wire 1
//!          outside
//! ```

use std::collections::BTreeMap;

use lb_userspace::dataplane::kernel_at_least;
use lb_userspace::lab::link::Netlink;
use lb_userspace::lab::netns::Namespace;
use lb_userspace::lab::topology::POD_INTERFACE;

use super::traffic::{forwarded, places};
use super::wires::Wire;
use super::{Check, datagrams};
use crate::hosts::{NODE, Place};
use crate::node::{Agent, PORT, Talk, TestNode, address};
use crate::patience::wait_for;
use crate::scene::kernel_counter;

/// The driver takes XDP programs for packets in several buffers.
const BUFFERS: (u8, u8) = (6, 3);
/// The kernel says which devices take redirected packets.
const TOLD: (u8, u8) = (6, 3);
/// Interfaces of the node.
const INTERFACES: usize = 4;
/// The node's end of the wire to the client outside.
const OUTER: &str = "card-c";
/// An MTU for which packets need several buffers.
const JUMBO: u32 = 9000;
/// Of a refusal: what the driver says, and the advice.
const REFUSED: [&str; 2] = ["MTU too large to enable XDP", "lower it, or use --hook tc"];
/// Packets that the host's stack may see although they are redirected: see `tests/tests/direct.rs`.
const BY_CHANCE: u64 = 8;
/// Where the client finds the Service, and the client outside: TCP, then UDP.
const INSIDE: [[&str; 2]; 2] = [["10.96.0.20:80", "[fd00:96::20]:80"], ["10.96.0.20:53", "[fd00:96::20]:53"]];
const OUTSIDE: [[&str; 2]; 2] =
    [["172.31.0.1:30080", "[fd00:172:31::1]:30080"], ["172.31.0.1:30053", "[fd00:172:31::1]:30053"]];

/// What a node with such cards does.
pub fn checks() -> Vec<Check> {
    vec![Check::new("traffic/xdp-virtio", None, traffic), Check::new("jumbo/xdp-virtio", None, jumbo)]
}

struct Scene {
    node: TestNode,
    outside: Namespace,
    /// Last: they come home when nobody uses them any more.
    wires: [Wire; 2],
}

impl Scene {
    fn new() -> Self {
        let mut node = TestNode::like_between_machines(1);
        let mut wires = [1, 2].map(Wire::new);
        let namespace = Namespace::open(node.node().namespace().name()).expect("a node");
        let [first, second] = &mut wires;
        let outside = node.node().add_pod_by(
            &node.namespace_name("outside"),
            OUTER,
            &[false, true].map(|v6| Place::Outside.address(v6)),
            |pod| first.lay(&namespace, OUTER, pod),
        );
        let outside = outside.expect("a client outside");
        node.add_server_by("card-s", |pod| second.lay(&namespace, "card-s", pod));
        let netlink = node.node().netlink();
        let lo = netlink.link("lo").expect("an interface").index;
        netlink.add_address(lo, NODE[1].parse().expect("an address")).expect("an address");
        datagrams::listen(&node, 2);
        let this = Self { node, outside, wires };
        this.publish(&[0, 1]);
        this
    }

    /// Puts the Service in front of these servers.
    fn publish(&self, servers: &[usize]) {
        let mut text = "kind: Service\nmetadata: {name: wires}\nspec: {type: NodePort, ipFamilyPolicy: RequireDualStack, \
                        clusterIPs: [10.96.0.20, 'fd00:96::20'], ports: [{name: tcp, port: 80, nodePort: 30080}, \
                        {name: udp, port: 53, protocol: UDP, nodePort: 30053}]}\n"
            .to_owned();
        for family in [4, 6] {
            let endpoints: Vec<_> = servers
                .iter()
                .map(|server| format!("{{addresses: ['{}']}}", address(*server, family)))
                .collect();
            text += &format!(
                "---\nkind: EndpointSlice\nmetadata: {{name: wires-{family}, labels: {{kubernetes.io/service-name: wires}}}}\n\
                 addressType: IPv{family}\nports: [{{name: tcp, port: {PORT}}}, {{name: udp, port: {}, protocol: UDP}}]\n\
                 endpoints: [{}]\n",
                datagrams::PORT,
                endpoints.join(", ")
            );
        }
        self.node.write("wires.yaml", &text);
    }

    fn arguments(hook: &'static str) -> [&'static str; 10] {
        let interfaces = ["--iface", "veth*", "--iface", "card*", "--external-iface", OUTER];
        let [a, b, c, d, e, f] = interfaces;
        ["--hook", hook, "--forwarding", "direct", a, b, c, d, e, f]
    }

    /// On all interfaces of the node.
    fn agent(&self, hook: &'static str) -> Agent {
        self.node.agent(&Self::arguments(hook))
    }

    /// The hook on the wire to the client outside.
    fn hook(&self) -> String {
        let links = self.node.links();
        let ingress = ["xdp", "tcx", "clsact"];
        let there: Vec<_> = links.iter().filter(|link| link["interface"] == OUTER).collect();
        let found = ingress.iter().find(|hook| there.iter().any(|link| link["hook"] == **hook));
        (*found.unwrap_or_else(|| panic!("{links:?}"))).to_owned()
    }

    /// From a client of each kind, TCP and UDP, IPv4 and IPv6; each server gets so many turns, and streams come back whole.
    fn traffic(&self, turns: usize) {
        let even = BTreeMap::from([(0, turns), (1, turns)]);
        for (client, [tcp, udp]) in [(self.node.client(), INSIDE), (&self.outside, OUTSIDE)] {
            for to in tcp {
                let mut answers = BTreeMap::new();
                for _ in 0..2 * turns {
                    let mut talk = self.talk(client, to);
                    talk.say(&"long_".repeat(4_000)).unwrap_or_else(|error| panic!("{to}: {error}"));
                    *answers.entry(talk.server).or_default() += 1;
                }
                assert_eq!(answers, even, "{to}: they do not take turns");
            }
            for to in udp {
                assert_eq!(
                    datagrams::answers(client, to, 2 * turns),
                    even,
                    "{to} UDP: they do not take turns"
                );
            }
        }
    }

    fn talk(&self, client: &Namespace, to: &str) -> Talk {
        client.run(|| Talk::new(to)).expect("enters").unwrap_or_else(|error| panic!("{error}"))
    }

    /// Packets that the node's own stack has seen, or sent on. Multicasts, by which hosts tell their groups, are its own.
    fn by_the_host(&self) -> u64 {
        let counter = |name| kernel_counter(self.node.node().namespace(), name);
        let multicasts = counter("Ip6InMcastPkts");
        (counter("Ip InReceives") + counter("Ip6InReceives")).saturating_sub(multicasts)
            + forwarded(&self.node)
    }

    /// How packets of `traffic` have gone.
    fn way(&self, traffic: impl FnOnce()) -> &'static str {
        let before = self.by_the_host();
        traffic();
        let by_the_host = self.by_the_host().saturating_sub(before);
        eprintln!("{by_the_host} packets by way of the host's stack");
        let links = self.node.links();
        let xdp: Vec<_> = links.iter().filter(|link| link["hook"] == "xdp").collect();
        assert_eq!(xdp.len(), INTERFACES, "{links:?}");
        let told = kernel_at_least(TOLD.0, TOLD.1);
        assert!(xdp.iter().all(|link| link["forwarding"]["direct"] == told), "{links:?}");
        if told {
            assert!(by_the_host <= BY_CHANCE, "{by_the_host} packets by way of the host's stack");
            return "redirects to the next device";
        }
        assert!(by_the_host > 100, "{by_the_host} packets by way of the host's stack");
        "the host's stack"
    }

    fn set_mtu(&self, mtu: u32) {
        let set = |netlink: &Netlink, name: &str| {
            let index = netlink.link(name).expect("an interface").index;
            netlink.set_mtu(index, mtu).expect("an MTU");
        };
        set(self.node.node().netlink(), OUTER);
        set(&Netlink::of(&self.outside).expect("a socket"), POD_INTERFACE);
    }

    /// Ends it in an orderly way: programs are gone when the wires come home.
    fn end(self, agent: Agent) {
        let (ended, log) = agent.terminate();
        assert!(ended.success(), "{log}");
        let output = self.node.lb(&["detach"]);
        assert!(output.status.success(), "lb detach: {}", String::from_utf8_lossy(&output.stderr));
        let Self { node, outside, wires } = self;
        drop((node, outside));
        drop(wires);
    }
}

/// Traffic under an agent, without one, and under the next.
fn traffic() -> String {
    let scene = Scene::new();
    let agent = scene.agent("xdp");
    let mut talks: Vec<_> = OUTSIDE[0]
        .into_iter()
        .flat_map(|to| [to; 2].map(|to| scene.talk(&scene.outside, to)))
        .chain(INSIDE[0].into_iter().flat_map(|to| [to; 2].map(|to| scene.talk(scene.node.client(), to))))
        .collect();
    let mut say = |when: &str| {
        for talk in &mut talks {
            talk.say(&when.repeat(1000)).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
    };
    let way = scene.way(|| {
        scene.traffic(3);
        say("with_an_agent");
    });
    let links = scene.node.links();
    agent.kill();
    scene.way(|| {
        say("without_an_agent");
        scene.traffic(1);
    });
    let agent = scene.agent("xdp");
    assert_eq!(places(&scene.node.links()), places(&links), "links are made anew");
    assert_eq!(agent.log().matches("took over").count(), INTERFACES, "{}", agent.log());
    scene.way(|| say("with_a_new_agent"));
    scene.publish(&[1]);
    let only_one = || scene.node.json(&["get", "services", "--service", "wires"])[0]["backends"] == 1;
    wait_for("the change", only_one);
    assert_eq!(scene.talk(&scene.outside, OUTSIDE[0][0]).server, 1);
    say("after_a_change");
    drop(talks);
    scene.end(agent);
    format!("at {way}: 48 connections and UDP clients with an agent, 16 without, 8 connections stayed")
}

/// A large MTU, which the driver may refuse: in words that help, and `--hook auto` takes tc then.
fn jumbo() -> String {
    let scene = Scene::new();
    scene.set_mtu(JUMBO);
    // One queue, one CPU: too few, and `lb doctor` says what to do.
    let report = scene.node.lb(&["doctor", "--output", "json", "--iface", OUTER]);
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    for words in
        ["driver virtio_net, native XDP yes", "1 of 1 queue pairs in use", "give the device 2 queue pairs"]
    {
        assert!(report.contains(words), "{report}");
    }
    let agent = scene.agent("auto");
    let hook = scene.hook();
    let log = agent.log();
    let takes = kernel_at_least(BUFFERS.0, BUFFERS.1);
    assert_eq!(hook == "xdp", takes, "{hook}: {log}");
    if !takes {
        let line = log.lines().find(|line| line.contains("card-c: cannot attach at xdp: ")).unwrap_or(&log);
        assert!(REFUSED.iter().all(|words| line.contains(words)), "{line}");
    }
    scene.traffic(1);
    scene.end(agent);
    format!("at {hook}")
}
