//! The model that is kept up to date says what the one that is made of all objects says, whatever comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use lb_userspace::model::allocate::{Allocator, Ranges};
use lb_userspace::model::desired::Protocol;
use lb_userspace::model::health::Checks;
use lb_userspace::model::{Basis, Interface, Model, ModelConfig, News, build};
use lb_userspace::source::Source;
use proptest::prelude::*;

/// Services whose addresses and node ports meet, on purpose.
fn service() -> impl Strategy<Value = (String, String)> {
    let ports =
        prop::collection::btree_map(prop::sample::select(vec!["a", "b"]), (80..83_u16, 0..4_u16), 1..3);
    let sources = prop_oneof![
        2 => (0..6_u8).prop_map(|address| format!("clusterIP: 10.96.0.{address}, ")),
        1 => Just("clusterIP: None, ".to_owned()),
        3 => Just(String::new()),
    ];
    (0..5_u8, sources, ports, any::<[bool; 6]>(), 0..3_u8, 0..4_u8).prop_map(
        |(name, address, ports, [external, balanced, local, selects, affine, odd], host, app)| {
            let mut spec = address;
            if external {
                spec += &format!("externalIPs: [192.0.2.{host}, 203.0.113.{host}], ");
            }
            if balanced {
                spec += "type: LoadBalancer, externalTrafficPolicy: Local, ";
                spec += &format!("loadBalancerSourceRanges: [198.51.100.0/24], healthCheckNodePort: 3100{host}, ");
            } else if odd {
                spec += "type: NodePort, ";
            }
            if local {
                spec += "internalTrafficPolicy: Local, ";
            }
            if selects {
                spec += &format!("selector: {{app: a{app}}}, ");
            }
            if affine {
                spec += "sessionAffinity: ClientIP, ";
            }
            let ports: Vec<_> = ports
                .iter()
                .map(|(port, (number, node))| match node {
                    0 => format!("{{name: {port}, port: {number}}}"),
                    _ => format!("{{name: {port}, port: {number}, nodePort: 3000{node}}}"),
                })
                .collect();
            let algorithm = if odd { "weighted" } else { "nonsense" };
            let text = format!(
                "kind: Service\nmetadata: {{name: s{name}, annotations: {{lb.io/algorithm: {algorithm}}}}}\n\
                 spec: {{{spec}ports: [{}]}}\nstatus: {{loadBalancer: {{ingress: [{{ip: 203.0.113.{host}}}]}}}}\n",
                ports.join(", ")
            );
            (format!("service-{name}"), text)
        },
    )
}

fn slice() -> impl Strategy<Value = (String, String)> {
    let endpoints = prop::collection::vec((0..6_u8, 0..4_u8, any::<[bool; 3]>()), 0..5);
    (0..6_u8, 0..6_u8, endpoints, any::<bool>()).prop_map(|(name, service, endpoints, weighs)| {
        let endpoints: Vec<_> = endpoints
            .into_iter()
            .map(|(host, pod, [ready, here, hinted])| {
                let hints = if hinted { ", hints: {forZones: [{name: z0}]}" } else { "" };
                format!(
                    "{{addresses: [10.1.0.{host}], conditions: {{ready: {ready}}}, nodeName: {}, targetRef: {{kind: Pod, name: p{pod}}}\
                     {hints}}}",
                    if here { "here" } else { "there" }
                )
            })
            .collect();
        let weight = if weighs { ", annotations: {lb.io/weight: '7'}" } else { "" };
        let text = format!(
            "kind: EndpointSlice\nmetadata: {{name: e{name}, labels: {{kubernetes.io/service-name: s{service}}}{weight}}}\n\
             addressType: IPv4\nports: [{{name: a, port: 8080}}, {{name: b}}]\nendpoints: [{}]\n",
            endpoints.join(", ")
        );
        (format!("slice-{name}"), text)
    })
}

fn others() -> impl Strategy<Value = (String, String)> {
    let pod = (0..4_u8, 0..4_u8, any::<[bool; 2]>()).prop_map(|(name, app, [ready, weighs])| {
        let weight = if weighs { ", annotations: {lb.io/weight: '3'}" } else { "" };
        let text = format!(
            "kind: Pod\nmetadata: {{name: p{name}, labels: {{app: a{app}, x: y}}{weight}}}\n\
             status: {{podIP: 10.2.0.{name}, conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
        );
        (format!("pod-{name}"), text)
    });
    let endpoints = (0..5_u8, 0..4_u8).prop_map(|(name, host)| {
        let text = format!(
            "kind: Endpoints\nmetadata: {{name: s{name}}}\nsubsets: [{{addresses: [{{ip: 10.3.0.{host}, targetRef: {{kind: Pod, name: \
             p{host}}}}}], ports: [{{name: a, port: 9090}}]}}]\n"
        );
        (format!("endpoints-{name}"), text)
    });
    let node = (prop::sample::select(vec!["here", "there"]), 0..2_u8, 0..2_u8).prop_map(|(name, zone, range)| {
        let text = format!(
            "kind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: z{zone}}}}}\nspec: {{podCIDR: 10.{range}.0.0/16}}\n"
        );
        (format!("node-{name}"), text)
    });
    prop_oneof![4 => pod, 2 => endpoints, 1 => node]
}

/// An edit: an object's text or its removal, or another address of this node.
#[derive(Clone, Debug)]
enum Edit {
    Write(String, String),
    Remove(prop::sample::Index),
    Address(u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let object = prop_oneof![4 => service(), 4 => slice(), 3 => others()];
    prop_oneof![
        12 => object.prop_map(|(name, text)| Edit::Write(name, text)),
        3 => any::<prop::sample::Index>().prop_map(Edit::Remove),
        1 => (1..3_u8).prop_map(Edit::Address),
    ]
}

fn config(host: u8) -> ModelConfig {
    ModelConfig {
        node_name: "here".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            addresses: vec![format!("192.0.2.{host}/24").parse().unwrap()],
        }],
        protected_ports: vec![(Protocol::Tcp, 81)],
        ..ModelConfig::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_all_objects_say(edits in prop::collection::vec(prop::collection::vec(edit(), 1..4), 1..24)) {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Source::new([folder.path()]);
        let ranges = Ranges { service_cidrs: vec!["10.96.0.0/28".parse().unwrap()], ..Ranges::default() };
        let (mut allocator, _) = Allocator::open(ranges, None);
        let (mut model, mut host) = (Model::default(), 1);
        let (mut files, mut told) = (BTreeSet::new(), BTreeMap::new());
        for step in edits {
            for edit in step {
                match edit {
                    Edit::Write(name, text) => {
                        fs::write(folder.path().join(format!("{name}.yaml")), text).unwrap();
                        files.insert(name);
                    }
                    Edit::Remove(which) if !files.is_empty() => {
                        let name = files.iter().nth(which.index(files.len())).cloned().unwrap();
                        fs::remove_file(folder.path().join(format!("{name}.yaml"))).unwrap();
                        files.remove(&name);
                    }
                    Edit::Remove(_) => {}
                    Edit::Address(address) => host = address,
                }
            }
            let changes = source.look();
            let store = source.store();
            let objects = store.all();
            allocator.allocate(&objects);
            let (config, reallocated) = (config(host), allocator.reallocated());
            let basis = Basis { config: &config, store, allocations: allocator.given() };
            for (name, service) in model.update(basis, News { changes: &changes, reallocated }) {
                match service {
                    Some(service) => drop(told.insert(name, service)),
                    None => drop(told.remove(&name)),
                }
            }
            let built = build(&config, &objects, allocator.given());
            prop_assert_eq!(&model.desired(), &built.desired);
            prop_assert_eq!(model.notes().into_iter().cloned().collect::<Vec<_>>(), &built.notes[..]);
            prop_assert_eq!(model.checks(), &Checks::of(&built));
            let told: BTreeMap<_, _> = told.iter().map(|(name, service)| ((**name).clone(), (**service).clone())).collect();
            prop_assert_eq!(told, built.desired.services, "as the edits tell it");
        }
    }
}
