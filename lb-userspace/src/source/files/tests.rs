//! Paths that are merged, and changes of files taken one by one.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::source::kube::Name;

#[test]
fn pods_and_made_endpoints_are_taken_from_one_path_alone() {
    let folder = tempfile::tempdir().unwrap();
    let pod = |name: &str| {
        format!("kind: Pod\nmetadata: {{name: {name}}}\n---\nkind: Node\nmetadata: {{name: {name}}}\n")
    };
    let slice = |service: &str| {
        format!(
            "---\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {service}-1, labels: {{kubernetes.io/service-name: \
             {service}}}}}\n---\nkind: Endpoints\nmetadata: {{name: {service}}}\n"
        )
    };
    let services = "---\nkind: Service\nmetadata: {name: made}\nspec: {selector: {a: b}, ports: [{port: 80}]}\n---\n\
                    kind: Service\nmetadata: {name: written}\nspec: {ports: [{port: 80}]}\n";
    let theirs = [pod("theirs"), slice("made"), slice("written"), services.to_owned()].concat();
    for (name, text) in [("theirs", theirs), ("ours", [pod("ours"), slice("made")].concat())] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("all.yaml"), text).unwrap();
    }
    let paths = [folder.path().join("theirs"), folder.path().join("ours")];
    let names = |snapshot: &Snapshot| -> [usize; 4] {
        let objects = &snapshot.objects;
        [objects.pods.len(), objects.nodes.len(), objects.slices.len(), objects.endpoints.len()]
    };
    assert_eq!(names(&Source::new(&paths).load()), [2, 2, 2, 2]);
    let snapshot = Source::new(&paths).with_pods_from(Some(paths[1].clone())).load();
    assert_eq!(names(&snapshot), [1, 1, 2, 2]);
    assert!(snapshot.objects.pods.contains_key(&Name::new("default", "ours")));
    let snapshot = Source::new(&paths[..1]).with_pods_from(Some(paths[1].clone())).load();
    assert_eq!(names(&snapshot), [0, 0, 1, 1]);
    assert!(snapshot.objects.slices.contains_key(&Name::new("default", "written-1")));
}

#[test]
fn later_paths_win_whatever_their_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, label) in [("z", "first"), ("a", "second")] {
        let text = format!("kind: Pod\nmetadata: {{name: p, labels: {{from: {label}}}}}\nspec: {{}}\n");
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("pod.yaml"), text).unwrap();
    }
    let snapshot = Source::new([folder.path().join("z"), folder.path().join("a")]).load();
    let labels: Vec<_> = snapshot.objects.pods.values().map(|pod| &pod.metadata.labels["from"]).collect();
    assert_eq!(labels, ["second"]);
    assert_eq!(snapshot.problems.len(), 1);
}

/// A document about one of few objects, good or broken.
fn document() -> impl Strategy<Value = String> {
    let service = (0..4_u8, 1..4_u8).prop_map(|(name, port)| {
        format!("kind: Service\nmetadata: {{name: s{name}}}\nspec: {{selector: {{a: b}}, ports: [{{port: {port}}}]}}\n")
    });
    let slice = (0..4_u8, 0..4_u8).prop_map(|(name, service)| {
        format!(
            "kind: EndpointSlice\nmetadata: {{name: e{name}, labels: {{kubernetes.io/service-name: s{service}}}}}\naddressType: IPv4\n"
        )
    });
    let pod = (0..4_u8, 0..3_u8).prop_map(|(name, label)| {
        format!("kind: Pod\nmetadata: {{name: p{name}, labels: {{a: v{label}}}}}\n")
    });
    let broken = prop_oneof![
        (0..4_u8).prop_map(|name| format!(
            "kind: Service\nmetadata: {{name: s{name}}}\nspec: {{ports: [{{port: 0}}]}}\n"
        )),
        Just("kind: [\n".to_owned()),
    ];
    prop_oneof![8 => service, 8 => slice, 8 => pod, 1 => broken]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two sources see the same edits: one is told which files changed, the other looks at all of them and puts them together anew.
    #[test]
    fn files_taken_one_by_one_are_as_good_as_all(
        edits in prop::collection::vec(prop::collection::vec((0..4_usize, prop::collection::vec(document(), 0..4)), 1..3), 1..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Source::new([folder.path()]);
        let mut looking = Source::new([folder.path()]);
        let mut known: BTreeMap<Digest, Packed> = BTreeMap::new();
        for edit in edits {
            let mut seen = Seen::default();
            for (file, documents) in edit {
                let path = folder.path().join(format!("{file}.yaml"));
                if documents.is_empty() {
                    let _absent = fs::remove_file(&path);
                } else {
                    fs::write(&path, documents.join("---\n")).unwrap();
                }
                seen.files.insert(path);
            }
            for change in told.refresh_after(seen, Vec::new()) {
                let either = change.after.as_ref().or(change.before.as_ref());
                let id = Digest::of_key(&either.unwrap().unpack().unwrap().key());
                prop_assert_eq!(known.get(&id), change.before.as_ref());
                match change.after {
                    Some(after) => drop(known.insert(id, after)),
                    None => drop(known.remove(&id)),
                }
            }
            looking.is_plain = false;
            let all = looking.load();
            prop_assert_eq!(told.store().all(), (*all.objects).clone());
            prop_assert_eq!(told.problems(), &all.problems[..]);
            let known: Objects = known.values().filter_map(Packed::unpack).collect();
            prop_assert_eq!(known, (*all.objects).clone(), "as the changes tell it");
        }
    }
}
