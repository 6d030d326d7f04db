//! Whether translated packets may go past the host's own forwarding.

use std::collections::BTreeMap;
use std::io;

use nix::net::if_::if_indextoname;

use super::check::{Check, Status};
use crate::forwarding::{self, Devices, Features};

const NAME: &str = "direct forwarding";
const REDIRECTS: &str = "redirects at native XDP";
/// The loopback's index.
const LOOPBACK: u32 = 1;

/// All checks here.
pub(super) fn checks() -> Vec<Check> {
    let features = Devices::find().and_then(|devices| devices.map(|devices| devices.features()).transpose());
    vec![check(forwarding::look()), redirects(features, name_of)]
}

fn name_of(ifindex: u32) -> Option<String> {
    if_indextoname(ifindex).ok()?.into_string().ok()
}

/// Which devices take what direct forwarding at native XDP redirects to them.
fn redirects(
    features: io::Result<Option<BTreeMap<u32, Features>>>,
    name_of: impl Fn(u32) -> Option<String>,
) -> Check {
    let features = match features {
        Ok(Some(features)) => features,
        Ok(None) => {
            let found = "none: this kernel does not say which devices take them";
            return Check::bad(Status::Note, REDIRECTS, found, "6.3 and later do");
        }
        Err(error) => {
            let found = format!("could not see: {error}");
            return Check::bad(Status::Note, REDIRECTS, found, "look with `ip -details link`");
        }
    };
    let names = |takes: bool| {
        let these = features
            .iter()
            .filter(|(ifindex, features)| **ifindex != LOOPBACK && features.takes_redirects() == takes);
        these.filter_map(|(ifindex, _)| name_of(*ifindex)).collect::<Vec<_>>().join(", ")
    };
    match (names(true), names(false)) {
        (all, none) if none.is_empty() => Check::ok(REDIRECTS, format!("taken by {}", some(&all))),
        (some_do, do_not) => Check::bad(
            Status::Note,
            REDIRECTS,
            format!("taken by {}, not by {do_not}: the host forwards what goes there", some(&some_do)),
            "a veth takes them with GRO at its other end: ethtool -K eth0 gro on",
        ),
    }
}

fn some(names: &str) -> &str {
    if names.is_empty() { "none" } else { names }
}

fn check(rules: Result<forwarding::Rules, forwarding::RulesError>) -> Check {
    match rules {
        Ok(rules) if rules.is_empty() => {
            Check::ok(NAME, "used at tc, and at native XDP on network cards: no rules see forwarded packets")
        }
        Ok(rules) => Check::bad(
            Status::Note,
            NAME,
            format!("not used: rules see forwarded packets: {rules}"),
            "if these rules need not see Services' packets: lb run --forwarding direct",
        ),
        Err(error) => {
            Check::bad(Status::Note, NAME, format!("could not see: {error}"), "run `lb doctor` as root")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_take_nothing_are_named() {
        let name = |ifindex| Some(format!("if{ifindex}"));
        let look = |features| redirects(Ok(Some(BTreeMap::from(features))), name);
        let (takes, takes_not) = (Features::of(0b111), Features::of(0b11));
        let all = look([(LOOPBACK, takes_not), (2, takes), (3, takes)]);
        assert_eq!((all.status, all.found.as_str()), (Status::Ok, "taken by if2, if3"));
        let one = look([(LOOPBACK, takes_not), (2, takes), (3, takes_not)]);
        assert_eq!(one.status, Status::Note);
        assert!(one.found.starts_with("taken by if2, not by if3"), "{}", one.found);
        assert_eq!(redirects(Ok(None), name).status, Status::Note);
    }

    #[test]
    fn rules_in_the_way_are_named() {
        assert_eq!(check(Ok(forwarding::Rules::default())).status, Status::Ok);
        let rules = forwarding::Rules::of(["inet filter forward (1 rule)".to_owned()]);
        let check = check(Ok(rules));
        assert_eq!(check.status, Status::Note);
        assert!(check.found.contains("inet filter forward (1 rule)"), "{}", check.found);
    }
}
