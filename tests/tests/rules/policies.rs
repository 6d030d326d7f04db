//! Which backends take new connections: internal policy (V2, V3), readiness (B5, B8), hints (B6), affinity (S4).

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use lb_tests::hosts::{Hosts, Manifest, Place};
use lb_tests::patience::wait_for;

use crate::{hear, names, servers};

const HERE: Place = Place::Local(0);
const ALSO_HERE: Place = Place::Local(1);
const THERE: Place = Place::Remote;

/// Waits until new connections of the client's pod go to all of these and to no other.
fn wait_until_served_by(hosts: &Hosts, service: &Manifest, v6: bool, places: &[Place]) {
    wait_for(&format!("{places:?} to serve"), || {
        let dial = |_| hosts.dial(Place::Client, service.vip(v6));
        let heard: Result<Vec<_>, _> = (0..2 * places.len() + 2).map(dial).collect();
        heard.is_ok_and(|heard| servers(&heard) == names(places))
    });
}

#[test]
fn v2_v3_internal_traffic_policy_local() {
    let hosts = Hosts::new();
    let local = "internalTrafficPolicy: Local";
    let both = Manifest::new("both", 1, &[HERE, THERE]).spec(local);
    let away = Manifest::new("away", 2, &[THERE]).spec(local);
    hosts.net.write("both.yaml", &both.text());
    hosts.net.write("away.yaml", &away.text());
    let _agent = hosts.agent("tc", &[]);
    for v6 in [false, true] {
        assert_eq!(servers(&hear(&hosts, Place::Client, both.vip(v6))), names(&[HERE]));
        let before = hosts.count("drop-no-local-backend");
        hosts.assert_silent(Place::Client, away.vip(v6));
        assert!(hosts.count("drop-no-local-backend") > before);
    }
}

/// A connection through a backend on its way out goes on while new ones go elsewhere, and goes on still when the backend
/// is the last resort, and when nobody is left.
#[test]
fn b5_b8_terminating_and_not_ready_backends() {
    let hosts = Hosts::new();
    let service = Manifest::new("web", 1, &[HERE, THERE]);
    hosts.net.write("web.yaml", &service.text());
    let _agent = hosts.agent("tc", &[]);
    let leaving = "conditions: {ready: false, serving: true, terminating: true}";
    let gone = "conditions: {ready: false, serving: false, terminating: true}";
    let not_ready = "conditions: {ready: false}";
    let connect = |v6| {
        let mut found = None;
        wait_for("a connection to the backend", || {
            let talk = hosts.connect(Place::Client, service.vip(v6)).unwrap();
            found = (talk.heard.server == HERE.name()).then_some(talk);
            found.is_some()
        });
        found.unwrap()
    };
    let mut talks = [false, true].map(connect);
    let mut go_on = |when: &str| {
        for talk in &mut talks {
            talk.echo(when.as_bytes()).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
    };
    go_on("all are ready");
    let mut step = |manifest: Manifest, serving: &[Place], what: &str| {
        hosts.net.write("web.yaml", &manifest.text());
        for v6 in [false, true] {
            wait_until_served_by(&hosts, &service, v6, serving);
        }
        go_on(what);
    };
    step(service.clone().endpoint(HERE, leaving), &[THERE], "it terminates");
    step(
        service.clone().endpoint(HERE, leaving).endpoint(THERE, not_ready),
        &[HERE],
        "it terminates and no other is ready",
    );
    step(service.clone().endpoint(HERE, not_ready), &[THERE], "it is not ready");
    hosts.net.write("web.yaml", &service.clone().endpoint(HERE, gone).endpoint(THERE, not_ready).text());
    for v6 in [false, true] {
        wait_for("nobody to serve", || hosts.dial(Place::Client, service.vip(v6)).is_err());
        hosts.assert_refused(Place::Client, service.vip(v6));
    }
    go_on("nobody serves");
}

#[test]
fn b6_hints_for_this_node_and_this_zone() {
    let hosts = Hosts::new();
    hosts.net.write(
        "this-node.yaml",
        "kind: Node\nmetadata: {name: here, labels: {topology.kubernetes.io/zone: east}}\n",
    );
    let zone = |zone: &str| format!("hints: {{forZones: [{{name: {zone}}}]}}");
    let node = |node: &str| format!("hints: {{forNodes: [{{name: {node}}}]}}");
    let all = [HERE, ALSO_HERE, THERE];
    let by_zone = Manifest::new("zone", 1, &all)
        .endpoint(HERE, &zone("west"))
        .endpoint(ALSO_HERE, &zone("east"))
        .endpoint(THERE, &zone("east"));
    let by_node = Manifest::new("node", 2, &all)
        .endpoint(HERE, &node("there"))
        .endpoint(ALSO_HERE, &node("there"))
        .endpoint(THERE, &node("here"));
    let unhinted =
        Manifest::new("some", 3, &all).endpoint(HERE, &zone("west")).endpoint(THERE, &zone("east"));
    for (file, manifest) in [("zone.yaml", &by_zone), ("node.yaml", &by_node), ("some.yaml", &unhinted)] {
        hosts.net.write(file, &manifest.text());
    }
    let _agent = hosts.agent("tc", &[]);
    for v6 in [false, true] {
        let served = |manifest: &Manifest| servers(&hear(&hosts, Place::Client, manifest.vip(v6)));
        assert_eq!(served(&by_zone), names(&[ALSO_HERE, THERE]));
        assert_eq!(served(&by_node), names(&[THERE]));
        assert_eq!(served(&unhinted), names(&all), "one without hints switches them off");
    }
}

#[test]
fn s4_session_affinity_until_its_timeout() {
    let hosts = Hosts::new();
    let service = |seconds: u32| {
        Manifest::new("web", 1, &[HERE, ALSO_HERE, THERE]).spec(&format!(
            "type: NodePort, sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        ))
    };
    hosts.net.write("web.yaml", &service(3600).text());
    let _agent = hosts.agent("tc", &[]);
    let mut kept = Vec::new();
    for v6 in [false, true] {
        let [vip, node_port] = [service(1).vip(v6), crate::node_ports::node_port(1, v6)];
        // One backend, over all frontends of the service port; another client has its own.
        let heard: BTreeSet<_> =
            [vip, node_port].iter().flat_map(|to| servers(&hear(&hosts, Place::Client, *to))).collect();
        assert_eq!(heard.len(), 1, "{heard:?}");
        let other = servers(&hear(&hosts, Place::Remote, vip));
        assert!(other.len() == 1 && other != heard, "two clients in turn: {heard:?} {other:?}");
        kept.push((v6, heard));
    }
    // Now it is short. A backend is chosen anew after it, and turns go on to the next.
    hosts.net.write("web.yaml", &service(1).text());
    for (v6, heard) in kept {
        wait_for("the end of affinity", || {
            thread::sleep(Duration::from_secs(2));
            let now = hosts.dial(Place::Client, service(1).vip(v6)).unwrap();
            !heard.contains(&now.server)
        });
    }
}

/// Slices are merged and an address counts once; conditions that nobody has set mean ready.
#[test]
fn b1_b4_slices_are_merged() {
    let hosts = Hosts::new();
    let service = Manifest::new("web", 1, &[HERE, THERE]);
    let again = Manifest::new("web", 1, &[HERE]).text().replace("{name: web-", "{name: again-");
    let (_, slices) = again.split_once("---\n").unwrap();
    hosts.net.write("web.yaml", &format!("{}---\n{slices}", service.text()));
    let _agent = hosts.agent("tc", &[]);
    for row in hosts.net.json(&["get", "services"]).as_array().unwrap() {
        assert_eq!(row["backends"], 2, "{row}");
    }
    for v6 in [false, true] {
        assert_eq!(servers(&hear(&hosts, Place::Client, service.vip(v6))), names(&[HERE, THERE]));
    }
}

/// Without slices, Pods that match the selector and have an address answer; the port's name is looked up in each.
#[test]
fn b3_b7_backends_from_pods() {
    let hosts = Hosts::new();
    let pod = |name: &str, app: &str, place: Place, status: &str| {
        let (v4, v6) = (place.address(false), place.address(true));
        format!(
            "---\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}}}}}\nspec: {{nodeName: {}, containers: [{{name: c, \
             ports: [{{name: web, containerPort: 8080}}]}}]}}\nstatus: {{podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]{status}}}\n",
            place.node_name()
        )
    };
    let not_ready = ", conditions: [{type: Ready, status: 'False'}]";
    let service = "kind: Service\nmetadata: {name: web}\nspec: {ipFamilyPolicy: RequireDualStack, clusterIPs: [10.96.0.1, \
                   'fd00:96::1'], selector: {app: web}, ports: [{port: 80, targetPort: web}]}\n";
    let text = [
        service.to_owned(),
        pod("a", "web", HERE, ""),
        pod("b", "web", THERE, ""),
        pod("c", "web", ALSO_HERE, not_ready),
        pod("d", "other", Place::Far, ""),
    ];
    hosts.net.write("web.yaml", &text.concat());
    let _agent = hosts.agent("tc", &[]);
    for v6 in [false, true] {
        let to = Manifest::new("web", 1, &[]).vip(v6);
        assert_eq!(servers(&hear(&hosts, Place::Client, to)), names(&[HERE, THERE]));
    }
}
