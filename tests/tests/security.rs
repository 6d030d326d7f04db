//! What docs/security.md says of the agent itself. Needs root.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use lb_tests::cgroup::TestCgroup;
use lb_tests::node::{Agent, TestNode, VIP4};
use lb_tests::patience::wait_for;

/// Nobody in particular.
const NOBODY: u32 = 65_534;

/// A line of the agent's /proc/PID/status.
fn status(agent: &Agent, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
}

/// As the kernel writes a set of capabilities.
fn set(numbers: &[u32]) -> String {
    format!("{:016x}", numbers.iter().fold(0_u64, |set, number| set | 1 << number))
}

// Numbers of linux/capability.h.
const DAC_READ_SEARCH: u32 = 2;
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// What every agent keeps.
const NEEDED: [u32; 5] = [DAC_READ_SEARCH, NET_BIND_SERVICE, NET_ADMIN, PERFMON, BPF];

fn assert_capabilities(agent: &Agent, needed: &str) {
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(agent, field), needed, "{field}");
    }
    for field in ["CapInh", "CapAmb"] {
        assert_eq!(status(agent, field), set(&[]), "{field}");
    }
}

#[test]
fn the_agent_keeps_two_more_for_balancing_at_sockets() {
    let net = TestNode::new(1);
    let cgroup = TestCgroup::new(&net.namespace_name("cgroup"));
    net.serve(&[0]);
    let agent = net.agent(&["--socket-lb", "on", "--cgroup", cgroup.text()]);
    assert_capabilities(&agent, &set(&[&NEEDED[..], &[SYS_ADMIN, SYS_PTRACE]].concat()));
}

#[test]
fn the_agent_keeps_the_capabilities_it_needs() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&["--healthz", "127.0.0.1:10256"]);
    let needed = set(&NEEDED);
    assert_capabilities(&agent, &needed);
    assert_eq!(status(&agent, "NoNewPrivs"), "1");
    // 2 is a filter of system calls.
    assert_eq!(status(&agent, "Seccomp"), "2");
    // Every thread of it.
    for thread in fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap() {
        let text = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(text.contains(&format!("CapEff:\t{needed}")), "{text}");
        assert!(text.contains("Seccomp:\t2\n"), "{text}");
    }
    // They are enough for what comes later.
    net.ip("link add veth-late type veth peer name other");
    wait_for("an interface that comes later", || {
        net.links().iter().any(|link| link["interface"] == "veth-late")
    });
    net.ip("link del veth-late");
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
}

#[test]
fn pins_are_for_root_alone() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let _agent = net.agent(&[]);
    let pins = net.pin_dir();
    for folder in [pins.clone(), pins.join("maps"), pins.join("links")] {
        let mode = fs::metadata(&folder).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        for pin in
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
        {
            assert_eq!(fs::metadata(&pin).unwrap().mode() & 0o077, 0, "{}", pin.display());
        }
    }
    let user = NOBODY.to_string();
    let mut command = net.node().namespace().command("setpriv").unwrap();
    command.args(["--reuid", &user, "--clear-groups"]).arg(lb_tests::lab::lb_program());
    let output = command.args(["get", "services", "--pin-dir"]).arg(&pins).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_pin_directory_that_others_may_write_to_is_refused() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let pins = net.pin_dir();
    fs::create_dir(&pins).unwrap();
    chown(&pins, Some(NOBODY), None).unwrap();
    let mut agent = net.start(&[]);
    let status = agent.wait();
    let log = agent.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("{}: belongs to user {NOBODY}", pins.display())), "{log}");
    assert!(!pins.join("maps/META").exists());
    fs::remove_dir_all(&pins).unwrap();
    drop(net.agent(&[]));
}

/// Local ends of the node's listening and unconnected sockets.
fn listening(net: &TestNode) -> BTreeSet<String> {
    let output = net.node().namespace().command("ss").unwrap().arg("-Hlntu").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| {
            Some(format!("{} {}", line.split_whitespace().next()?, line.split_whitespace().nth(4)?))
        })
        .collect()
}

#[test]
fn nothing_listens_but_what_was_asked_for() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&[]);
    assert_eq!(listening(&net), BTreeSet::new());
    agent.terminate();
    let _agent = net.agent(&["--healthz", "127.0.0.1:10256", "--dns-listen", "127.0.0.1:5353"]);
    let wanted = ["tcp 127.0.0.1:10256", "tcp 127.0.0.1:5353", "udp 127.0.0.1:5353"].map(str::to_owned);
    assert_eq!(listening(&net), wanted.into());
}
