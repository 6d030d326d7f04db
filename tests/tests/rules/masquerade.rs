//! Whose address a backend sees, and source ports (A1, A2, A3, C6).

use std::net::{IpAddr, SocketAddr};

use lb_tests::hosts::{Hosts, Manifest, NODE, Place, parse};

use crate::at_every_hook;

const BULK: usize = 200_000;

at_every_hook! { a3_hairpin c6_one_backend_behind_two_frontends }

/// A backend that reaches itself through its own Service, over TCP and UDP, sees the node as its client.
fn a3_hairpin(hook: &str) {
    let hosts = Hosts::new();
    let service = Manifest::new("web", 1, &[Place::Local(0)]);
    hosts.net.write("web.yaml", &service.text());
    let _agent = hosts.agent(hook, &[]);
    for v6 in [false, true] {
        let node = parse(NODE)[usize::from(v6)];
        let mut talk = hosts.connect(Place::Local(0), service.vip(v6)).unwrap();
        assert_eq!((talk.heard.server.clone(), talk.heard.client.ip()), (Place::Local(0).name(), node));
        talk.echo(&vec![3; BULK]).unwrap();
        talk.finish().unwrap();
        let heard = hosts.udp(Place::Local(0), service.vip(v6)).ask(b"me?").unwrap();
        assert_eq!((heard.server, heard.client.ip()), (Place::Local(0).name(), node));
        // A1: to others it comes under its own address.
        let heard = hosts.dial(Place::Local(1), service.vip(v6)).unwrap();
        assert_eq!(heard.client.ip(), Place::Local(1).address(v6));
    }
}

/// One client port, two frontends, one backend: to the backend they are two connections, and each answer finds back.
fn c6_one_backend_behind_two_frontends(hook: &str) {
    let hosts = Hosts::new();
    let services = [1, 2].map(|n| Manifest::new(["one", "two"][n - 1], n as u8, &[Place::Remote]));
    for (file, service) in ["one.yaml", "two.yaml"].iter().zip(&services) {
        hosts.net.write(file, &service.text());
    }
    let _agent = hosts.agent(hook, &[]);
    for v6 in [false, true] {
        let source = SocketAddr::new(Place::Client.address(v6), 40_001);
        let [mut one, mut two] = services
            .each_ref()
            .map(|service| hosts.connect_from(Place::Client, source, service.vip(v6)).unwrap());
        assert_eq!((one.own(), two.own()), (source, source));
        assert_eq!(one.heard.client, source, "the first keeps its port");
        assert_ne!(two.heard.client, source, "the second has one of its own");
        for _ in 0..3 {
            one.echo(&vec![1; BULK]).unwrap();
            two.echo(&vec![2; BULK]).unwrap();
        }
        one.finish().unwrap();
        two.echo(b"still there").unwrap();
        two.finish().unwrap();
    }
}

/// Every client of a ClusterIP is masqueraded, and two that have the same port are told apart.
#[test]
fn a2_masquerade_all() {
    let hosts = Hosts::new();
    let service = Manifest::new("web", 1, &[Place::Local(0)]);
    hosts.net.write("web.yaml", &service.text());
    let _agent = hosts.agent("tc", &["--masquerade-all"]);
    for v6 in [false, true] {
        let node: IpAddr = parse(NODE)[usize::from(v6)];
        let mut talks = [Place::Client, Place::Local(1), Place::Remote].map(|from| {
            let source = SocketAddr::new(from.address(v6), 40_002);
            hosts.connect_from(from, source, service.vip(v6)).unwrap()
        });
        for talk in &talks {
            assert_eq!(talk.heard.client.ip(), node, "{:?}", talk.heard);
        }
        let mut ports: Vec<_> = talks.iter().map(|talk| talk.heard.client.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), talks.len(), "source ports of their own");
        for talk in &mut talks {
            talk.echo(&vec![4; BULK]).unwrap();
        }
        let heard = hosts.udp(Place::Client, service.vip(v6)).ask(b"who?").unwrap();
        assert_eq!(heard.client.ip(), node);
    }
}
