//! The rules of a Service end to end, where two hosts and clients from outside are involved: real sockets, real
//! routing, the agent as it ships. Every test ends with all packets accounted for ([`lb_tests::ledger`]). Needs root.

mod accounts;
mod addresses;
mod flows;
mod masquerade;
mod node_ports;
mod policies;
mod refusals;
mod sizes;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb_tests::hosts::{Heard, Hosts, Place};

/// Makes a test of a function for each hook.
macro_rules! at_every_hook {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn at_tc() {
                super::$name("tc");
            }

            #[test]
            fn at_native_xdp() {
                super::$name("xdp");
            }

            #[test]
            fn at_generic_xdp() {
                super::$name("xdp-generic");
            }
        }
    )*};
}
use at_every_hook;

/// Makes a test of a function for native XDP with direct forwarding: node ports and the like on network cards, for which veth
/// pairs stand that leave nothing to be finished.
macro_rules! redirected_at_xdp {
    ($($name:ident)*) => {
        mod redirected_at_xdp {
            $(#[test]
            fn $name() {
                super::$name(lb_tests::hosts::XDP_DIRECT);
            })*
        }
    };
}
use redirected_at_xdp;

/// What several new connections hear: at least two for each server there is, so that round robin visits them all.
fn hear(hosts: &Hosts, from: Place, to: SocketAddr) -> Vec<Heard> {
    let dial = |_| hosts.dial(from, to).unwrap_or_else(|error| panic!("{from:?} to {to}: {error}"));
    (0..2 * Place::SERVERS.len()).map(dial).collect()
}

/// Who answered.
fn servers(heard: &[Heard]) -> BTreeSet<String> {
    heard.iter().map(|heard| heard.server.clone()).collect()
}

/// The names of these.
fn names(places: &[Place]) -> BTreeSet<String> {
    places.iter().map(|place| place.name()).collect()
}
