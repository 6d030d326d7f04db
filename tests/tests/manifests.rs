//! Manifests that change, break and vanish while traffic runs. Needs root.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use lb_tests::edits::Edits;
use lb_tests::node::{TestNode, VIP4, VIP6, slices};
use lb_tests::patience::wait_for;
use lb_userspace::plan::Numbers;

#[test]
fn broken_manifests_break_nothing_and_are_reported_until_mended() {
    let net = TestNode::new(2);
    net.serve(&[0, 1]);
    let agent = net.agent(&[]);
    let dump = net.dump(Numbers::Shown);
    let loads = [net.load(VIP4), net.load(VIP6)];
    let mut talk = net.connect(VIP4).unwrap();
    let good = ["service.yaml", "slices.yaml"].map(|name| {
        let text = fs::read_to_string(net.manifests().join(name)).unwrap();
        (name, text)
    });
    let [service, slices] = [&good[0].1, &good[1].1];
    // File, text, the line at fault, field or reason.
    let cases = [
        ("service.yaml", service.replace("port: 80", "port: eighty"), 8, "spec.ports[0].port"),
        ("service.yaml", service.replace("port: 80", "port: 70000"), 8, "spec.ports[0].port"),
        ("service.yaml", service.replace("[{name: http, port: 80}]", "[{name: http, port: 80"), 8, ""),
        ("service.yaml", service.replace("clusterIP: 10.96.0.10", "clusterIP: 10.96.0"), 4, "spec.clusterIP"),
        ("slices.yaml", slices.replace("10.77.0.10", "10.77.0.300"), 5, "endpoints[0].addresses[0]"),
        ("slices.yaml", slices.replace("fd00:77::11", "somewhere"), 11, "endpoints[1].addresses[0]"),
        ("slices.yaml", slices.replacen("port: 8080", "port: {}", 1), 4, "ports[0].port"),
        ("slices.yaml", "\u{0}\u{1}".to_owned(), 1, ""),
    ];
    for (name, text, line, field) in cases {
        assert!(good.iter().all(|(_, good)| *good != text));
        let said = agent.log().len();
        net.write(name, &text);
        let path = net.manifests().join(name).display().to_string();
        wait_for("the report", || agent.log()[said..].contains(&path));
        let report = agent.log()[said..].lines().find(|line| line.contains(&path)).unwrap().to_owned();
        assert!(report.contains("ERROR"), "{text:?}: {report}");
        assert!(report.contains(&format!("{path}:{line}: ")), "{text:?}: line {line} is not in {report}");
        assert!(report.contains(field), "{text:?}: {field} is not in {report}");
        assert!(report.contains("the last good state stays in force"), "{text:?}: {report}");
        loads.iter().for_each(|load| load.more(10));
        assert_eq!(net.dump(Numbers::Shown), dump, "{report}");
        for (name, text) in &good {
            net.write(name, text);
        }
        wait_for("the mending", || agent.log()[said..].contains("mended: "));
        assert_eq!(net.dump(Numbers::Shown), dump);
    }
    talk.say("unharmed").unwrap();
    for load in loads {
        assert_eq!(load.all_answered().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
    }
    assert_eq!(net.repeated_syns(), 0);
}

#[test]
fn a_broken_document_does_not_hold_up_the_others() {
    let net = TestNode::new(2);
    net.serve(&[0]);
    let agent = net.agent(&[]);
    let load = net.load(VIP6);
    // In one file, and at the same time: a good change of the one, a bad one of the other.
    net.write("slices.yaml", &slices(&[1]).replace("fd00:77::11", "fd00:77::g"));
    wait_for("the good change", || net.connect(VIP4).unwrap().server == 1);
    assert_eq!(net.connect(VIP6).unwrap().server, 0);
    assert!(agent.log().contains("endpoints[0].addresses[0]"), "{}", agent.log());
    net.write("slices.yaml", &slices(&[1]));
    wait_for("the mended change", || net.connect(VIP6).unwrap().server == 1);
    load.all_answered();
}

#[test]
fn a_folder_that_is_deleted_and_comes_back() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let agent = net.agent(&[]);
    let mut talk = net.connect(VIP4).unwrap();
    let dump = net.dump(Numbers::Hidden);
    for round in 0..2 {
        let said = agent.log().len();
        fs::remove_dir_all(net.manifests()).unwrap();
        // Its objects have been removed, as one by one.
        wait_for("the removal", || net.json(&["get", "services"]) == serde_json::json!([]));
        wait_for("the report", || agent.log()[said..].contains(&net.manifests().display().to_string()));
        // Established connections are the backend's business (C4).
        talk.say("without a service").unwrap();
        assert!(net.connect(VIP4).is_err());
        fs::create_dir(net.manifests()).unwrap();
        net.serve(&[0]);
        wait_for("the return", || net.dump(Numbers::Hidden) == dump);
        assert_eq!(net.connect(VIP4).unwrap().server, 0, "round {round}");
        talk.say("and back").unwrap();
    }
}

/// Two sets of different sizes, in turn. Connections are made one after another, so once the new set has answered the
/// old one is over: each change is seen exactly once.
fn flips(hook: &str) {
    const FLIPS: usize = 30;
    let net = TestNode::new(5);
    let sets: [&[usize]; 2] = [&[0, 1], &[2, 3, 4]];
    net.serve(sets[0]);
    let _agent = net.agent(&["--hook", hook]);
    let loads = [net.load(VIP4), net.load(VIP6), net.load(VIP4)];
    for flip in 1..=FLIPS {
        let set = sets[flip % 2];
        net.write("slices.yaml", &slices(set));
        // Both families have changed once neither has the old number of backends.
        wait_for("the change", || {
            net.tables().frontends.values().all(|entry| [0, set.len() as u32].contains(&entry.internal.count))
        });
        loads.iter().for_each(|load| load.more(8));
    }
    for load in loads {
        let answers = load.all_answered();
        let changes = answers.windows(2).filter(|pair| (pair[0] < 2) != (pair[1] < 2)).count();
        assert_eq!(changes, FLIPS, "{answers:?}");
        assert_eq!(answers.iter().copied().collect::<BTreeSet<_>>(), (0..5).collect());
    }
    assert_eq!(net.repeated_syns(), 0);
}

#[test]
fn a_packet_sees_the_old_backends_or_the_new_on_tc() {
    flips("tc");
}

#[test]
fn a_packet_sees_the_old_backends_or_the_new_on_xdp() {
    flips("xdp");
}

#[test]
fn a_packet_sees_the_old_backends_or_the_new_on_generic_xdp() {
    flips("xdp-generic");
}

#[test]
fn an_agent_ends_up_where_a_fresh_one_begins() {
    let net = TestNode::new(1);
    net.serve(&[0]);
    let options = ["--node-name", "here"];
    let mut agent = net.agent(&options);
    let load = net.load(VIP4);
    let mut edits = Edits::new(&net.manifests(), 7);
    for number in 0..60 {
        edits.next_edit();
        // Sometimes it sees several at once, and twice it is killed on the way.
        if number % 3 == 0 {
            std::thread::sleep(Duration::from_millis(30));
        }
        if number % 25 == 24 {
            agent.kill();
            agent = net.agent(&options);
        }
    }
    edits.mend();
    // The fresh one begins with what was given to Services, and nothing else.
    let last = || fs::read(net.file("state.json")).unwrap();
    let mut before = Vec::new();
    wait_for("the end of all changes", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = [last(), net.dump(Numbers::Shown).into_bytes()].concat();
        std::mem::replace(&mut before, now.clone()) == now
    });
    let edited = net.dump(Numbers::Hidden);
    let log = agent.kill();
    let load = load.all_answered();
    assert!(!load.is_empty());
    assert!(net.lb(&["detach"]).status.success());
    let _fresh = net.agent(&options);
    let fresh = net.dump(Numbers::Hidden);
    assert!(edited == fresh, "--- edited\n{edited}\n--- fresh\n{fresh}\n--- log\n{log}");
    assert!(fresh.lines().count() > 60, "{fresh}");
}
