//! All cases given hold, and the runner notices what does not.

use std::fs;
use std::path::Path;

use lb_tests::cases::{self, Prober, Reference, Report};

fn run(folder: &Path) -> Report {
    let mut probers: Vec<Box<dyn Prober>> = vec![Box::new(Reference::default())];
    probers.extend(cases::everywhere().expect("root, and a kernel that takes the programs"));
    cases::run(folder, None, &mut probers).unwrap()
}

#[test]
fn the_cases_given_hold() {
    let report = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"));
    let failures: Vec<_> = report.failures().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(report.rows.len(), 1090, "a row was added, or one is no longer run");
}

#[test]
fn what_is_not_known_fails() {
    let folder = tempfile::tempdir().unwrap();
    let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}}";
    let probe =
        "{name: p, from: 1.1.1.1, from_kind: external, to: 10.0.0.1, port: 80, protocol: TCP, expect: reject";
    for (name, text) in [
        ("area", "area: nonsense\n".to_owned()),
        ("key", "area: clusterip\nsurprise: 1\n".to_owned()),
        ("setting", "area: clusterip\nconfig: {surprise: 1}\nobjects: []\n".to_owned()),
        ("check", "area: topology\nchecks: [{name: c, surprise: 1}]\n".to_owned()),
        (
            "kind",
            "area: clusterip\nobjects: [{apiVersion: v1, kind: Secret, metadata: {name: s}}]\n".to_owned(),
        ),
        ("probe", format!("area: clusterip\nobjects: [{service}]\nprobes:\n- {probe}, surprise: 1}}\n")),
        (
            "verdict",
            format!("area: clusterip\nobjects: [{service}]\nprobes:\n- {probe}}}\n")
                .replace("reject", "drop"),
        ),
        ("expectation", "area: sync\nobjects: []\nchecks: [{name: c, expect_surprise: 1}]\n".to_owned()),
        ("yaml", "area: [\n".to_owned()),
    ] {
        fs::write(folder.path().join(format!("{name}.yaml")), text).unwrap();
    }
    fs::write(
        folder.path().join("good.yaml"),
        format!("area: clusterip\nobjects: [{service}]\nprobes:\n- {probe}, masquerade: false}}\n"),
    )
    .unwrap();
    let report = run(folder.path());
    let mut failed: Vec<_> = report.failures().map(|row| row.file.as_str()).collect();
    failed.dedup();
    assert_eq!(
        failed,
        [
            "area.yaml",
            "check.yaml",
            "expectation.yaml",
            "key.yaml",
            "kind.yaml",
            "probe.yaml",
            "setting.yaml",
            "verdict.yaml",
            "yaml.yaml"
        ]
    );
    assert_eq!(report.totals().0, 1);
}
