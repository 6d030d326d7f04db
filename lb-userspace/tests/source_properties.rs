//! Properties of the way from files to desired state: neither order nor history matters, and what is broken takes nothing
//! down.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lb_userspace::model::desired::Desired;
use lb_userspace::model::{Allocations, Interface, ModelConfig, build};
use lb_userspace::source::Source;
use proptest::prelude::*;

/// Few names, so that documents meet.
fn document() -> impl Strategy<Value = (String, String)> {
    let service = (0..6_u8, 1..4_u16, any::<bool>(), any::<bool>()).prop_map(|(name, ports, local, node_port)| {
        let policy = if local { "Local" } else { "Cluster" };
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{name}}}\nspec:\n  type: NodePort\n  clusterIP: 10.96.0.{}\n  \
             internalTrafficPolicy: {policy}\n  selector: {{app: a{}}}\n  externalIPs: [203.0.113.{}]\n  ports:\n",
            name + 1,
            name % 3,
            name % 2,
        );
        for port in 1..=ports {
            let node_port = if node_port { 30_000 + u16::from(name) * 10 + port } else { 0 };
            text += &format!("  - {{name: p{port}, port: {port}, nodePort: {node_port}}}\n");
        }
        (format!("service {name}"), text)
    });
    let slice = (0..8_u8, 0..6_u8, prop::collection::vec((0..5_u8, any::<[bool; 3]>()), 0..5)).prop_map(
        |(name, service, endpoints)| {
            let mut text = format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: e{name}, labels: \
                 {{kubernetes.io/service-name: s{service}}}}}\naddressType: IPv4\nports: [{{name: p1, port: 80}}]\nendpoints:\n"
            );
            for (address, [ready, terminating, local]) in endpoints {
                let node = if local { "here" } else { "there" };
                text += &format!(
                    "- {{addresses: [10.1.0.{address}], nodeName: {node}, conditions: {{ready: {ready}, serving: true, \
                     terminating: {terminating}}}}}\n"
                );
            }
            (format!("slice {name}"), text)
        },
    );
    let pod = (0..8_u8, 0..3_u8).prop_map(|(name, app)| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{name}, labels: {{app: a{app}}}}}\nstatus: {{podIP: 10.2.0.{name}}}\n"
        );
        (format!("pod {name}"), text)
    });
    prop_oneof![service, slice, pod]
}

fn broken() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("kind: [".to_owned()),
        Just(
            "apiVersion: v1\nkind: Service\nmetadata: {name: broken}\nspec: {ports: [{port: 0}]}\n"
                .to_owned()
        ),
        Just(
            "apiVersion: v1\nkind: Service\nmetadata: {name: s1}\nspec: {ports: [{port: http}]}\n".to_owned()
        ),
        Just("text".to_owned()),
        "[ -~\n]{0,60}",
    ]
}

fn config() -> ModelConfig {
    ModelConfig {
        node_name: "here".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            addresses: vec!["192.168.0.1/24".parse().unwrap()],
        }],
        ..ModelConfig::default()
    }
}

fn desired(source: &mut Source) -> Desired {
    build(&config(), &source.load().objects, &Allocations::default()).desired
}

fn write(folder: &Path, files: &BTreeMap<usize, Vec<String>>) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (number, documents) in files {
        fs::write(folder.join(format!("{number}.yaml")), documents.join("---\n")).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn order_and_files_do_not_matter(
        documents in prop::collection::btree_map(any::<u8>(), document(), 0..16),
        places in prop::collection::vec((any::<u16>(), 0..4_usize), 16),
    ) {
        let unique: BTreeMap<String, String> = documents.into_values().collect();
        let one = tempfile::tempdir().unwrap();
        write(one.path(), &BTreeMap::from([(0, unique.values().cloned().collect())]));
        let mut shuffled: Vec<_> = unique.values().cloned().zip(places).collect();
        shuffled.sort_by_key(|(_, (order, _))| *order);
        let mut files: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (text, (_, file)) in shuffled {
            files.entry(file).or_default().push(text);
        }
        let many = tempfile::tempdir().unwrap();
        write(many.path(), &files);
        prop_assert_eq!(desired(&mut Source::new([one.path()])), desired(&mut Source::new([many.path()])));
    }

    #[test]
    fn what_is_broken_takes_nothing_down(
        documents in prop::collection::vec(document(), 1..10),
        broken in prop::collection::vec((broken(), any::<prop::sample::Index>()), 1..4),
        truncate in any::<prop::sample::Index>(),
    ) {
        let unique: BTreeMap<String, String> = documents.into_iter().collect();
        let good: Vec<String> = unique.into_values().collect();
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &BTreeMap::from([(0, good.clone())]));
        let mut source = Source::new([folder.path()]);
        let before = source.load();
        prop_assert_eq!(&before.problems, &vec![]);

        // Each good document is followed by others, broken ones in between.
        let mut with_broken = good.clone();
        for (text, place) in broken {
            with_broken.insert(place.index(with_broken.len() + 1), text + "\n");
        }
        write(folder.path(), &BTreeMap::from([(0, with_broken)]));
        let during = source.load();
        prop_assert_eq!(&before.objects, &during.objects);

        // One good document loses its end: whatever is left of it, the others stay.
        let cut = truncate.index(good.len());
        let mut cut_short = good.clone();
        cut_short[cut] = "kind: [Service\n".to_owned();
        write(folder.path(), &BTreeMap::from([(0, cut_short)]));
        prop_assert_eq!(&before.objects, &source.load().objects);

        write(folder.path(), &BTreeMap::from([(0, good)]));
        let mended = source.load();
        prop_assert_eq!(&before, &mended);
    }

    #[test]
    fn history_does_not_matter(edits in prop::collection::vec((0..4_usize, prop::collection::vec(document(), 0..5)), 1..20)) {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Source::new([folder.path()]);
        for (file, documents) in edits {
            let path = folder.path().join(format!("{file}.yaml"));
            if documents.is_empty() {
                let _ = fs::remove_file(&path);
            } else {
                let texts: Vec<_> = documents.into_iter().map(|(_, text)| text).collect();
                fs::write(&path, texts.join("---\n")).unwrap();
            }
            let fresh = Source::new([folder.path()]).load();
            prop_assert_eq!(source.load(), fresh);
        }
    }
}
