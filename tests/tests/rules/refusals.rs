//! Who is not served, and what that looks like: V1, V5, V6, F8, F9.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lb_tests::hosts::{Hosts, Manifest, NODE, Place, parse, vip};
use lb_tests::patience::wait_for;

use crate::at_every_hook;

at_every_hook! { f9_clients_from_outside }

/// Whether a ping is answered.
fn ping(hosts: &Hosts, from: Place, to: IpAddr, patience: &str) -> bool {
    let ping = ["-n", "-c1", "-W", patience, &to.to_string()];
    let output = hosts.namespace(from).command("ping").unwrap().args(ping).output().unwrap();
    output.status.success()
}

/// A ClusterIP is for the cluster: from outside neither its port, nor another, nor ping is answered, and nothing tells
/// whether it exists. A pod, also one of the other host, is served.
fn f9_clients_from_outside(hook: &str) {
    let hosts = Hosts::new();
    let service = Manifest::new("web", 1, &[Place::Local(0)]);
    hosts.net.write("web.yaml", &service.text());
    let agent = hosts.agent(hook, &[]);
    for v6 in [false, true] {
        let to = service.vip(v6);
        for place in [Place::Client, Place::Remote] {
            assert_eq!(hosts.dial(place, to).unwrap().client.ip(), place.address(v6), "A1");
        }
        // A pod's address proves nothing when it comes in from outside.
        let spoofed = Place::Client.address(v6);
        let prefix = if v6 { 128 } else { 32 };
        lb_tests::hosts::run(
            hosts.namespace(Place::Outside),
            &format!("ip address add {spoofed}/{prefix} dev eth0 preferred_lft 0"),
        );
        let before = hosts.count("drop-external");
        hosts.assert_silent(Place::Outside, to);
        hosts.assert_silent(Place::Outside, SocketAddr::new(to.ip(), 4444));
        hosts.assert_silent_from(Place::Outside, SocketAddr::new(spoofed, 0), to);
        assert!(!ping(&hosts, Place::Outside, to.ip(), "0.3"));
        assert!(hosts.count("drop-external") >= before + 4);
    }
    // As kube-proxy has it, when asked for.
    agent.terminate();
    let _agent = hosts.agent(hook, &["--external-cluster-ip", "allow"]);
    for v6 in [false, true] {
        let heard = hosts.dial(Place::Outside, service.vip(v6)).unwrap();
        assert_eq!(heard.client.ip(), parse(NODE)[usize::from(v6)], "masqueraded");
        assert!(ping(&hosts, Place::Outside, service.vip(v6).ip(), "20"));
    }
}

/// Nobody behind it, another port, another protocol: refused, at once. Nobody's address: silence.
#[test]
fn v1_v5_v6_what_a_client_sees() {
    let hosts = Hosts::new();
    let (web, empty) =
        (Manifest::new("web", 1, &[Place::Local(0)]), Manifest::new("empty", 2, &[]).spec("type: NodePort"));
    hosts.net.write("web.yaml", &web.text());
    hosts.net.write("empty.yaml", &empty.text());
    let _agent = hosts.agent("tc", &[]);
    for v6 in [false, true] {
        let other_port = SocketAddr::new(web.vip(v6).ip(), 81);
        for from in [Place::Client, Place::Remote] {
            for to in [empty.vip(v6), other_port] {
                hosts.assert_refused(from, to);
                let error = hosts.udp(from, to).ask(b"anybody?").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "UDP from {from:?} to {to}");
            }
        }
        // V1, from outside.
        let node_port = crate::node_ports::node_port(2, v6);
        hosts.assert_refused(Place::Outside, node_port);
        let before = hosts.count("drop-unowned");
        hosts.assert_silent(Place::Client, SocketAddr::new(vip(77, v6), 80));
        assert!(hosts.count("drop-unowned") > before);
    }
}

#[test]
fn v5_ping_and_its_switch() {
    let hosts = Hosts::new();
    hosts.net.write("web.yaml", &Manifest::new("web", 1, &[]).text());
    let agent = hosts.agent("tc", &[]);
    for v6 in [false, true] {
        for from in [Place::Client, Place::Remote] {
            assert!(ping(&hosts, from, vip(1, v6), "20"), "{from:?}");
        }
        assert!(!ping(&hosts, Place::Client, vip(77, v6), "0.3"), "nobody's address");
    }
    assert!(hosts.count("ping") >= 4);
    agent.terminate();
    let _agent = hosts.agent("tc", &["--vip-ping", "off"]);
    let before = hosts.count("ping");
    for v6 in [false, true] {
        // The node has no route to it, and may say so.
        assert!(!ping(&hosts, Place::Client, vip(1, v6), "0.3"));
    }
    assert_eq!(hosts.count("ping"), before);
}

/// A Service that claims this node's own secure shell is refused by name. One that claims another of its ports is
/// served, and the operator is told.
#[test]
fn f8_nobody_is_locked_out() {
    let hosts = Hosts::new();
    let node = parse(NODE);
    let ssh: Vec<TcpListener> = hosts
        .net
        .node()
        .namespace()
        .run(|| node.map(|address| TcpListener::bind((address, 22)).unwrap()).into())
        .unwrap();
    let claim = |port: u16| {
        let [v4, v6] = NODE;
        let service =
            Manifest::new("greedy", 1, &[Place::Local(0)]).spec(&format!("externalIPs: ['{v4}', '{v6}']"));
        service.text().replace("port: 80}", &format!("port: {port}}}"))
    };
    hosts.net.write("greedy.yaml", &claim(22));
    let agent = hosts.agent("tc", &["--healthz", "172.31.0.1:10256"]);
    for v4_or_v6 in NODE {
        agent.wait_log(&format!(
            "{v4_or_v6} port 22/TCP would lock this node's operator out: not served (F8)"
        ));
    }
    let reach = |from: Place, to: SocketAddr| {
        hosts.inside(from, || TcpStream::connect_timeout(&to, Duration::from_secs(20))).is_ok()
    };
    for (address, listener) in node.iter().zip(&ssh) {
        for from in [Place::Outside, Place::Client] {
            assert!(reach(from, SocketAddr::new(*address, 22)), "{from:?}");
            let (_stream, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), from.address(address.is_ipv6()), "it is this node that answers");
        }
    }
    // The Service is served where it locks nobody out.
    assert!(reach(Place::Client, SocketAddr::new(vip(1, false), 22)));

    // Likewise the port that the agent answers its own health checks on.
    hosts.net.write("greedy.yaml", &claim(10256));
    agent.wait_log(&format!(
        "{} port 10256/TCP would lock this node's operator out: not served (F8)",
        NODE[0]
    ));
    assert!(reach(Place::Client, SocketAddr::new(node[0], 10256)));

    hosts.net.write("greedy.yaml", &claim(8443));
    for address in NODE {
        agent.wait_log(&format!(
            "{address} is an address of this node: its own port 8443/TCP can no longer be reached (F8)"
        ));
    }
    for address in node {
        let to = SocketAddr::new(address, 8443);
        wait_for("the Service", || hosts.dial(Place::Outside, to).is_ok());
    }
}
