//! What people have at hand is good for a lab as it is: what kubectl printed, manifests of others. Needs root.

use std::fs;
use std::path::{Path, PathBuf};

use lb_tests::lab::{TestLab, lb_program};

fn input(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab_input").join(name)
}

/// Brings a lab up; what it says besides the table.
fn up(lab: &TestLab, input: &Path) -> String {
    let output = lab.lb("up", &["-f", &input.display().to_string()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// Frontends of a Service as `lb get services` has them, without the counters.
fn frontends(lab: &TestLab, service: &str) -> Vec<String> {
    let program = lb_program();
    let output = lab.exec("node", &[&program.to_string_lossy(), "get", "services", "--service", service]);
    let text = String::from_utf8(output.stdout).unwrap();
    let columns = |line: &str| line.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ");
    text.lines().skip(1).map(columns).collect()
}

#[test]
fn what_kubectl_printed_of_another_cluster() {
    let lab = TestLab::new();
    let said = up(&lab, &input("kubectl-get.yaml"));
    assert_eq!(
        said,
        "note: left out, as the lab has no pods on the node's own network: Pod kube-system/kube-proxy-w8z5n\n"
    );
    // As many pods as the Deployments ask for, and one that nothing here asks for; none that has ended.
    let names: Vec<String> = lab.pods("").into_iter().map(|pod| pod.name).collect();
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    assert_eq!(
        (count("cart-"), count("web-"), count("logs-7hq2c"), count("client")),
        (2, 1, 1, 1),
        "{names:?}"
    );
    assert_eq!(names.len(), 5, "{names:?}");
    // Commands are those of images.
    assert!(!Path::new("/tmp/this-must-not-run-on-the-host").exists());
    for pod in lab.pods("cart-") {
        assert!(pod.v4.starts_with("10.244.0."), "{pod:?}");
        assert_eq!(pod.pids.len(), 1);
    }
    // The addresses that the cluster gave are kept, and the lab's pods answer there, not those of the cluster.
    assert_eq!(frontends(&lab, "shop/cart"), ["ClusterIP 10.43.71.8:80/TCP"]);
    let web = frontends(&lab, "shop/web");
    assert_eq!(web[0], "ClusterIP 10.43.9.200:80/TCP");
    assert!(web.contains(&"LoadBalancer 192.0.2.80:80/TCP".to_owned()), "{web:?}");
    for (from, url, pod) in [
        ("client", "http://10.43.71.8/", "cart-"),
        ("client", "http://10.43.9.200/", "web-"),
        ("outside", "http://192.0.2.80/", "web-"),
        ("outside", "http://172.31.255.1:31234/", "web-"),
    ] {
        for _ in 0..3 {
            let answer = lab.curl(from, url).unwrap_or_else(|error| panic!("{url} from {from}: {error}"));
            assert!(answer.starts_with(pod) && answer.ends_with(" shop\n"), "{url}: {answer}");
        }
    }
}

#[test]
fn manifests_of_others_with_much_that_is_none_of_our_business() {
    let lab = TestLab::new();
    assert_eq!(up(&lab, &input("third-party.yaml")), "");
    let pods = lab.pods("guestbook-");
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].labels["tier"], "frontend", "{:?}", pods[0].labels);
    assert_eq!(pods[0].labels["app.kubernetes.io/instance"], "release");
    assert_eq!(frontends(&lab, "").iter().filter(|f| f.ends_with(":80/TCP")).count(), 1);
    let address = frontends(&lab, "default/guestbook")[0].replace("ClusterIP ", "").replace("/TCP", "");
    assert!(lab.curl("client", &format!("http://{address}/")).unwrap().starts_with("guestbook-"));
    // Nor has the agent anything to say.
    let log = fs::read_to_string(format!("/run/lb/lab/{}/agent.log", lab.name())).unwrap();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
