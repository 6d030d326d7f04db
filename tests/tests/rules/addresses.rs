//! External and load balancer addresses (F5), who may dial them (V7), and Services without any frontend (F3, F4).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb_tests::hosts::{Hosts, Manifest, NODE, OUTSIDE_TOO, Place, parse, vip};

use crate::{hear, names, redirected_at_xdp, servers};

/// Addresses that nobody on the node has: an external IP, a load balancer's, one that the load balancer itself serves.
const PUBLIC: [[&str; 2]; 3] =
    [["192.0.2.10", "2001:db8:2::10"], ["192.0.2.11", "2001:db8:2::11"], ["192.0.2.12", "2001:db8:2::12"]];

fn public(number: usize, v6: bool) -> SocketAddr {
    SocketAddr::new(parse(PUBLIC[number])[usize::from(v6)], 80)
}

#[test]
fn f5_external_and_load_balancer_addresses_at_tc() {
    f5_external_and_load_balancer_addresses("tc");
}

redirected_at_xdp! { f5_external_and_load_balancer_addresses }

fn f5_external_and_load_balancer_addresses(hook: &str) {
    let hosts = Hosts::new();
    let backends = [Place::Local(0), Place::Remote];
    let [external, ours, theirs] = PUBLIC;
    let ingress = [
        format!("{{ip: '{}'}}, {{ip: '{}', ipMode: VIP}}", ours[0], ours[1]),
        format!("{{ip: '{}', ipMode: Proxy}}, {{ip: '{}', ipMode: Proxy}}", theirs[0], theirs[1]),
        "{hostname: lb.example.org}".to_owned(),
    ];
    let service = Manifest::new("web", 1, &backends)
        .spec(&format!("type: LoadBalancer, externalIPs: ['{}', '{}']", external[0], external[1]))
        .ingress(&ingress);
    hosts.net.write("web.yaml", &service.text());
    let _agent = hosts.agent(hook, &[]);
    for v6 in [false, true] {
        let node = parse(NODE)[usize::from(v6)];
        for number in [0, 1] {
            let to = public(number, v6);
            for from in [Place::Outside, Place::Client] {
                let heard = hear(&hosts, from, to);
                assert_eq!(servers(&heard), names(&backends), "{from:?} to {to}");
                assert!(heard.iter().all(|heard| heard.client.ip() == node), "{heard:?}");
            }
            let udp = hosts.udp(Place::Outside, to).ask(b"hello").unwrap();
            assert_eq!(udp.client.ip(), node);
            // Other ports of such an address are not ours: the node has no route to it, and says so.
            let other = SocketAddr::new(to.ip(), 81);
            assert!(hosts.connect(Place::Outside, other).is_err());
        }
        let before = hosts.count("not-ours");
        assert!(hosts.connect(Place::Outside, public(2, v6)).is_err());
        assert!(hosts.count("not-ours") > before, "ipMode Proxy is not served here");
    }
}

#[test]
fn v7_source_ranges_guard_load_balancer_addresses_only() {
    let hosts = Hosts::new();
    let [_, ours, _] = PUBLIC;
    let service = Manifest::new("web", 1, &[Place::Local(0)])
        .spec("type: LoadBalancer, loadBalancerSourceRanges: ['198.51.100.0/24', ' 2001:db8:51::/64 ']")
        .ingress(&ours.map(|address| format!("{{ip: '{address}'}}")));
    hosts.net.write("web.yaml", &service.text());
    let _agent = hosts.agent("tc", &[]);
    for v6 in [false, true] {
        let to = public(1, v6);
        let stranger = SocketAddr::new(parse(OUTSIDE_TOO)[usize::from(v6)], 0);
        assert_eq!(hosts.dial(Place::Outside, to).unwrap().server, Place::Local(0).name());
        let before = hosts.count("drop-source-range");
        hosts.assert_silent_from(Place::Outside, stranger, to);
        // Pods are no exception.
        hosts.assert_silent(Place::Client, to);
        assert!(hosts.count("drop-source-range") >= before + 2);
        // The node port of the same Service is not guarded.
        let node_port = SocketAddr::new(parse(NODE)[usize::from(v6)], 30_001);
        hosts.connect_from(Place::Outside, stranger, node_port).unwrap().finish().unwrap();
    }
}

/// Services of which another program takes care, headless ones and names for other names have no frontends here, though
/// they have backends.
#[test]
fn f3_f4_services_that_are_not_served_here() {
    let hosts = Hosts::new();
    let backends = [Place::Local(0), Place::Remote];
    let text = |name, number| Manifest::new(name, number, &backends).text();
    let theirs = text("theirs", 1).replacen(
        "metadata: {name: theirs",
        "metadata: {name: theirs, labels: {service.kubernetes.io/service-proxy-name: other}",
        1,
    );
    let headless =
        text("headless", 2).replacen("clusterIPs: ['10.96.0.2', 'fd00:96::2']", "clusterIP: None", 1);
    let outside =
        "kind: Service\nmetadata: {name: outside}\nspec: {type: ExternalName, externalName: example.org}\n";
    let served = Manifest::new("served", 3, &backends);
    // Slices of a Service that is ours, but of another's making.
    let foreign = text("foreign", 4).replace("labels: {", "labels: {service.kubernetes.io/headless: '', ");
    for (file, text) in [
        ("theirs.yaml", theirs.as_str()),
        ("headless.yaml", &headless),
        ("outside.yaml", outside),
        ("served.yaml", &served.text()),
        ("foreign.yaml", &foreign),
    ] {
        hosts.net.write(file, text);
    }
    let _agent = hosts.agent("tc", &[]);
    let listed: BTreeSet<_> = hosts
        .net
        .json(&["get", "services"])
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["service"].as_str().unwrap().split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(listed, ["default/foreign", "default/served"].map(str::to_owned).into());
    for v6 in [false, true] {
        assert_eq!(servers(&hear(&hosts, Place::Client, served.vip(v6))), names(&backends));
        let before = hosts.count("drop-unowned");
        for number in [1, 2] {
            hosts.assert_silent(Place::Client, SocketAddr::new(vip(number, v6), 80));
        }
        assert!(hosts.count("drop-unowned") >= before + 2);
        hosts.assert_refused(Place::Client, SocketAddr::new(vip(4, v6), 80));
    }
}
