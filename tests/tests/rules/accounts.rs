//! Every packet is accounted for, and the check of it can fail.

use std::process::Output;

use lb_tests::hosts::{Hosts, Manifest, Place};
use lb_tests::ledger::{self, Ledger};

/// The books balance after traffic. Without what was dropped they do not.
#[test]
fn a_packet_that_nobody_accounts_for_is_missed() {
    let hosts = Hosts::new();
    let service = Manifest::new("web", 1, &[Place::Local(0)]);
    hosts.net.write("web.yaml", &service.text());
    let _agent = hosts.agent("tc", &[]);
    let (node, pins) = (hosts.net.node().namespace(), hosts.net.pin_dir());
    let honest = |arguments: &[&str]| hosts.net.lb(arguments);
    let forgetful = |arguments: &[&str]| -> Output {
        let mut output = hosts.net.lb(arguments);
        let text = String::from_utf8(output.stdout).unwrap().replace("\"dropped\"", "\"lost\"");
        output.stdout = text.into_bytes();
        output
    };
    let place = |lb| ledger::Place { node, pins: &pins, lb };
    let ledger = Ledger::open(&place(&honest));
    let interfaces: Vec<_> = ledger.interfaces().collect();
    assert_eq!(interfaces, ["ext0", "veth-c", "veth-r", "veth-s0", "veth-s1"]);

    hosts.dial(Place::Client, service.vip(false)).unwrap();
    hosts.assert_silent(Place::Outside, service.vip(true));
    assert_eq!(ledger.close(&place(&honest)), Ok(()));
    let dropped = hosts.count("drop-external");
    assert!(dropped > 0);
    let missing = format!("ext0: {dropped} more came in than are accounted for");
    assert_eq!(ledger.close_within(&place(&forgetful), std::time::Duration::ZERO), Err(missing));
}
