//! The packet rows on the kernel programs, through `BPF_PROG_TEST_RUN`. Needs root.

use lb_tests::rows::cases::{GROUPS, group};
use lb_tests::rows::{Hook, Kernel, run::run_all};

fn check(hook: Hook, name: &str) {
    let mut kernel =
        Kernel::load(hook).unwrap_or_else(|error| panic!("root and kernel 5.18 needed: {error}"));
    match run_all(&mut kernel, &group(name)) {
        Ok(ran) => assert!(ran > 0, "no row ran"),
        Err(failures) => panic!("failed rows:\n{failures}"),
    }
}

macro_rules! groups {
    ($hook:ident: $($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(Hook::$hook, stringify!($name));
        })*

        pub(super) const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

macro_rules! hook {
    ($module:ident $hook:ident) => {
        mod $module {
            use super::*;

            groups! {
                $hook: frontends backends selection connections verdicts malformed addresses icmp fragments
                    headers checksums
            }
        }
    };
}

hook!(xdp Xdp);
hook!(xdp_frags XdpFrags);
hook!(tc Tc);

#[test]
fn every_group_is_tested() {
    let groups: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    for tested in [xdp::TESTED, xdp_frags::TESTED, tc::TESTED] {
        assert_eq!(groups, tested);
    }
}
