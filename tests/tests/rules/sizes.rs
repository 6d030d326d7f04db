//! Packets that do not fit: path MTU discovery through a VIP (A4), datagrams in fragments (A5).

use std::net::{IpAddr, SocketAddr};

use lb_tests::hosts::{Hosts, Manifest, NODE, Place, SMALL_MTU, parse, run};

use crate::{at_every_hook, redirected_at_xdp};

/// Some packets more than a window.
const BULK: usize = 500_000;
/// Bytes of a datagram.
const DATAGRAM: usize = 8_192;

at_every_hook! { a4_path_mtu a5_long_datagrams }
redirected_at_xdp! { a4_path_mtu a5_long_datagrams }

/// What the kernel there knows of the path to an address.
fn known_mtu(hosts: &Hosts, from: Place, to: IpAddr) -> bool {
    let route = run(hosts.namespace(from), &format!("ip route get {to}"));
    route.contains(&format!("mtu {SMALL_MTU}"))
}

/// Between two routers there is a link that full packets do not pass, and the first of them says so in ICMP. Neither end
/// of the connection sees its MTU. Behind it is first the backend, then the client; in both cases the error is about
/// addresses that its receiver does not know, and must be translated.
fn a4_path_mtu(hook: &str) {
    let hosts = Hosts::new();
    let away = Manifest::new("away", 1, &[Place::Far]);
    let here = Manifest::new("here", 2, &[Place::Local(0)]);
    hosts.net.write("away.yaml", &away.text());
    hosts.net.write("here.yaml", &here.text());
    let other = Manifest::new("other", 3, &[Place::Remote]);
    hosts.net.write("other.yaml", &other.text());
    let _agent = hosts.agent(hook, &[]);
    for v6 in [false, true] {
        for (from, service, sender, seen) in [
            (Place::Client, &away, Place::Client, away.vip(v6).ip()),
            (Place::Far, &here, Place::Local(0), Place::Far.address(v6)),
        ] {
            let before = hosts.count("icmp-error");
            let mut talk = hosts.connect(from, service.vip(v6)).unwrap();
            talk.echo(&vec![5; BULK]).unwrap();
            talk.finish().unwrap();
            assert!(hosts.count("icmp-error") > before, "{from:?}: no error was translated");
            assert!(known_mtu(&hosts, sender, seen), "{sender:?} does not know of the path to {seen}");
        }
    }
    // Now the node's own link to the other host: the error is the node's, and translated where it leaves.
    hosts.net.ip(&format!("link set veth-r mtu {SMALL_MTU}"));
    run(hosts.other(), &format!("ip link set eth0 mtu {SMALL_MTU}"));
    for v6 in [false, true] {
        let mut talk = hosts.connect(Place::Client, other.vip(v6)).unwrap();
        talk.echo(&vec![6; BULK]).unwrap();
        talk.finish().unwrap();
        assert!(known_mtu(&hosts, Place::Client, other.vip(v6).ip()), "the client does not know of the path");
    }
}

/// Datagrams of 8 KB, which go in fragments: both ways, to backends here and on the other host, masqueraded or not.
fn a5_long_datagrams(hook: &str) {
    let hosts = Hosts::new();
    let here = Manifest::new("here", 1, &[Place::Local(0)]).spec("type: NodePort");
    let away = Manifest::new("away", 2, &[Place::Remote]).spec("type: NodePort");
    hosts.net.write("here.yaml", &here.text());
    hosts.net.write("away.yaml", &away.text());
    let _agent = hosts.agent(hook, &[]);
    let payload: Vec<u8> = (0..DATAGRAM).map(|i| (i * 31 + i / 251) as u8).collect();
    for v6 in [false, true] {
        let node = parse(NODE)[usize::from(v6)];
        for (from, to, server) in [
            (Place::Client, here.vip(v6), Place::Local(0)),
            (Place::Client, away.vip(v6), Place::Remote),
            (Place::Outside, SocketAddr::new(node, 30_101), Place::Local(0)),
            (Place::Outside, SocketAddr::new(node, 30_102), Place::Remote),
        ] {
            let socket = hosts.udp(from, to);
            for round in 0..3 {
                let heard = socket.ask(&payload[round..]);
                let heard = heard.unwrap_or_else(|error| panic!("{from:?} to {to}, {round}: {error}"));
                assert_eq!(heard.server, server.name());
            }
        }
    }
}
