//! The kernel programs do what the host engine does, packet by packet and table by table. Needs root.

use std::cell::RefCell;

use lb_common::reason::Reason;
use lb_tests::rows::agree::{Met, agree};
use lb_tests::rows::{Hook, Kernel};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::actions::{Actions, actions};

/// Reasons that sequences meet often, and how often at the very least.
const COMMON: &[(Reason, usize)] = &[
    (Reason::NewFlow, 100),
    (Reason::ToBackend, 25),
    (Reason::FromBackend, 75),
    (Reason::IcmpError, 15),
    (Reason::LateFragment, 25),
    (Reason::Malformed, 50),
    (Reason::RejectedNoBackend, 25),
    (Reason::RejectedPort, 50),
    (Reason::DropUnowned, 25),
];

fn check(hook: Hook) {
    let kernel = Kernel::load(hook).unwrap_or_else(|error| panic!("root and kernel 5.18 needed: {error}"));
    let kernel = RefCell::new(kernel);
    let config =
        Config { cases: 200, max_shrink_iters: 2_000, source_file: Some(file!()), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let met = RefCell::new(Met::new());
    let result = runner.run(&actions(), |actions| {
        match agree(&mut kernel.borrow_mut(), &Actions(actions), &mut met.borrow_mut()) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(text)) => Err(TestCaseError::fail(text)),
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        }
    });
    match result {
        Ok(()) => {
            // Sequences that meet nothing would agree as well.
            let met = met.borrow();
            for (reason, least) in COMMON {
                let count = met.get(reason).copied().unwrap_or(0);
                assert!(count >= *least, "{reason:?} was met {count} times only");
            }
        }
        Err(TestError::Fail(reason, actions)) => panic!("{reason}\nactions: {actions:#?}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn xdp() {
    check(Hook::Xdp);
}

#[test]
fn xdp_frags() {
    check(Hook::XdpFrags);
}

#[test]
fn tc() {
    check(Hook::Tc);
}
