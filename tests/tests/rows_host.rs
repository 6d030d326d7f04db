//! The packet rows on the host build of the engine.

use std::collections::BTreeSet;

use lb_tests::rows::cases::{GROUPS, all, group};
use lb_tests::rows::{Host, run::run_all};

macro_rules! groups {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let rows = group(stringify!($name));
            match run_all(&mut Host::new(), &rows) {
                Ok(ran) => assert_eq!(ran, rows.len(), "every row runs on the host"),
                Err(failures) => panic!("failed rows:\n{failures}"),
            }
        }

        )*

        pub(super) const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

mod host {
    use super::*;

    groups! {
        frontends backends selection connections verdicts malformed addresses icmp fragments headers checksums
    }
}

/// Names without family and protocol.
fn names() -> BTreeSet<String> {
    all().iter().map(|row| row.name.split(" (").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_group_is_tested() {
    let groups: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    assert_eq!(groups, host::TESTED);
}

#[test]
fn names_are_unique() {
    let rows = all();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), rows.len());
}

#[test]
fn every_rule_has_rows() {
    let names = names();
    let rules = "F1 F2 F5 F6 F8 F9 B3 B5 B8 S1 S2 S3 S4 S5 C1 C2 C3 C4 C5 C6 C7 \
                 V1 V2 V3 V4 V5 V6 V7 V8 V9 A1 A2 A3 A4 A5 A6 A7 A8";
    for rule in rules.split_whitespace() {
        assert!(names.iter().any(|name| name.split(' ').next() == Some(rule)), "{rule} has no row");
    }
    for name in &names {
        let rule = name.split(' ').next().unwrap_or_default();
        assert!(rules.split_whitespace().any(|known| known == rule), "{name} begins with no rule");
    }
}
