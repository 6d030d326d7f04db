//! Node ports (F6) under both external traffic policies (V2, V4, A2).

use std::net::SocketAddr;

use lb_tests::hosts::{Hosts, Manifest, NODE, Place, parse};

use crate::{at_every_hook, hear, names, redirected_at_xdp, servers};

/// The node port of a Service, TCP; the one for UDP is 100 above.
pub(crate) fn node_port(number: u16, v6: bool) -> SocketAddr {
    SocketAddr::new(parse(NODE)[usize::from(v6)], 30_000 + number)
}

at_every_hook! { f6_a2_cluster_policy v4_local_policy }
redirected_at_xdp! { f6_a2_cluster_policy v4_local_policy }

/// Everybody reaches all backends, here and on the other host; who is not of this node's pods is masqueraded, and the
/// answers find back.
fn f6_a2_cluster_policy(hook: &str) {
    let hosts = Hosts::new();
    let backends = [Place::Local(0), Place::Remote];
    hosts.net.write("web.yaml", &Manifest::new("web", 1, &backends).spec("type: NodePort").text());
    // Another address of this node, not the one that serves node ports.
    hosts.net.ip("address add 172.31.0.9/32 dev lo");
    let _agent = hosts.agent(hook, &[]);
    for v6 in [false, true] {
        let to = node_port(1, v6);
        for from in [Place::Outside, Place::Client, Place::Remote] {
            let heard = hear(&hosts, from, to);
            assert_eq!(servers(&heard), names(&backends), "{from:?} to {to}");
            for heard in heard {
                assert_eq!(heard.client.ip(), to.ip(), "{from:?} to {to}: the source is the node's");
            }
            let mut talk = hosts.connect(from, to).unwrap();
            talk.echo(&vec![7; 300_000]).unwrap();
            talk.finish().unwrap();
        }
        let to = SocketAddr::new(to.ip(), 30_101);
        // All open at once: a closed one's port might come back, and its flow with it.
        let sockets = hosts.udp_sockets(Place::Outside, to, 4);
        let udp: Vec<_> = sockets.iter().map(|socket| socket.ask(b"hello").unwrap()).collect();
        assert_eq!(servers(&udp), names(&backends), "UDP to {to}");
        assert!(udp.iter().all(|heard| heard.client.ip() == to.ip()), "{udp:?}");
    }
    // The host itself says that nobody listens there.
    hosts.assert_refused(Place::Outside, SocketAddr::new([172, 31, 0, 9].into(), 30_001));
}

/// From outside only backends of this node are reached, and see who is asking; without any the packet is dropped. Pods
/// reach them all.
fn v4_local_policy(hook: &str) {
    let hosts = Hosts::new();
    let policy = "type: NodePort, externalTrafficPolicy: Local";
    let both = [Place::Local(0), Place::Remote];
    hosts.net.write("both.yaml", &Manifest::new("both", 1, &both).spec(policy).text());
    hosts.net.write("away.yaml", &Manifest::new("away", 2, &[Place::Remote]).spec(policy).text());
    let _agent = hosts.agent(hook, &[]);
    for v6 in [false, true] {
        let to = node_port(1, v6);
        let heard = hear(&hosts, Place::Outside, to);
        assert_eq!(servers(&heard), names(&[Place::Local(0)]), "{to}");
        for heard in heard {
            assert_eq!(heard.client.ip(), Place::Outside.address(v6), "the source is kept");
        }
        let udp = hosts.udp(Place::Outside, SocketAddr::new(to.ip(), 30_101)).ask(b"hello").unwrap();
        assert_eq!((udp.server, udp.client.ip()), (Place::Local(0).name(), Place::Outside.address(v6)));
        assert_eq!(servers(&hear(&hosts, Place::Client, to)), names(&both), "a pod to {to}");

        let to = node_port(2, v6);
        let before = hosts.count("drop-no-local-backend");
        hosts.assert_silent(Place::Outside, to);
        assert!(hosts.count("drop-no-local-backend") > before);
        assert_eq!(servers(&hear(&hosts, Place::Client, to)), names(&[Place::Remote]), "a pod to {to}");
    }
}
