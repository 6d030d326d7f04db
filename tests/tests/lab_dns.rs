//! Names in a lab, as its pods see them. Needs root.

use std::fs;

use lb_tests::lab::{TestLab, examples};
use tempfile::TempDir;

/// What a command prints in a pod, its lines in order.
fn lines(lab: &TestLab, pod: &str, command: &[&str]) -> Vec<String> {
    let output = lab.exec(pod, command);
    assert!(
        output.status.success(),
        "{command:?} in {pod}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut lines: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Two namespaces with a pod and a Service each.
fn two_namespaces() -> TempDir {
    let folder = TempDir::new().unwrap();
    let text: String = ["default", "shop"]
        .map(|namespace| {
            format!(
                "kind: Pod\nmetadata: {{name: web, namespace: {namespace}, labels: {{app: web}}}}\n---\nkind: Service\n\
                 metadata: {{name: front, namespace: {namespace}}}\n\
                 spec: {{selector: {{app: web}}, ipFamilyPolicy: PreferDualStack, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n"
            )
        })
        .concat();
    fs::write(folder.path().join("all.yaml"), text).unwrap();
    folder
}

#[test]
fn a_name_is_that_of_the_own_namespace_first() {
    let (lab, folder) = (TestLab::new(), two_namespaces());
    lab.ok("up", &["-f", &folder.path().display().to_string()]);
    assert_eq!(
        lines(&lab, "shop/web", &["grep", "-v", "nameserver", "/etc/resolv.conf"]),
        ["options ndots:5", "search shop.svc.cluster.local svc.cluster.local cluster.local"]
    );
    for (pod, url, namespace) in [
        ("client", "http://front/", "default"),
        ("shop/web", "http://front/", "shop"),
        ("shop/web", "http://front.default/", "default"),
        ("client", "http://front.shop/", "shop"),
        ("client", "http://front.shop.svc/", "shop"),
        ("client", "http://front.shop.svc.cluster.local/", "shop"),
        ("client", "http://FRONT.shop.SVC.cluster.local./", "shop"),
    ] {
        let answer = lab.curl(pod, url).unwrap_or_else(|error| panic!("{url} from {pod}: {error}"));
        assert!(
            answer.starts_with("web ") && answer.ends_with(&format!(" {namespace}\n")),
            "{url}: {answer}"
        );
    }
    let output = lab.exec("client", &["curl", "-sS", "--max-time", "20", "http://nobody/"]);
    assert_eq!(output.status.code(), Some(6), "curl could not resolve: {output:?}");
}

#[test]
fn dns_is_a_service_over_udp_and_tcp_in_both_families() {
    let (lab, folder) = (TestLab::new(), two_namespaces());
    let folder = folder.path().display().to_string();
    lab.ok("up", &["-f", &folder, "--dns-address", "10.96.0.53,fd00:10:96::53"]);
    assert_eq!(
        lines(&lab, "client", &["grep", "nameserver", "/etc/resolv.conf"]),
        ["nameserver 10.96.0.53", "nameserver fd00:10:96::53"]
    );
    let name = "front.shop.svc.cluster.local";
    for server in ["@10.96.0.53", "@fd00:10:96::53"] {
        for transport in ["+notcp", "+tcp"] {
            let command = ["dig", "+short", "+tries=5", server, transport, name, "AAAA"];
            let answer = lines(&lab, "client", &command);
            assert!(answer.len() == 1 && answer[0].starts_with("fd00:10:96::"), "{command:?}: {answer:?}");
        }
    }
    assert_eq!(
        lines(&lab, "client", &["getent", "hosts", "10.96.0.53"]),
        ["10.96.0.53      kube-dns.kube-system.svc.cluster.local"]
    );
    // The node is no pod: it has the machine's own resolver.
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(String::from_utf8(lab.exec("node", &["cat", "/etc/resolv.conf"]).stdout).unwrap(), own);
}

#[test]
fn an_address_for_dns_that_cannot_be_is_refused() {
    let lab = TestLab::new();
    let folder = examples().join("clusterip").display().to_string();
    let complaint = lab.fails("up", &["-f", &folder, "--dns-address", "10.9.0.1"]);
    assert!(complaint.contains("DNS address 10.9.0.1: is in none of the service ranges"), "{complaint}");
}
