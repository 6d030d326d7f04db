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

fn allocator(ranges: &[&str]) -> Allocator {
    let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Allocator::open(&ranges, DEFAULT_NODE_PORTS, None).0
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
    let ranges = ["10.0.0.0/29".parse().unwrap()];
    let open = || Allocator::open(&ranges, DEFAULT_NODE_PORTS, Some(file.clone()));
    let objects: Objects = ["a", "b", "c"]
        .into_iter()
        .map(plain)
        .chain([service("n", json!({"type": "NodePort", "ports": [{"port": 80, "name": "http"}]}))])
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

    std::fs::write(&file, "{\"version\": 1, \"serv").unwrap();
    let (mut third, error) = open();
    assert!(error.unwrap().to_string().contains("corrupted"));
    assert_eq!(third.allocate(&objects).0, &given);
    third.save().unwrap();
    assert!(open().1.is_none());
}
