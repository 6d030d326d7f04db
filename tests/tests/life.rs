//! The life of the agent: killed and restarted under traffic, ended in good order, detached. Needs root.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use aya::maps::{MapInfo, loaded_maps};
use aya::programs::{SchedClassifier, TcAttachType};
use lb_common::tables::SPECS;
use lb_tests::node::{Talk, TestNode, VIP4, VIP6};
use lb_tests::patience::wait_for;
use lb_userspace::plan::Numbers;
use serde_json::Value;

fn talk_all(talks: &mut [Talk], what: &str) {
    for (number, talk) in talks.iter_mut().enumerate() {
        let server = talk.server;
        talk.say(what)
            .unwrap_or_else(|error| panic!("connection {number} to server {server} at {what}: {error}"));
    }
}

/// Interface, hook, number of the link, index of the interface: what stays when programs are exchanged.
fn places(links: &[Value]) -> Vec<[String; 4]> {
    let field = |link: &Value, name: &str| link[name].to_string();
    let names = ["interface", "hook", "id", "ifindex"];
    links.iter().map(|link| names.map(|name| field(link, name))).collect()
}

fn programs(links: &[Value]) -> BTreeSet<u64> {
    links.iter().map(|link| link["program_id"].as_u64().unwrap()).collect()
}

fn survives_kill_and_restart(hook: &str) {
    let net = TestNode::new(3);
    net.serve(&[0, 1, 2]);
    let agent = net.agent(&["--hook", hook]);
    let mut talks: Vec<_> =
        [VIP4, VIP6].iter().flat_map(|vip| (0..6).map(|_| net.connect(vip).unwrap())).collect();
    assert_eq!(talks.iter().map(|talk| talk.server).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
    let load = net.load(VIP4);
    load.more(20);
    talk_all(&mut talks, "before");
    let (dump, links) = (net.dump(Numbers::Shown), net.links());
    // The balancing program, replies of local sockets; with XDP, answers by tc.
    assert_eq!(links.len(), 4 * if hook == "tc" { 2 } else { 3 }, "{links:?}");

    agent.kill();
    talk_all(&mut talks, "dead");
    load.more(50);
    for vip in [VIP4, VIP6] {
        talks.push(net.connect(vip).unwrap());
    }
    assert_eq!(net.dump(Numbers::Shown), dump);
    assert_eq!(net.links(), links);

    let agent = net.agent(&["--hook", hook]);
    talk_all(&mut talks, "restarted");
    load.more(50);
    let after = net.links();
    assert_eq!(places(&after), places(&links), "links are made anew");
    assert!(
        programs(&after).is_disjoint(&programs(&links)),
        "programs are not exchanged: {links:?} {after:?}"
    );
    assert_eq!(net.dump(Numbers::Shown), dump, "a restart without a change changes tables");
    assert!(!agent.log().contains("map operations"), "{}", agent.log());
    assert_eq!(agent.log().matches("took over").count(), 4, "{}", agent.log());

    // It is not a corpse: changes still go through, and open connections do not mind.
    net.serve(&[0]);
    wait_for("the change", || net.json(&["get", "services"])[0]["backends"] == 1);
    for _ in 0..5 {
        assert_eq!(net.connect(VIP4).unwrap().server, 0);
    }
    talk_all(&mut talks, "changed");
    let answers = load.all_answered();
    assert_eq!(answers.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
    assert_eq!(net.repeated_syns(), 0);
}

#[test]
fn connections_survive_kill_and_restart_on_tc() {
    survives_kill_and_restart("tc");
}

#[test]
fn connections_survive_kill_and_restart_on_xdp() {
    survives_kill_and_restart("xdp");
}

#[test]
fn connections_survive_kill_and_restart_on_generic_xdp() {
    survives_kill_and_restart("xdp-generic");
}

#[test]
fn sigterm_is_orderly() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&[]);
    let mut talk = net.connect(VIP4).unwrap();
    let status = net.json(&["status"]);
    assert_eq!(status["agent"], serde_json::json!({"pid": agent.pid(), "running": true}));
    let (dump, ready) = (net.dump(Numbers::Shown), agent.ready_file().to_owned());
    let (ended, log) = agent.terminate();
    assert_eq!(ended.code(), Some(0), "{log}");
    assert!(log.contains("the kernel goes on forwarding"), "{log}");
    assert!(!ready.exists(), "the ready file is left");
    let after = net.json(&["status"]);
    assert_eq!(after["agent"], serde_json::json!({"pid": 0, "running": false}));
    assert_eq!((&after["synced"], &after["links"]), (&Value::Bool(true), &status["links"]));
    assert_eq!(net.dump(Numbers::Shown), dump);
    talk.say("still there").unwrap();
    assert_eq!(net.connect(VIP6).unwrap().server, 0);
}

#[test]
fn a_killed_agent_is_told_from_a_running_one() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&[]);
    let pid = agent.pid();
    agent.kill();
    assert_eq!(net.json(&["status"])["agent"], serde_json::json!({"pid": pid, "running": false}));
    let text = String::from_utf8(net.lb(&["status"]).stdout).unwrap();
    assert!(text.contains(&format!("not running (was process {pid})")), "{text}");
}

/// Numbers of tcx programs on an interface of the node, both ways.
fn tcx(net: &TestNode, interface: &str) -> Vec<u32> {
    let query = |direction| {
        let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap();
        programs.into_iter().map(|program| program.id()).collect::<Vec<_>>()
    };
    net.node()
        .namespace()
        .run(|| [query(TcAttachType::Ingress), query(TcAttachType::Egress)].concat())
        .unwrap()
}

fn detach_leaves_no_trace(hook: &str) {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&["--hook", hook]);
    net.connect(VIP4).unwrap();
    let id = |name: &str| MapInfo::from_pin(net.pin_dir().join("maps").join(name)).unwrap().id();
    let ids: BTreeSet<u32> = SPECS.iter().map(|spec| id(spec.name)).collect();
    assert_eq!(ids.len(), SPECS.len());
    assert!(!tcx(&net, "veth-c").is_empty());
    assert_eq!(net.ip("link show veth-c").contains("xdp"), hook != "tc");

    let refused = net.lb(&["detach"]);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        complaint.contains("another agent is running") && complaint.contains("stop the agent"),
        "{complaint}"
    );
    assert!(complaint.contains(&format!("process {}", agent.pid())), "{complaint}");
    net.connect(VIP4).unwrap();

    agent.terminate();
    let done = net.lb(&["detach"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("veth-c: let go") && said.contains("veth-s0: let go"), "{said}");
    assert!(!net.pin_dir().exists());
    for interface in ["veth-c", "veth-s0"] {
        assert_eq!(tcx(&net, interface), Vec::<u32>::new(), "{interface}");
        let shown = net.ip(&format!("-d link show {interface}"));
        assert!(!shown.contains("xdp"), "{shown}");
    }
    // The kernel frees maps some time after their last user has gone.
    let left = || loaded_maps().flatten().map(|map| map.id()).filter(|id| ids.contains(id)).count();
    wait_for("the end of the maps", || left() == 0);
    assert!(net.connect(VIP4).is_err());

    let again = net.lb(&["detach"]);
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing is pinned there"));

    // And back.
    let _agent = net.agent(&["--hook", hook]);
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
}

#[test]
fn detach_leaves_no_trace_of_tc() {
    detach_leaves_no_trace("tc");
}

#[test]
fn detach_leaves_no_trace_of_xdp() {
    detach_leaves_no_trace("xdp");
}

#[test]
fn detach_leaves_no_trace_of_generic_xdp() {
    detach_leaves_no_trace("xdp-generic");
}

#[test]
fn a_second_agent_is_refused() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let first = net.agent(&[]);
    let (dump, links) = (net.dump(Numbers::Shown), net.links());
    let mut second = net.start(&[]);
    let ended = second.wait();
    assert_eq!((ended.code(), ended.signal()), (Some(1), None));
    let log = second.log();
    let reason = format!("another agent is running on this pin directory (process {})", first.pid());
    assert!(log.contains(&reason) && log.contains(&net.pin_dir().display().to_string()), "{log}");
    assert!(log.contains("stop it, or use another --pin-dir"), "{log}");
    assert_eq!(net.json(&["status"])["agent"]["pid"], first.pid());
    assert_eq!((net.dump(Numbers::Shown), net.links()), (dump, links));
    // One that was killed holds nothing.
    first.kill();
    net.agent(&[]);
}

#[test]
fn looking_works_with_and_without_an_agent() {
    let net = TestNode::new(2);
    net.serve(&[0, 1]);
    let agent = net.agent(&[]);
    let talk = net.connect(VIP4).unwrap();
    let look = |verbs: &[&str]| net.json(verbs);
    let check = |when: &str| {
        let services = look(&["get", "services"]);
        assert_eq!(services.as_array().unwrap().len(), 2, "{when}: {services}");
        assert_eq!(services[0]["service"], "default/web:http/TCP", "{when}");
        assert_eq!(
            (&services[0]["address"], &services[0]["port"]),
            (&"10.96.0.10".into(), &80.into()),
            "{when}"
        );
        assert_eq!(services[0]["backends"], 2, "{when}");
        let backends = look(&["get", "backends"]);
        assert_eq!(backends.as_array().unwrap().len(), 4, "{when}: {backends}");
        let flows = look(&["get", "flows"]);
        assert_eq!(flows["total"], 1, "{when}: {flows}");
        assert_eq!(flows["flows"][0]["frontend"], VIP4, "{when}: {flows}");
        let stats = look(&["get", "stats"]);
        assert!(stats.to_string().contains("veth-c"), "{when}: {stats}");
        assert_eq!(look(&["get", "affinity"]), serde_json::json!([]), "{when}");
        look(&["status"])
    };
    assert_eq!(check("running")["agent"]["running"], true);
    agent.kill();
    let status = check("killed");
    assert_eq!((&status["agent"]["running"], &status["synced"]), (&false.into(), &true.into()));
    assert_eq!(status["services"]["used"], 2);
    drop(talk);
    // It finds problems in some places and none in others, but always says so in JSON.
    let doctor = net.lb(&["doctor", "--output", "json"]);
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(report["problems"] == 0, doctor.status.success(), "{report}");
    assert!(net.lb(&["detach"]).status.success());
    let verbs: [&[&str]; 6] = [
        &["status"],
        &["get", "services"],
        &["get", "backends"],
        &["get", "flows"],
        &["get", "stats"],
        &["get", "affinity"],
    ];
    for verb in verbs {
        let output = net.lb(&[verb, &["--output", "json"]].concat());
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {complaint}");
        assert!(complaint.contains("nothing is pinned under") && complaint.contains("lb run"), "{complaint}");
        assert_eq!(output.stdout, b"", "{verb:?}");
    }
    let doctor = net.lb(&["doctor", "--output", "json"]);
    assert!(serde_json::from_slice::<Value>(&doctor.stdout).unwrap()["checks"].is_array());
}
