//! Pins that do not fit: of another version or size, damaged, or not where pins can be. Needs root.

use std::fs;

use lb_common::abi::{ABI_VERSION, Meta};
use lb_common::tables::Table;
use lb_tests::node::{TestNode, VIP4};
use lb_userspace::maps::{KernelMap, KernelStore, MapStore};
use lb_userspace::plan::Numbers;

fn refusal(net: &TestNode, arguments: &[&str]) -> String {
    let mut agent = net.start(arguments);
    let status = agent.wait();
    let log = agent.log();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

fn lb_fails(net: &TestNode, arguments: &[&str]) -> String {
    let output = net.lb(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "lb {arguments:?}: {complaint}");
    complaint
}

/// `lb detach`, and a fresh start.
fn begin_anew(net: &TestNode) {
    let done = net.lb(&["detach"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!net.pin_dir().exists());
    let _agent = net.agent(&[]);
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
}

#[test]
fn maps_of_another_version_are_left_alone() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    net.agent(&[]).terminate();
    let mut store = KernelStore::open_pinned(&net.pin_dir()).unwrap();
    let key = 0_u32.to_ne_bytes();
    let mut meta: Meta = bytemuck::pod_read_unaligned(&store.lookup(Table::Meta, &key).unwrap().unwrap());
    assert_eq!((meta.abi_version, meta.agent_pid), (ABI_VERSION, 0));
    meta.abi_version += 1;
    store.update(Table::Meta, &key, bytemuck::bytes_of(&meta)).unwrap();

    let pins = net.pin_dir().display().to_string();
    let log = refusal(&net, &[]);
    let versions = format!("(layout {}, this one has {ABI_VERSION})", ABI_VERSION + 1);
    assert!(log.contains(&format!("{pins}: pinned by another version of lb {versions}")), "{log}");
    assert!(log.contains(&format!("lb detach --pin-dir {pins}")), "{log}");
    for verbs in [&["status"][..], &["get", "services"], &["get", "flows"]] {
        let complaint = lb_fails(&net, verbs);
        assert!(complaint.contains(&format!("layout version {}", ABI_VERSION + 1)), "{complaint}");
    }
    // What is in place keeps working.
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
    begin_anew(&net);
}

#[test]
fn maps_of_another_size_are_left_alone() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    net.agent(&["--max-flows", "1024"]).terminate();
    let dump = net.dump(Numbers::Shown);
    let log = refusal(&net, &["--max-flows", "2048"]);
    for part in ["FLOWS_V4", "1024", "2048"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    assert!(log.contains("lb detach") || log.contains("--max-flows"), "no way out in {log}");
    assert_eq!(net.dump(Numbers::Shown), dump);
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
    net.agent(&["--max-flows", "1024"]).terminate();
    begin_anew(&net);
}

#[test]
fn a_map_of_another_layout_is_named() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    net.agent(&[]).terminate();
    let spec = Table::Backends.spec();
    let pin = net.pin_dir().join("maps").join(spec.name);
    fs::remove_file(&pin).unwrap();
    KernelMap::create(spec.name, spec.kind, spec.key_size, spec.value_size + 8, spec.max_entries)
        .unwrap()
        .pin(&pin)
        .unwrap();
    for complaint in [refusal(&net, &[]), lb_fails(&net, &["status"]), lb_fails(&net, &["get", "backends"])] {
        assert!(complaint.contains("BACKENDS") && complaint.contains("value size"), "{complaint}");
        assert!(complaint.contains("lb detach"), "no way out in {complaint}");
    }
    // The programs have the map that they were loaded with.
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
    begin_anew(&net);
}

#[test]
fn a_missing_map_is_named() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    net.agent(&[]).terminate();
    fs::remove_file(net.pin_dir().join("maps/SLOTS")).unwrap();
    for complaint in [refusal(&net, &[]), lb_fails(&net, &["status"])] {
        assert!(complaint.contains("SLOTS") && complaint.contains("No such file"), "{complaint}");
    }
    assert!(refusal(&net, &[]).contains("lb detach"));
    assert_eq!(net.connect(VIP4).unwrap().server, 0);
    begin_anew(&net);
}

#[test]
fn a_start_that_was_cut_short_is_begun_anew() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    net.agent(&[]).terminate();
    // META is pinned last.
    fs::remove_file(net.pin_dir().join("maps/META")).unwrap();
    assert!(lb_fails(&net, &["status"]).contains("META"));
    let _agent = net.agent(&[]);
    assert_eq!(net.json(&["status"])["synced"], true);
    net.serve(&[]);
    lb_tests::patience::wait_for("the programs to have the new maps", || net.connect(VIP4).is_err());
}

#[test]
fn a_directory_that_is_on_no_bpffs_is_refused_and_left_as_it_is() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let (there, new) = (net.file("there"), net.file("new"));
    fs::create_dir(&there).unwrap();
    for dir in [&there, &new] {
        let dir = dir.display().to_string();
        let log = refusal(&net, &["--pin-dir", &dir]);
        assert!(log.contains(&format!("{dir}: not on a BPF file system")), "{log}");
        assert!(log.contains("mount -t bpf bpf /sys/fs/bpf"), "{log}");
    }
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
    assert!(!new.exists());
    let complaint = lb_fails(&net, &["detach", "--pin-dir", &there.display().to_string()]);
    assert!(complaint.contains("not on a BPF file system"), "{complaint}");
}

#[test]
fn detach_says_what_is_not_its_own() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    net.agent(&[]).terminate();
    fs::create_dir(net.pin_dir().join("somebody")).unwrap();
    let complaint = lb_fails(&net, &["detach"]);
    assert!(complaint.contains("something else is in there"), "{complaint}");
    assert!(!net.pin_dir().join("maps").exists() && !net.pin_dir().join("links").exists());
    assert!(net.connect(VIP4).is_err());
}
