//! What outlives the agent, and what does not.

use std::collections::BTreeSet;
use std::fs;

use lb_tests::node::{VIP4, VIP6};
use serde_json::Value;

use crate::world::World;

const HOOKS: [&str; 9] = [
    "sock_release",
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "sendmsg4",
    "sendmsg6",
    "connect4",
    "connect6",
];

/// One number of each hook, as `lb status` has them.
fn numbers(world: &World, field: &str) -> Vec<u64> {
    let status = world.net.json(&["status"]);
    let hooks = status["sockets"]["hooks"].as_array().expect("hooks").clone();
    assert_eq!(hooks.iter().map(|hook| hook["hook"].as_str().unwrap()).collect::<Vec<_>>(), HOOKS);
    hooks.iter().map(|hook| hook[field].as_u64().unwrap()).collect()
}

#[test]
fn sockets_are_balanced_without_an_agent_and_a_new_one_takes_over() {
    let world = World::new(2);
    world.net.serve(&[0]);
    let agent = world.agent(&[]);
    let mut early = world.dial(VIP4);
    let (links, programs) = (numbers(&world, "id"), numbers(&world, "program_id"));
    assert_eq!(world.net.json(&["status"])["sockets"]["cgroup"], world.cgroup.text());
    agent.kill();
    assert_eq!(world.dial(VIP6).server, 0);
    assert_eq!(early.peer().to_string(), VIP4);

    let agent = world.agent(&[]);
    assert_eq!(numbers(&world, "id"), links, "links are made anew");
    let exchanged: BTreeSet<_> = numbers(&world, "program_id").into_iter().collect();
    assert!(exchanged.is_disjoint(&programs.into_iter().collect()), "programs are not exchanged");
    assert!(agent.log().contains("took over at sockets"), "{}", agent.log());
    assert_eq!(world.dial(VIP4).server, 0);
    early.say("still here").unwrap();
    assert_eq!(early.peer().to_string(), VIP4);
    assert_eq!(world.flows(), 0);
    agent.terminate();

    // One that is not asked for it lets go.
    let _agent = world.net.agent(&[]);
    assert_eq!(world.net.json(&["status"])["sockets"], Value::Null);
    world.dial(VIP4).say("by packets").unwrap();
    assert_eq!(world.flows(), 1);
    early.say("to the end").unwrap();
}

#[test]
fn another_cgroup_takes_the_place_of_the_first() {
    let world = World::new(1);
    world.net.serve(&[0]);
    let agent = world.agent(&[]);
    let links = numbers(&world, "id");
    agent.terminate();
    let inner = world.cgroup.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let agent = world.net.agent(&["--socket-lb", "auto", "--cgroup", inner.to_str().unwrap()]);
    assert_ne!(numbers(&world, "id"), links);
    assert_eq!(world.net.json(&["status"])["sockets"]["cgroup"], inner.to_str().unwrap());
    world.dial(VIP4).say("not a member").unwrap();
    assert_eq!(world.flows(), 1);
    // A cgroup that goes takes its programs with it.
    fs::remove_dir(&inner).unwrap();
    let text = String::from_utf8(world.net.lb(&["status"]).stdout).unwrap();
    assert!(text.contains("sockets         of a cgroup that has gone"), "{text}");
    agent.terminate();
    let _agent = world.agent(&[]);
    world.dial(VIP4).say("a member").unwrap();
    assert_eq!(world.flows(), 1);
}

#[test]
fn detach_leaves_nothing_at_sockets() {
    let world = World::new(1);
    world.net.serve(&[0]);
    let agent = world.agent(&[]);
    let mut talk = world.dial(VIP4);
    agent.terminate();
    let done = world.net.lb(&["detach"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("sockets: let go"), "{said}");
    assert!(!world.net.pin_dir().exists());
    // What was connected goes on, under the backend's name: there is nobody to tell another.
    talk.say("still here").unwrap();
    assert_eq!(talk.peer().port(), 8080);
}

#[test]
fn what_is_no_cgroup_is_refused_by_name_unless_it_need_not_be() {
    let world = World::new(1);
    world.net.serve(&[0]);
    let folder = world.net.manifests();
    let folder = folder.to_str().unwrap();
    let mut agent = world.net.start(&["--socket-lb", "on", "--cgroup", folder]);
    assert_eq!(agent.wait().code(), Some(1));
    let log = agent.log();
    assert!(log.contains(&format!("{folder}: cannot attach at")) && log.contains("--cgroup"), "{log}");
    assert!(!world.net.pin_dir().exists(), "a start that failed leaves something");
    let agent = world.net.agent(&["--socket-lb", "auto", "--cgroup", folder]);
    agent.wait_log("sockets are not balanced");
    world.net.connect(VIP4).unwrap();
}
