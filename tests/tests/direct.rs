//! Direct forwarding end to end: past the host's own forwarding, whatever that would do, and along with pods that change
//! their place. Needs root.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use aya::programs::{Program, XdpMode};
use lb_common::abi::{Config, IfaceEntry, iface_flag};
use lb_common::tables::Table;
use lb_tests::hosts::{Hosts, Manifest, NODE, Place, parse, run, vip};
use lb_tests::node::{Talk, TestNode, VIP4, VIP6, address};
use lb_tests::patience::wait_for;
use lb_tests::rows::kernel::{Loaded, small};
use lb_tests::scene::kernel_counter;
use lb_userspace::lab::netns::Namespace;
use lb_userspace::lab::topology::{GATEWAY_V4, GATEWAY_V6, POD_INTERFACE};
use lb_userspace::maps::{KernelStore, MapStore};
use serde_json::{Value, json};

const AGENT: [&str; 2] = ["--hook", "tc"];
/// What the kernel counts of packets that it forwards.
const FORWARDED: [&str; 2] = ["Ip ForwDatagrams", "Ip6OutForwDatagrams"];

fn forwarded(node: &Namespace) -> [u64; 2] {
    FORWARDED.map(|name| kernel_counter(node, name))
}

/// Has the node forward nothing, and mind every address and connection that it does not know.
fn strict(node: &Namespace) {
    let sysctl = |(name, value): (&str, &str)| fs::write(format!("/proc/sys/net/ipv4/conf/{name}"), value);
    node.run(|| [("all/rp_filter", "1"), ("all/accept_local", "0")].into_iter().try_for_each(sysctl))
        .expect("enters")
        .expect("a sysctl");
    run(node, "nft add table inet strict");
    run(node, "nft add chain inet strict forward { type filter hook forward priority 0 ; policy drop ; }");
    run(node, "nft add chain inet strict first { type filter hook prerouting priority -300 ; }");
    run(node, "nft add rule inet strict first ct state invalid drop");
}

/// From pods and from outside, to backends here and on other hosts, masqueraded and not: no packet of it goes the way of
/// the host's forwarding, but for so many, and none needs to.
fn nothing_through_the_host(hosts: &Hosts, hook: &str, by_chance: u64) {
    let backends = [Place::Local(0), Place::Remote, Place::Far];
    hosts.net.write("web.yaml", &Manifest::new("web", 1, &backends).spec("type: NodePort").text());
    let node = hosts.net.node().namespace();
    strict(node);
    let before = forwarded(node);
    let _agent = hosts.agent(hook, &["--forwarding", "direct"]);
    for v6 in [false, true] {
        let node_port = SocketAddr::new(parse(NODE)[usize::from(v6)], 30_001);
        let service = SocketAddr::new(vip(1, v6), 80);
        for (from, to) in [(Place::Client, service), (Place::Outside, node_port), (Place::Remote, node_port)]
        {
            for _ in backends {
                let mut talk =
                    hosts.connect(from, to).unwrap_or_else(|error| panic!("{from:?} to {to}: {error}"));
                talk.echo(&vec![7; 200_000]).unwrap_or_else(|error| panic!("{from:?} to {to}: {error}"));
                talk.finish().unwrap();
            }
        }
        let udp = hosts.udp(Place::Client, service);
        assert!(udp.ask(&[7; 8000]).is_ok(), "fragments");
    }
    let after = forwarded(node);
    let by_host = after[0] + after[1] - before[0] - before[1];
    assert!(by_host <= by_chance, "{FORWARDED:?}: {before:?}, then {after:?}");
}

#[test]
fn nothing_goes_through_the_hosts_forwarding() {
    nothing_through_the_host(&Hosts::new(), "tc", 0);
}

/// The same at XDP, on veth pairs that stand for wires between machines.
#[test]
fn nothing_goes_through_the_hosts_forwarding_at_native_xdp() {
    let hosts = Hosts::new();
    hosts.like_between_machines();
    // Of these packets one in 65,536 looks unfinished. There are some ten thousand, and the host drops it: it is sent again.
    nothing_through_the_host(&hosts, "xdp", 8);
}

/// Back by the way they came, as on a host with one network card: here a wire stands for it whose other end has an XDP
/// program too, without which a veth drops what is sent back.
#[test]
fn packets_go_back_by_the_way_they_came_at_native_xdp() {
    let hosts = Hosts::new();
    hosts.like_between_machines();
    hosts.net.write("web.yaml", &Manifest::new("web", 1, &[Place::Remote]).spec("type: NodePort").text());
    let node = hosts.net.node().namespace();
    strict(node);
    // Later it would take the mark away.
    hosts.agent("xdp", &["--forwarding", "direct"]).kill();
    let attach = || {
        let mut loaded = Loaded::new(&["lb_xdp"], &Config::with_ticks_per_second(100), small).expect("loads");
        let Some(Program::Xdp(program)) = loaded.ebpf.program_mut("lb_xdp") else { panic!("no XDP program") };
        program.attach(POD_INTERFACE, XdpMode::Driver).expect("attaches");
        loaded
    };
    let _attached = hosts.other().run(attach).expect("enters");
    let wire = hosts.net.node().netlink().link("veth-r").unwrap().index;
    let mut store = KernelStore::open_pinned(&hosts.net.pin_dir()).unwrap();
    let entry = store.lookup(Table::Ifaces, &wire.to_ne_bytes()).unwrap().unwrap();
    let mut entry: IfaceEntry = bytemuck::pod_read_unaligned(&entry);
    entry.flags |= iface_flag::CARD;
    store.update(Table::Ifaces, &wire.to_ne_bytes(), bytemuck::bytes_of(&entry)).unwrap();
    // It must not be a redirect.
    assert!(store.delete(Table::Devices, &wire.to_ne_bytes()).unwrap(), "it took redirects");
    for v6 in [false, true] {
        let node_port = SocketAddr::new(parse(NODE)[usize::from(v6)], 30_001);
        let mut talk = hosts.connect(Place::Remote, node_port).unwrap();
        assert_eq!(talk.heard.client.ip(), node_port.ip(), "masqueraded");
        talk.echo(&vec![7; 100_000]).unwrap();
        talk.finish().unwrap();
    }
}

/// A neighbour has another hardware address now, and nobody was told. The kernel, whose own packets do not go there, would
/// believe the old one for ever.
#[test]
fn silent_neighbours_are_asked_at_native_xdp() {
    const OLD: &str = "02:09:09:09:09:09";
    let hosts = Hosts::new();
    hosts.like_between_machines();
    hosts.net.write("web.yaml", &Manifest::new("web", 1, &[Place::Local(0)]).spec("type: NodePort").text());
    let node = hosts.net.node().namespace();
    for family in ["ipv4", "ipv6"] {
        let quick = || fs::write(format!("/proc/sys/net/{family}/neigh/veth-s0/delay_first_probe_time"), "1");
        node.run(quick).expect("enters").expect("a sysctl");
    }
    let _agent = hosts.agent("xdp", &["--forwarding", "direct"]);
    for v6 in [false, true] {
        let service = SocketAddr::new(vip(1, v6), 80);
        hosts.dial(Place::Client, service).unwrap();
        let pod = Place::Local(0).address(v6);
        hosts.net.ip(&format!("neigh replace {pod} dev veth-s0 lladdr {OLD} nud stale"));
        wait_for("the neighbour to be forgotten", || {
            !hosts.net.ip(&format!("neigh show {pod} dev veth-s0")).contains(OLD)
        });
    }
    // The host looks for it anew. (For IPv6 it would need a link-local address, which it has not.)
    hosts.dial(Place::Client, SocketAddr::new(vip(1, false), 80)).unwrap();
}

/// Whether all interfaces forward like this, and for this reason, as `lb status` has it.
fn forwards(net: &TestNode, direct: bool, reason: &str) -> bool {
    let wanted = json!({"direct": direct, "reason": reason});
    let links = net.links();
    let mut ingress = links.iter().filter(|link| link["hook"] == "tcx").peekable();
    assert!(ingress.peek().is_some(), "{links:?}");
    ingress.all(|link| link["forwarding"] == wanted)
}

/// A connection to this server, once there is one.
fn reach(net: &TestNode, vip: &str, server: usize) -> Talk {
    let mut found = None;
    wait_for(&format!("server {server} at {vip}"), || {
        found = net.connect(vip).ok().filter(|talk| talk.server == server);
        found.as_mut().is_some_and(|talk| talk.say("hello").is_ok())
    });
    found.unwrap()
}

/// `auto` gives way to rules on forwarded packets, at the start and when they come, and takes over when they go; the
/// connections stay.
#[test]
fn auto_leaves_it_to_the_host_while_rules_see_forwarded_packets() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let node = net.node().namespace();
    let guard = || {
        run(node, "nft add table inet guard");
        run(node, "nft add chain inet guard forward { type filter hook forward priority 0 ; }");
        run(node, "nft add rule inet guard forward counter");
    };
    guard();
    let agent = net.agent(&AGENT);
    assert!(forwards(&net, false, "rules"), "{:?}", net.links());
    assert!(agent.log().contains("inet guard forward (1 rule)"), "{}", agent.log());
    let mut kept = [VIP4, VIP6].map(|vip| reach(&net, vip, 0));
    let says = |kept: &mut [Talk; 2], what: &str| {
        let before = forwarded(node);
        for talk in kept {
            talk.say(what).unwrap();
        }
        let after = forwarded(node);
        [after[0] > before[0], after[1] > before[1]]
    };
    assert_eq!(says(&mut kept, "by the host"), [true, true]);

    run(node, "nft delete table inet guard");
    wait_for("direct forwarding", || forwards(&net, true, "no-rules"));
    assert_eq!(says(&mut kept, "directly"), [false, false]);

    guard();
    wait_for("the host's forwarding", || forwards(&net, false, "rules"));
    assert_eq!(says(&mut kept, "by the host again"), [true, true]);
    let text = net.lb(&["status"]);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("veth-c (tcx), forwarding kernel: rules of this host see"), "{text}");
}

/// A pod is replaced by one with its address behind another device, again and again; then its hardware address changes,
/// with an agent and without. New connections find it, others do not notice.
#[test]
fn pods_are_followed_to_other_devices_and_hardware_addresses() {
    let mut net = TestNode::new(2);
    net.serve(&[0, 1]);
    let agent = net.agent(&[&AGENT[..], &["--forwarding", "direct"]].concat());
    let mut others = [VIP4, VIP6].map(|vip| reach(&net, vip, 0));
    let mut old = "veth-s1".to_owned();
    for round in 0..3 {
        let new = format!("veth-n{round}");
        net.replace_server(1, &old, &new);
        for (vip, other) in [VIP4, VIP6].into_iter().zip(&mut others) {
            other.say("still there").unwrap();
            reach(&net, vip, 1);
        }
        old = new;
    }
    let mut to_it = [VIP4, VIP6].map(|vip| reach(&net, vip, 1));
    let mut agent = Some(agent);
    for mac in ["02:00:00:00:07:01", "02:00:00:00:07:02"] {
        run(net.server(1), &format!("ip link set eth0 address {mac}"));
        let outer = net.ip(&format!("-brief link show {old}")).split_whitespace().nth(2).unwrap().to_owned();
        for (family, gateway) in [(4, IpAddr::from(GATEWAY_V4)), (6, IpAddr::from(GATEWAY_V6))] {
            let pod = address(1, family);
            net.ip(&format!("neigh replace {pod} dev {old} lladdr {mac}"));
            // Forgotten with the pod's own address.
            run(net.server(1), &format!("ip neigh replace {gateway} dev eth0 lladdr {outer}"));
        }
        for (vip, talk) in [VIP4, VIP6].into_iter().zip(&mut to_it) {
            talk.say("the same connection").unwrap();
            reach(&net, vip, 1);
        }
        if let Some(agent) = agent.take() {
            agent.kill();
        }
    }
    for other in &mut others {
        other.say("still there").unwrap();
    }
}

/// What is too long for the pod's link is left to the host, which tells the client (A4); so it arrives.
#[test]
fn packets_too_long_for_the_next_link_are_answered() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    // Who tells it must have an address.
    net.ip("address add fd00:172:31::1/128 dev lo");
    net.ip("link set veth-s0 mtu 1300");
    let _agent = net.agent(&[&AGENT[..], &["--forwarding", "direct"]].concat());
    for (vip, route) in [(VIP4, "10.96.0.10"), (VIP6, "fd00:96::10")] {
        let mut talk = reach(&net, vip, 0);
        talk.say(&"long_".repeat(20_000)).unwrap();
        let learned = run(net.client(), &format!("ip route get {route}"));
        assert!(learned.contains("mtu 1300"), "{learned}");
    }
}

/// A queue on the node's end of a pod's wire, which may be there to limit the pod, is not passed by.
#[test]
fn queues_see_what_they_are_for() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let _agent = net.agent(&[&AGENT[..], &["--forwarding", "direct"]].concat());
    let mut talks = [VIP4, VIP6].map(|vip| reach(&net, vip, 0));
    let node = net.node().namespace();
    run(node, "tc qdisc add dev veth-s0 root pfifo");
    let before = forwarded(node);
    for talk in &mut talks {
        let packets = || {
            let queues = run(node, "tc -s -j qdisc show dev veth-s0 root");
            let queues: Value = serde_json::from_str(&queues).unwrap();
            queues[0]["packets"].as_u64().unwrap()
        };
        let start = packets();
        wait_for("packets in the queue", || {
            talk.say("hello").unwrap();
            packets() > start
        });
    }
    assert_eq!(forwarded(node), before, "{FORWARDED:?}");
}
