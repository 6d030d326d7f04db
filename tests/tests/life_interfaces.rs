//! Interfaces that appear, go, change their names, are taken; and another hook over a restart. Needs root.

use std::collections::BTreeSet;

use lb_tests::node::{Agent, TestNode, VIP4, VIP6};
use lb_tests::patience::wait_for;
use serde_json::Value;

/// (interface, hook) of all links that are live.
fn attached(net: &TestNode) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let links = net.links().into_iter().filter(|link| link["ifindex"] != 0);
    links.map(|link| (text(&link["interface"]), text(&link["hook"]))).collect()
}

fn is_on(net: &TestNode, interface: &str, hook: &str) -> bool {
    attached(net).contains(&(interface.to_owned(), hook.to_owned()))
}

/// The index that the balancing program's link is at.
fn index_of(net: &TestNode, interface: &str, hook: &str) -> Option<u64> {
    net.links().iter().find(|l| l["interface"] == interface && l["hook"] == hook)?["ifindex"].as_u64()
}

fn refusal(mut agent: Agent) -> String {
    let status = agent.wait();
    let log = agent.log();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[test]
fn interfaces_may_come_later_go_and_come_back() {
    let mut net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&["--iface", "veth-c", "--iface", "veth-s?", "--iface", "later0"]);
    assert!(
        agent.log().contains("later0: there is no such interface yet; it is attached to when it appears"),
        "{}",
        agent.log()
    );
    let names = |net: &TestNode| attached(net).into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    assert_eq!(names(&net), ["veth-c", "veth-s0"].map(str::to_owned).into());

    // By pattern.
    net.add_server();
    wait_for("the new server's interface", || is_on(&net, "veth-s1", "tcx"));
    net.serve(&[1]);
    wait_for("the new server", || net.connect(VIP4).is_ok_and(|talk| talk.server == 1));
    // By name. Others are left alone.
    net.ip("link add later0 type veth peer name other0");
    wait_for("the interface by name", || is_on(&net, "later0", "tcx"));
    assert!(!names(&net).contains("other0"));

    // Gone.
    net.ip("link del later0");
    wait_for("letting go", || !names(&net).contains("later0"));
    agent.wait_log("later0: gone, let go");
    assert_eq!(names(&net), ["veth-c", "veth-s0", "veth-s1"].map(str::to_owned).into());
    // Back, as another interface of the same name.
    net.ip("link add later0 type veth peer name other0");
    wait_for("the interface again", || is_on(&net, "later0", "tcx"));
    // Gone and back so quickly that the agent sees both at once.
    let first = index_of(&net, "later0", "tcx").unwrap();
    net.ip("link del later0");
    net.ip("link add later0 type veth peer name other0");
    wait_for("the third of the name", || {
        index_of(&net, "later0", "tcx").is_some_and(|i| i != 0 && i != first)
    });
    assert!(!agent.log().contains("ERROR"), "{}", agent.log());

    // Exchanged while no agent runs: the pinned link is void.
    agent.kill();
    let third = index_of(&net, "later0", "tcx").unwrap();
    net.ip("link del later0");
    net.ip("link add later0 type veth peer name other0");
    assert_eq!(index_of(&net, "later0", "tcx"), Some(0));
    let agent = net.agent(&["--iface", "veth-c", "--iface", "veth-s?", "--iface", "later0"]);
    assert!(index_of(&net, "later0", "tcx").is_some_and(|i| i != 0 && i != third));
    // No longer asked for: let go at a restart.
    agent.terminate();
    net.agent(&["--iface", "veth-c", "--iface", "veth-s?"]);
    assert_eq!(names(&net), ["veth-c", "veth-s0", "veth-s1"].map(str::to_owned).into());
    assert_eq!(net.connect(VIP4).unwrap().server, 1);
}

#[test]
fn links_follow_an_interface_that_is_renamed() {
    for hook in ["tc", "xdp"] {
        let net = TestNode::new(1);
        net.serve(&[0]);
        let program = if hook == "tc" { "tcx" } else { "xdp" };
        let agent = net.agent(&["--hook", hook]);
        let mut talk = net.connect(VIP4).unwrap();
        let load = net.load(VIP4);
        load.more(10);
        let before = index_of(&net, "veth-c", program).unwrap();
        net.ip("link set veth-c name veth-new");
        wait_for("the new name", || is_on(&net, "veth-new", program));
        agent.wait_log("veth-c: is called veth-new now");
        wait_for("the end of the old name", || !is_on(&net, "veth-c", program));
        assert_eq!(index_of(&net, "veth-new", program), Some(before));
        talk.say("renamed").unwrap();
        load.more(10);

        // And while no agent runs.
        agent.kill();
        net.ip("link set veth-new name veth-newer");
        let agent = net.agent(&["--hook", hook]);
        assert_eq!(index_of(&net, "veth-newer", program), Some(before), "{}", agent.log());
        assert!(!is_on(&net, "veth-new", program) && !agent.log().contains("ERROR"), "{}", agent.log());
        talk.say("renamed again").unwrap();
        load.more(10);

        // To a name that nobody asked for.
        net.ip("link set veth-newer name else0");
        wait_for("letting go", || attached(&net).iter().all(|(name, _)| name == "veth-s0"));
        load.stop();
        assert!(net.connect(VIP4).is_err());
    }
}

#[test]
fn two_interfaces_that_change_names_while_no_agent_runs_are_not_confused() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let options = ["--iface", "veth-c", "--iface", "veth-s0", "--iface", "spare0"];
    net.ip("link add spare0 type veth peer name other0");
    let agent = net.agent(&options);
    let index = index_of(&net, "veth-c", "tcx").unwrap();
    agent.kill();
    // The client's is called spare0 now, and another has its name.
    net.ip("link set spare0 name tmp0");
    net.ip("link set veth-c name spare0");
    net.ip("link set tmp0 name veth-c");
    let _agent = net.agent(&options);
    assert_eq!(index_of(&net, "spare0", "tcx"), Some(index));
    assert_ne!(index_of(&net, "veth-c", "tcx"), Some(index));
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
}

#[test]
fn another_hook_over_a_restart_breaks_nothing_and_leaves_nothing() {
    let net = TestNode::new(2);
    net.serve(&[0, 1]);
    let mut agent = net.agent(&["--hook", "tc"]);
    let mut talks: Vec<_> = [VIP4, VIP6, VIP4, VIP6].iter().map(|vip| net.connect(vip).unwrap()).collect();
    let loads = [net.load(VIP4), net.load(VIP6)];
    for (round, hook) in ["xdp", "xdp-generic", "xdp", "tc", "xdp-generic", "tc"].into_iter().enumerate() {
        if round % 2 == 0 {
            agent.kill();
        } else {
            agent.terminate();
        }
        agent = net.agent(&["--hook", hook]);
        let balancing = if hook == "tc" { "tcx" } else { hook };
        for interface in ["veth-c", "veth-s0", "veth-s1"] {
            let hooks: BTreeSet<_> = attached(&net)
                .into_iter()
                .filter(|(name, _)| name == interface)
                .map(|(_, hook)| hook)
                .collect();
            let mut expected = BTreeSet::from([balancing.to_owned(), "tcx_egress".to_owned()]);
            if hook != "tc" {
                expected.insert("tcx_answer".to_owned());
            }
            assert_eq!(hooks, expected, "{interface} after a change to {hook}");
            let shown = net.ip(&format!("link show {interface}"));
            assert_eq!(shown.contains("xdpgeneric"), hook == "xdp-generic", "{shown}");
            assert_eq!(shown.contains(" xdp "), hook == "xdp", "{shown}");
        }
        for talk in &mut talks {
            talk.say(hook).unwrap();
        }
        loads.iter().for_each(|load| load.more(10));
    }
    for load in loads {
        assert_eq!(load.all_answered().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
    }
}

#[test]
fn an_interface_taken_by_another_xdp_program_is_named() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let other = format!("{}-other", net.pin_dir().display());
    let _cleanup = OtherPins(&net, &other);
    let owner = net.agent(&["--hook", "xdp", "--iface", "veth-c", "--pin-dir", &other]);
    for hook in ["xdp", "xdp-generic"] {
        let log = refusal(net.start(&["--hook", hook, "--iface", "veth-c"]));
        assert!(log.contains(&format!("veth-c: cannot attach at {hook}: ")), "{log}");
        assert!(log.contains("another XDP program is there") && log.contains("--hook tc"), "{log}");
        assert!(!net.pin_dir().exists(), "a start that failed leaves pins");
    }
    // One of two: the agent goes on with the other, and takes the first when it becomes free.
    let agent = net.agent(&["--hook", "xdp"]);
    assert!(agent.log().contains("veth-c: cannot attach at xdp: "), "{}", agent.log());
    assert_eq!(index_of(&net, "veth-c", "xdp"), None);
    assert!(is_on(&net, "veth-s0", "xdp"));
    assert_eq!(agent.log().matches("cannot attach").count(), 1, "{}", agent.log());
    owner.terminate();
    assert!(net.lb(&["detach", "--pin-dir", &other]).status.success());
    wait_for("the free interface", || is_on(&net, "veth-c", "xdp"));
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
}

/// Lets go of what is in a second pin directory.
struct OtherPins<'a>(&'a TestNode, &'a str);

impl Drop for OtherPins<'_> {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(self.1);
        drop(self.0.ip("link show veth-c"));
    }
}

#[test]
fn tcx_is_shared_with_other_programs() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let other = format!("{}-other", net.pin_dir().display());
    let _cleanup = OtherPins(&net, &other);
    // Another balancer with Services of its own, before ours and then after it.
    std::fs::create_dir(net.file("theirs")).unwrap();
    let service = std::fs::read_to_string(net.manifests().join("service.yaml")).unwrap();
    let theirs = service.replace("10.96.0.10", "10.97.0.77").replace("fd00:96::10", "fd00:97::77");
    std::fs::write(net.file("theirs/service.yaml"), theirs).unwrap();
    std::fs::copy(net.manifests().join("slices.yaml"), net.file("theirs/slices.yaml")).unwrap();
    let manifests = net.file("theirs").display().to_string();
    let options = [
        ["--pin-dir", &other],
        ["--manifests", &manifests],
        // An address of one's own range that is no Service's is refused (V6): each has its own.
        ["--service-cidr", "10.97.0.0/16"],
        ["--service-cidr", "fd00:97::/112"],
        // What is forwarded directly is not seen by the programs that follow; here both count everything.
        ["--forwarding", "kernel"],
    ];
    let start_other = || net.agent(options.as_flattened());
    let both_answer = |when: &str| {
        for vip in [VIP4, "10.97.0.77:80", VIP6, "[fd00:97::77]:80"] {
            assert_eq!(net.connect(vip).map(|talk| talk.server), Ok(0), "{when}: {vip}");
        }
    };
    let (theirs, ours) = (start_other(), net.agent(&["--hook", "tc"]));
    both_answer("theirs first");
    theirs.terminate();
    assert!(net.lb(&["detach", "--pin-dir", &other]).status.success());
    assert!(net.connect("10.97.0.77:80").is_err());
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
    let _theirs = start_other();
    both_answer("ours first");
    drop(ours);
}

#[test]
fn a_device_without_native_xdp_is_named() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    net.ip("link add br0 type bridge");
    let log = refusal(net.start(&["--hook", "xdp", "--iface", "br0"]));
    assert!(log.contains("br0: cannot attach at xdp: Operation not supported"), "{log}");
    assert!(log.contains("does not support XDP in native mode"), "the kernel's own words: {log}");
    assert!(
        log.contains("its driver has no native XDP,") && log.contains("use --hook xdp-generic or tc"),
        "{log}"
    );
    for (hook, program) in [("xdp-generic", "xdp-generic"), ("tc", "tcx"), ("auto", "tcx")] {
        let agent = net.agent(&["--hook", hook, "--iface", "br0"]);
        assert!(is_on(&net, "br0", program), "{hook}: {}", agent.log());
    }
}
