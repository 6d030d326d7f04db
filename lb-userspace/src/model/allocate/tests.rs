use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;
use crate::source::kube::{Kind, Object};

fn service(name: &str, spec: Value) -> Object {
    Object::decode(Kind::Service, &json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn plain(name: &str) -> Object {
    service(name, json!({"ports": [{"port": 80}]}))
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn allocator(ranges: &[&str]) -> Allocator {
    Allocator::open(Ranges { service_cidrs: nets(ranges), ..Ranges::default() }, None).0
}

fn addresses(allocator: &mut Allocator, objects: &[Object]) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
    let (given, notes) = allocator.allocate(&objects.iter().cloned().collect());
    let texts = |addresses: &Vec<IpAddr>| addresses.iter().map(ToString::to_string).collect();
    (
        given.cluster_ips.iter().map(|(name, addresses)| (name.name.clone(), texts(addresses))).collect(),
        notes.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn z2_an_address_does_not_depend_on_other_services() {
    let alone = addresses(&mut allocator(&["10.96.0.0/16"]), &[plain("web")]).0["web"].clone();
    let crowd: Vec<_> = (0..50).map(|n| plain(&format!("other-{n}"))).chain([plain("web")]).collect();
    let (given, notes) = addresses(&mut allocator(&["10.96.0.0/16"]), &crowd);
    assert_eq!((&given["web"], notes), (&alone, vec![]));
    let distinct: HashSet<_> = given.values().collect();
    assert_eq!(distinct.len(), 51);
}

#[test]
fn z2_an_address_stays_when_its_neighbours_change() {
    // Two addresses for two Services: one gets the other's place by probing.
    let mut tight = allocator(&["10.0.0.0/30"]);
    let (before, _) = addresses(&mut tight, &[plain("a"), plain("b")]);
    for name in ["a", "b"] {
        let (after, notes) = addresses(&mut tight, &[plain(name)]);
        assert_eq!((&after[name], notes), (&before[name], vec![]));
        addresses(&mut tight, &[plain("a"), plain("b")]);
    }
}

#[test]
fn z2_families() {
    let both = ["10.96.0.0/16", "fd00:96::/112"];
    let spec = |policy: &str, families: Value| {
        service("s", json!({"ports": [{"port": 80}], "ipFamilyPolicy": policy, "ipFamilies": families}))
    };
    let count = |ranges: &[&str], object: Object| {
        let (given, notes) = addresses(&mut allocator(ranges), &[object]);
        let families = given.get("s").into_iter().flatten().map(|a| if a.contains(':') { '6' } else { '4' });
        (families.collect::<String>(), notes.len())
    };
    assert_eq!(count(&both, plain("s")), ("4".to_owned(), 0));
    assert_eq!(count(&both[1..], plain("s")), ("6".to_owned(), 0));
    assert_eq!(count(&both, spec("SingleStack", json!(["IPv6"]))), ("6".to_owned(), 0));
    assert_eq!(count(&both, spec("PreferDualStack", json!([]))), ("46".to_owned(), 0));
    assert_eq!(count(&both[..1], spec("PreferDualStack", json!([]))), ("4".to_owned(), 0));
    assert_eq!(count(&both[..1], spec("RequireDualStack", json!([]))), ("4".to_owned(), 1));
    assert_eq!(count(&[], plain("s")), (String::new(), 1));
    let explicit =
        json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.7", "ipFamilyPolicy": "RequireDualStack"});
    assert_eq!(count(&both, service("s", explicit)), ("6".to_owned(), 0));
    assert_eq!(
        count(&both, service("s", json!({"ports": [{"port": 80}], "clusterIP": "None"}))),
        (String::new(), 0)
    );
}

#[test]
fn z2_explicit_addresses_are_honoured_and_conflicts_named() {
    let mut tight = allocator(&["10.0.0.0/30"]);
    let (before, _) = addresses(&mut tight, &[plain("a")]);
    let explicit = service("b", json!({"ports": [{"port": 80}], "clusterIP": before["a"][0]}));
    let (after, notes) = addresses(&mut tight, &[plain("a"), explicit.clone()]);
    assert_ne!(after["a"], before["a"]);
    assert!(
        notes[0].contains("Service default/a") && notes[0].contains("Service default/b asks for"),
        "{notes:?}"
    );

    let twice = service("c", json!({"ports": [{"port": 81}], "clusterIP": before["a"][0]}));
    let (_, notes) = addresses(&mut tight, &[explicit, twice]);
    assert!(notes[0].contains("is the address of Service default/b, too"), "{notes:?}");

    let (_, notes) =
        addresses(&mut tight, &[service("d", json!({"ports": [{"port": 81}], "clusterIP": "10.9.9.9"}))]);
    assert!(notes[0].contains("outside the service range 10.0.0.0/30"), "{notes:?}");
}

#[test]
fn z2_an_exhausted_range_is_named() {
    let (given, notes) =
        addresses(&mut allocator(&["10.0.0.0/30"]), &[plain("a"), plain("b"), plain("c"), plain("d")]);
    assert_eq!(given.len(), 2);
    assert_eq!(notes.len(), 2);
    assert!(notes[0].contains("no address left in 10.0.0.0/30"), "{notes:?}");
}

#[test]
fn z2_node_ports() {
    let node_port = |name: &str, kind: &str, port: Value| {
        service(name, json!({"type": kind, "ports": [{"port": 80, "nodePort": port}]}))
    };
    let mut allocator = allocator(&["10.96.0.0/16"]);
    let objects = [
        node_port("a", "NodePort", json!(null)),
        node_port("b", "LoadBalancer", json!(0)),
        node_port("c", "ClusterIP", json!(null)),
        node_port("d", "NodePort", json!(40000)),
        node_port("e", "NodePort", json!(30080)),
    ];
    let (given, notes) = allocator.allocate(&objects.iter().cloned().collect());
    let names: Vec<_> = given.node_ports.keys().map(|(name, _, _)| name.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(given.node_ports.values().all(|port| DEFAULT_NODE_PORTS.contains(port)));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].to_string().contains("40000 is outside the node port range 30000-32767"),
        "{}",
        notes[0]
    );

    // Somebody asks for what was given: it moves, by name.
    let taken = given.node_ports.values().next().copied().unwrap();
    let taker = node_port("z", "NodePort", json!(taken));
    let (given, notes) = allocator.allocate(&objects.into_iter().chain([taker]).collect());
    assert_ne!(given.node_ports.values().next().copied(), Some(taken));
    assert!(notes.iter().any(|note| note.object == "Service default/a"), "{notes:?}");
}

#[test]
fn z2_the_state_survives_and_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/state.json");
    let ranges = Ranges {
        service_cidrs: nets(&["10.0.0.0/29"]),
        load_balancer_pool: nets(&["192.0.2.0/29"]),
        ..Ranges::default()
    };
    let open = || Allocator::open(ranges.clone(), Some(file.clone()));
    let objects: Objects = ["a", "b", "c"]
        .into_iter()
        .map(plain)
        .chain([
            service("n", json!({"type": "NodePort", "ports": [{"port": 80, "name": "http"}]})),
            local_balancer("l", json!(null)),
        ])
        .collect();

    let (mut first, error) = open();
    assert!(error.is_none());
    let given = first.allocate(&objects).0.clone();
    first.save().unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let (mut second, error) = open();
    assert!(error.is_none());
    // A newcomer that comes first by name takes nothing from anybody.
    let crowd =
        objects.services.values().map(|s| Object::Service((**s).clone())).chain([plain("aa")]).collect();
    let again = second.allocate(&crowd).0.clone();
    for (name, addresses) in &given.cluster_ips {
        assert_eq!(again.cluster_ips.get(name), Some(addresses));
    }
    assert_eq!(given.node_ports, again.node_ports);
    assert_eq!((given.load_balancer_ips.len(), given.health_check_node_ports.len()), (1, 1));
    assert_eq!(given.load_balancer_ips, again.load_balancer_ips);
    assert_eq!(given.health_check_node_ports, again.health_check_node_ports);

    std::fs::write(&file, "{\"version\": 1, \"serv").unwrap();
    let (mut third, error) = open();
    assert!(error.unwrap().to_string().contains("corrupted"));
    assert_eq!(third.allocate(&objects).0, &given);
    third.save().unwrap();
    assert!(open().1.is_none());
}

fn balancer_allocator(service_cidrs: &[&str], pool: &[&str]) -> Allocator {
    let ranges =
        Ranges { service_cidrs: nets(service_cidrs), load_balancer_pool: nets(pool), ..Ranges::default() };
    Allocator::open(ranges, None).0
}

fn local_balancer(name: &str, health_check: Value) -> Object {
    service(
        name,
        json!({"type": "LoadBalancer", "ports": [{"port": 80}], "externalTrafficPolicy": "Local",
            "allocateLoadBalancerNodePorts": false, "healthCheckNodePort": health_check}),
    )
}

/// Load balancer addresses by Service, and what was said.
fn balanced(allocator: &mut Allocator, objects: &[Object]) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
    let (given, notes) = allocator.allocate(&objects.iter().cloned().collect());
    let texts = |addresses: &Vec<IpAddr>| addresses.iter().map(ToString::to_string).collect();
    let given = given.load_balancer_ips.iter();
    (
        given.map(|(name, addresses)| (name.name.clone(), texts(addresses))).collect(),
        notes.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn load_balancers_have_addresses_from_the_pool_that_stay() {
    let both = ["10.96.0.0/16", "fd00:96::/112"];
    let pool = ["192.0.2.0/30", "2001:db8::/112"];
    let balancer = |name: &str| service(name, json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    let dual = service(
        "dual",
        json!({"type": "LoadBalancer", "ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack"}),
    );
    let mut allocator = balancer_allocator(&both, &pool);
    let (before, notes) = balanced(&mut allocator, &[balancer("a"), dual.clone(), plain("c")]);
    assert_eq!(before.keys().collect::<Vec<_>>(), ["a", "dual"], "{notes:?}");
    assert_eq!((before["a"].len(), before["dual"].len(), notes), (1, 2, vec![]));
    assert!(before["a"][0].starts_with("192.0.2.") && before["dual"][1].starts_with("2001:db8::"));

    // A newcomer finds the pool of two used up, by name; the others stay.
    let (after, notes) = balanced(&mut allocator, &[balancer("0"), balancer("a"), dual.clone()]);
    assert_eq!(after, before);
    assert!(notes[0].contains("Service default/0") && notes[0].contains("192.0.2.0/30"), "{notes:?}");

    // Somebody else gives the address of one away: it moves, by name.
    let mut other = balancer("z");
    if let Object::Service(other) = &mut other {
        let ingress = json!([{"ip": before["a"][0]}]);
        other.status.load_balancer.ingress = serde_json::from_value(ingress).unwrap();
    }
    let (after, notes) = balanced(&mut balancer_allocator(&both, &pool), &[balancer("a"), other.clone()]);
    assert_ne!(after["a"], before["a"]);
    assert!(!after.contains_key("z") && notes.is_empty(), "{notes:?}");
    let (_, notes) = balanced(&mut allocator, &[balancer("a"), other]);
    assert!(notes[0].contains("Service default/z has") && notes[0].contains("default/a"), "{notes:?}");
}

#[test]
fn load_balancers_of_others_get_nothing_from_the_pool() {
    let other = service(
        "o",
        json!({"type": "LoadBalancer", "ports": [{"port": 80}], "loadBalancerClass": "example.org/other"}),
    );
    let mut allocator = balancer_allocator(&["10.96.0.0/16"], &["192.0.2.0/24"]);
    assert_eq!(balanced(&mut allocator, &[other]), (BTreeMap::new(), vec![]));
    let mine = service("m", json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    let mut none = balancer_allocator(&["10.96.0.0/16"], &[]);
    assert_eq!(balanced(&mut none, std::slice::from_ref(&mine)), (BTreeMap::new(), vec![]));
    let mut v6 = balancer_allocator(&["10.96.0.0/16"], &["2001:db8::/112"]);
    let (given, notes) = balanced(&mut v6, &[mine]);
    assert!(given.is_empty() && notes[0].contains("has no IPv4 range"), "{notes:?}");
}

#[test]
fn pools_are_apart_from_cluster_addresses() {
    let ranges = |pool: &str| Ranges {
        service_cidrs: nets(&["10.96.0.0/16"]),
        load_balancer_pool: nets(&[pool]),
        ..Ranges::default()
    };
    assert!(ranges("10.96.7.0/24").overlap().is_some());
    assert!(ranges("10.0.0.0/8").overlap().is_some());
    assert_eq!(ranges("192.0.2.0/24").overlap(), None);
}

#[test]
fn h1_health_check_ports_are_from_the_range_of_node_ports() {
    let ranges =
        Ranges { service_cidrs: nets(&["10.96.0.0/16"]), node_ports: 30_000..=30_001, ..Ranges::default() };
    let mut allocator = Allocator::open(ranges, None).0;
    let cluster = service(
        "c",
        json!({"type": "LoadBalancer", "ports": [{"port": 80}],
        "allocateLoadBalancerNodePorts": false}),
    );
    let objects = [local_balancer("a", json!(null)), local_balancer("b", json!(30_000)), cluster];
    let (given, notes) = allocator.allocate(&objects.iter().cloned().collect());
    let ports: Vec<_> =
        given.health_check_node_ports.iter().map(|(n, port)| (n.name.as_str(), *port)).collect();
    assert_eq!((ports, notes), (vec![("a", 30_001)], vec![]));

    let crowd = objects.into_iter().chain([local_balancer("d", json!(0))]);
    let (given, notes) = allocator.allocate(&crowd.collect());
    assert_eq!(given.health_check_node_ports.len(), 1);
    let note = notes[0].to_string();
    assert!(note.contains("Service default/d: spec.healthCheckNodePort: no port left"), "{note}");
}

#[test]
fn z2_conflicts_and_exhaustion_are_named_for_each_family() {
    let dual =
        |name: &str| service(name, json!({"ports": [{"port": 80}], "ipFamilyPolicy": "RequireDualStack"}));
    let mut tight = allocator(&["10.96.0.0/24", "fd00::/127"]);
    let (before, _) = addresses(&mut tight, &[dual("a")]);
    let (after, notes) = addresses(&mut tight, &[dual("a"), dual("b")]);
    assert_eq!((&after["a"], after["b"].len()), (&before["a"], 1));
    assert!(notes[0].contains("Service default/b") && notes[0].contains("fd00::/127"), "{notes:?}");
    let taker = service("c", json!({"ports": [{"port": 80}], "clusterIP": before["a"][1]}));
    let (after, notes) = addresses(&mut tight, &[dual("a"), taker]);
    assert_eq!(after["a"], before["a"][..1], "the other family stays");
    assert!(
        notes.iter().any(|note| note.contains("default/a") && note.contains("default/c asks for")),
        "{notes:?}"
    );
}

#[test]
fn z2_a_state_file_that_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    // A folder in place of the file.
    let (_, error) = Allocator::open(Ranges::default(), Some(folder.path().to_owned()));
    let message = error.unwrap().to_string();
    assert!(message.contains("cannot be read") && message.contains("found anew"), "{message}");
}
