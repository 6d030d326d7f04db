//! What the agent stands on breaks: files, disks, memory, messages of the kernel. Needs root.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use lb_tests::node::{Agent, TestNode, VIP4, VIP6, slices};
use lb_tests::patience::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A Service that wants an address from the range.
const WITHOUT_ADDRESS: &str =
    "kind: Service\nmetadata: {name: other}\nspec: {selector: {app: other}, ports: [{port: 80}]}\n";

fn signal(agent: &Agent, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(agent.pid()).unwrap()), signal).unwrap();
}

/// A command in the mount namespace of the agent.
fn in_mounts_of(agent: &Agent, script: &str) -> String {
    let pid = agent.pid().to_string();
    let output = Command::new("nsenter").args(["--mount", "-t", &pid, "sh", "-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn has_links(net: &TestNode, interface: &str) -> bool {
    net.links().iter().any(|link| link["interface"] == interface && link["ifindex"] != 0)
}

/// Messages that the kernel could not put into the netlink sockets of the node.
fn netlink_drops(net: &TestNode) -> u64 {
    let text = net.node().namespace().run(|| fs::read_to_string("/proc/thread-self/net/netlink"));
    let text = text.unwrap().unwrap();
    let column = text.lines().next().unwrap().split_whitespace().position(|name| name == "Drops").unwrap();
    let drops = |line: &str| -> u64 { line.split_whitespace().nth(column).unwrap().parse().unwrap() };
    text.lines().skip(1).map(drops).sum()
}

/// More messages about addresses and routes than the agent's socket holds, while it does not read; the kernel drops
/// what comes then, and what came last is what matters.
#[test]
fn netlink_overruns_are_made_up_for() {
    let mut net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&[]);
    for round in 0..2 {
        signal(&agent, Signal::SIGSTOP);
        let mut batch = String::new();
        for number in 0..4000 {
            writeln!(batch, "address add 10.99.{}.{}/32 dev lo", number / 250, number % 250 + 1).unwrap();
        }
        let file = net.file("batch");
        fs::write(&file, batch.clone() + &batch.replace("address add", "address del")).unwrap();
        net.ip(&format!("-batch {}", file.display()));
        net.add_server();
        let last = round + 1;
        let late = format!("veth-s{last}");
        assert!(!has_links(&net, &late));
        assert!(netlink_drops(&net) > 0, "nothing was lost");
        signal(&agent, Signal::SIGCONT);
        wait_for("the interface that came unseen", || has_links(&net, &late));
        net.serve(&[last]);
        wait_for("its server", || net.connect(VIP4).is_ok_and(|talk| talk.server == last));
    }
}

/// More events than the kernel keeps for the agent: the change among them is seen all the same.
#[test]
fn lost_file_events_are_made_up_for() {
    let net = TestNode::new(2);
    net.serve(&[0]);
    let agent = net.agent(&[]);
    let most: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    signal(&agent, Signal::SIGSTOP);
    // Two files in turn: the kernel merges events that are alike.
    let start = Instant::now();
    for number in 0..most / 2 + 100 {
        fs::write(net.manifests().join(format!(".noise{}", number % 2)), "").unwrap();
    }
    eprintln!("{most} events in {:?}", start.elapsed());
    net.write("slices.yaml", &slices(&[1]));
    signal(&agent, Signal::SIGCONT);
    wait_for("the change", || net.connect(VIP4).is_ok_and(|talk| talk.server == 1));
}

/// Interfaces that go while the agent attaches to them.
#[test]
fn interfaces_vanish_while_they_are_attached_to() {
    let mut net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&["--hook", "tc"]);
    let load = net.load(VIP4);
    for number in 0..60 {
        net.ip(&format!("link add veth-f{number} type veth peer name other{number}"));
        // At another point of its way each time.
        let spin = Instant::now();
        while spin.elapsed().as_millis() < number % 30 {}
        net.ip(&format!("link del veth-f{number}"));
    }
    net.add_server();
    wait_for("the one that stayed", || has_links(&net, "veth-s1"));
    load.more(5);
    load.all_answered();
    wait_for("the others to be let go", || net.links().iter().all(|link| link["ifindex"] != 0));
    let (status, log) = agent.terminate();
    assert!(status.success() && !log.contains("panic"), "{log}");
}

/// The disk with the state file is full: Services are served all the same, it is said, and written once there is room.
#[test]
fn a_full_disk_holds_up_no_service() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let disk = net.file("disk");
    fs::create_dir(&disk).unwrap();
    let disk = disk.display();
    let script =
        format!("mount -t tmpfs -o size=16k none {disk}; head -c 100000 /dev/zero > {disk}/full || true");
    let state = format!("{disk}/state.json");
    let mut agent = net.start_after(&script, &["--state-file", &state]);
    agent.wait_ready();
    net.write("other.yaml", WITHOUT_ADDRESS);
    agent.wait_log("state.json");
    assert!(agent.log().contains("No space left on device"), "{}", agent.log());
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
    wait_for("the address", || net.json(&["get", "services"]).as_array().unwrap().len() >= 2);
    in_mounts_of(&agent, &format!("rm {disk}/full"));
    wait_for("the state file", || {
        in_mounts_of(&agent, &format!("cat {state} || true")).contains("default/other")
    });
    agent.wait_log("mended: ");
}

/// The BPF file system goes away under the agent: traffic goes on as long as the agent is there.
#[test]
fn traffic_outlives_the_bpf_file_system() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let mount = net.file("bpf");
    fs::create_dir(&mount).unwrap();
    let mount = mount.display();
    let pins = format!("{mount}/lb");
    let mut agent = net.start_after(&format!("mount -t bpf none {mount}"), &["--pin-dir", &pins]);
    agent.wait_ready();
    let mut talk = net.connect(VIP4).unwrap();
    in_mounts_of(&agent, &format!("umount -l {mount}"));
    talk.say("still here").unwrap();
    assert_eq!(net.connect(VIP6).unwrap().server, 0);
    net.write("other.yaml", WITHOUT_ADDRESS);
    net.serve(&[]);
    wait_for("a change to be carried out", || net.connect(VIP4).is_err());
    talk.say("to the end").unwrap();
}

/// Tables for which there is no memory: a clear refusal, and nothing stays.
#[test]
fn no_memory_for_tables_is_a_clear_refusal() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let mut agent = net.start(&["--max-affinity", "4000000000"]);
    let status = agent.wait();
    let log = agent.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("cannot make table AFFINITY with 4000000000 entries"), "{log}");
    assert!(log.contains("make it smaller with --max-affinity"), "{log}");
    assert!(!Path::new(&net.pin_dir()).join("maps/META").exists(), "{log}");
    let _agent = net.agent(&[]);
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
}
