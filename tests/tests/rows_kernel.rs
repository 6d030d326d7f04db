//! The packet rows on the kernel programs, through `BPF_PROG_TEST_RUN`. Needs root.

use lb_tests::rows::{Hook, Kernel, cases, run::run_all};

fn check(hook: Hook) {
    let mut kernel = Kernel::load(hook).unwrap_or_else(|error| panic!("needs root and a kernel: {error}"));
    match run_all(&mut kernel, &cases::all()) {
        Ok(ran) => assert!(ran > 0, "no row ran"),
        Err(failures) => panic!("failed rows:\n{failures}"),
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
