//! Random services.

use lb_tests::rows::net::{Net, surroundings};
use lb_tests::rows::service::Svc;
use lb_userspace::model::desired::{Algorithm, Desired, Protocol};
use proptest::prelude::*;
use proptest::sample::select;

/// Port of the node that leads to port `port` of service address `vip`.
pub(crate) fn node_port(vip: u8, port: u16) -> u16 {
    30_000 + u16::from(vip) * 100 + port
}

fn subset(of: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::subsequence(of, 0..=of.len())
}

pub(crate) fn net() -> impl Strategy<Value = Net> {
    select(&Net::BOTH[..])
}

pub(crate) fn protocol() -> impl Strategy<Value = Protocol> {
    select(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp][..])
}

/// One service. Chance is left out: what it chooses differs between bodies.
fn service() -> impl Strategy<Value = Svc> {
    const PODS: &[u8] = &[1, 2, 3, 4];
    // Few places, so that packets hit some.
    let place = (net(), protocol(), 1..=2u8, Just(80));
    let backends = (subset(PODS), subset(PODS), subset(&[1]), subset(&[2]));
    let ways = [Algorithm::RoundRobin, Algorithm::RoundRobin, Algorithm::Maglev, Algorithm::Weighted];
    let choice = (select(ways.to_vec()), prop::bool::weighted(0.3), 0..4u16);
    (place, backends, choice, any::<[bool; 5]>()).prop_map(
        |((net, protocol, vip, port), (pods, local, not_ready, terminating), (way, affinity, weight), on)| {
            let mut svc = Svc::new(net, protocol, (net.vip(vip), port), &pods)
                .local(&local)
                .not_ready(&not_ready)
                .terminating(&terminating)
                .algorithm(way)
                .weight(1, weight);
            let [internal_local, external_local, public, node, ranged] = on;
            if affinity {
                svc = svc.affinity(60);
            }
            if internal_local {
                svc = svc.internal_local();
            }
            if external_local {
                svc = svc.external_local();
            }
            if public {
                svc = svc.load_balancer(net.public(vip));
            }
            if public && ranged {
                svc = svc.only_from(net.outside(1));
            }
            if node {
                svc = svc.node_port(node_port(vip, port));
            }
            svc
        },
    )
}

/// A few services and what is around them. Of two services with one name, the latter counts.
pub(crate) fn world() -> impl Strategy<Value = Desired> {
    let around = (prop::bool::weighted(0.2), prop::bool::weighted(0.5));
    (prop::collection::vec(service(), 4..16), around).prop_map(|(services, (masquerade_all, open))| {
        let mut surroundings = surroundings();
        surroundings.masquerade_all = masquerade_all;
        surroundings.allow_external_cluster_ip = open;
        Desired { services: services.iter().map(Svc::finish).collect(), surroundings }
    })
}
