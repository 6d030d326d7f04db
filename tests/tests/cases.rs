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
fn our_own_cases_hold() {
    let report = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases-own"));
    let failures: Vec<_> = report.failures().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(report.rows.len(), 367, "a row was added, or one is no longer run");
}

/// Each row would hold if one word in it were another.
#[test]
fn what_is_wrong_fails() {
    let late = "events: [{at: 0, updated: IPv4}, {at: 1, queued: IPv4}], at: 11";
    let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: n, name: s-1, labels: \
                 {kubernetes.io/service-name: s}}, addressType: IPv4, ports: [{name: p, port: 80}], \
                 endpoints: [{addresses: [10.0.0.1]}]}";
    let rows = [
        ("healthcheck", format!("{late}, expect: {{status: 200}}")),
        ("healthcheck", format!("{late}, expect: {{healthy: true}}")),
        ("healthcheck", format!("{late}, expect: {{last_updated_s: 11}}")),
        ("healthcheck", format!("{late}, expect: {{families_healthy: {{IPv4: true}}}}")),
        ("healthcheck", format!("{late}, expect: {{families_healthy: {{IPv6: true}}}}")),
        ("healthcheck", format!("{late}, expect: {{status: 503, surprise: 1}}")),
        ("healthcheck", format!("{late}, surprise: 1, expect: {{status: 503}}")),
        ("healthcheck", "at: 1, events: [exploded IPv4], expect: {status: 200}".to_owned()),
        ("healthcheck", "at: 1, node: deleted, expect: {status: 200}".to_owned()),
        ("healthcheck", "at: 1, node: deleted, path: /livez, expect: {status: 503}".to_owned()),
        ("endpoints", "ops: [{op: add, service: n/s, time: 1}], expect: {n/s: [2]}".to_owned()),
        ("endpoints", "ops: [{op: add, service: n/s, time: 1}], expect: {}".to_owned()),
        ("endpoints", "ops: [{op: explode, service: n/s, time: 1}], expect: {}".to_owned()),
        ("slices", format!("event: add, slice: {slice}, expect_changed: false")),
        ("slices", format!("event: add, slice: {slice}, expect_changed: true, expect_after: {{}}")),
        ("slices", format!("event: remove, slice: {slice}, expect_changed: true")),
        ("slices", format!("event: add, slice: {slice}")),
        ("slices", format!("already_applied: [], pending: [{slice}], expect: null")),
        (
            "slices",
            format!(
                "already_applied: [{slice}], pending: [], expect: {{previous: {{}}, current: {{}}, x: 1}}"
            ),
        ),
        ("addresses", "nodeport_addresses: [], expect: false".to_owned()),
        ("servicecidr", "ip_family: IPv4, service_cidrs: [10.0.0.0/8], expect: []".to_owned()),
        ("overall", "expect_frontends: ['10.0.0.1:80/TCP']".to_owned()),
        ("overall", "note: nothing is expected".to_owned()),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (number, (area, row)) in rows.iter().enumerate() {
        let text = format!("area: {area}\nchecks:\n- {{name: row, {row}}}\n");
        fs::write(folder.path().join(format!("{number:02}.yaml")), text).unwrap();
    }
    let mut probers: Vec<Box<dyn Prober>> = vec![Box::new(Reference::default())];
    let report = cases::run(folder.path(), None, &mut probers).unwrap();
    let passed: Vec<_> =
        report.rows.iter().filter(|row| row.failure.is_none()).map(ToString::to_string).collect();
    assert!(passed.is_empty(), "{}", passed.join("\n"));
    assert_eq!(report.rows.len(), rows.len());
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
    assert_eq!(report.totals().0, 5, "the good row, by the reference and by the engine in its four places");
}
