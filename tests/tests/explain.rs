//! An agent in a network namespace of its own is asked: by `lb explain --live`, and by health checks (H1, H2). Needs root.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lb_tests::lab::lb_program;
use serde_json::Value;

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  externalTrafficPolicy: Local
  healthCheckNodePort: 31234
  ports: [{name: http, port: 80, nodePort: 30080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.10}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.244.0.11], nodeName: n1}
  - {addresses: [10.244.0.12], nodeName: n1}
  - {addresses: [10.244.0.13], nodeName: n2}
---
apiVersion: v1
kind: Service
metadata: {name: random, annotations: {lb.io/algorithm: random}}
spec: {clusterIP: 10.96.0.11, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: random-1, labels: {kubernetes.io/service-name: random}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.11]}, {addresses: [10.244.0.12]}, {addresses: [10.244.0.13]}]
"#;

/// A namespace with one interface and an agent. Removed when dropped.
struct Node {
    name: String,
    folder: tempfile::TempDir,
    agent: Option<Child>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ip(arguments: &str) {
    let output =
        Command::new("ip").args(arguments.split(' ')).output().expect("ip (package iproute2) is needed");
    assert!(output.status.success(), "ip {arguments}: {}", text(&output.stderr));
}

impl Node {
    fn new(hook: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and needs root");
        let name = format!("lbx{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut node = Self { name, folder: tempfile::tempdir().unwrap(), agent: None };
        let name = &node.name;
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link add v0 type veth peer name v1"));
        ip(&format!("-n {name} address add 192.0.2.5/24 dev v0"));
        ip(&format!("-n {name} link set v0 up"));
        ip(&format!("-n {name} link set v1 up"));
        ip(&format!("-n {name} route add default via 192.0.2.1"));
        node.write(MANIFESTS);
        let ready = node.folder.path().join("ready");
        let mut agent = node.lb("run");
        agent.args(["--iface", "v0", "--hook", hook, "--healthz", "127.0.0.1:9440"]);
        agent.arg("--state-file").arg(node.folder.path().join("state.json"));
        agent.arg("--ready-file").arg(&ready);
        node.agent = Some(agent.stderr(Stdio::null()).spawn().unwrap());
        wait("the agent is ready", || ready.exists());
        node
    }

    fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    fn write(&self, manifests: &str) {
        fs::create_dir_all(self.manifests()).unwrap();
        fs::write(self.manifests().join("all.yaml"), manifests).unwrap();
    }

    /// A command in the namespace. (`ip netns exec` would hide the BPF file system.)
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// `lb VERB` with what the agent and its explanation have in common.
    fn lb(&self, verb: &str) -> Command {
        let mut command = self.inside(lb_program().to_str().unwrap());
        command.arg(verb).arg("--manifests").arg(self.manifests());
        command.args(["--node-name", "n1", "--pod-cidr", "10.244.0.0/16"]);
        command.arg("--pin-dir").arg(format!("/sys/fs/bpf/{}", self.name));
        command
    }

    fn explain(&self, words: &str) -> Output {
        self.lb("explain").args(["--live", "--output", "json"]).args(words.split(' ')).output().unwrap()
    }

    /// Status and body of an answer over HTTP, read by curl.
    fn curl(&self, url: &str) -> Option<(String, String)> {
        let mut curl = self.inside("curl");
        let output = curl.args(["-sS", "-m", "5", "-D", "-", url]).output().expect("curl is needed");
        let answer = text(&output.stdout).replace('\r', "");
        let (head, body) = answer.split_once("\n\n").filter(|_| output.status.success())?;
        Some((head.to_lowercase(), body.to_owned()))
    }

    fn status(&self, url: &str) -> Option<String> {
        Some(self.curl(url)?.0.split(' ').nth(1)?.to_owned())
    }

    fn table(&self, name: &str) -> String {
        let mut get = self.inside(lb_program().to_str().unwrap());
        get.args(["get", name, "--output", "json"])
            .arg("--pin-dir")
            .arg(format!("/sys/fs/bpf/{}", self.name));
        text(&get.output().unwrap().stdout)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _gone = agent.kill();
            let _gone = agent.wait();
        }
        let mut detach = self.inside(lb_program().to_str().unwrap());
        detach.arg("detach").arg("--pin-dir").arg(format!("/sys/fs/bpf/{}", self.name));
        let _tried = detach.output();
        let _tried = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn agrees(hook: &str, program: &str) {
    let node = Node::new(hook);
    let (backends, flows) = (node.table("backends"), node.table("flows"));
    for (question, reason) in [
        ("10.244.0.99 web", "new-flow"),
        ("10.244.0.11 web", "new-flow"),
        ("198.51.100.7 192.0.2.5:30080", "new-flow"),
        ("10.244.0.99 random", "new-flow"),
        ("10.244.0.99 web:81", "rejected-port"),
        ("10.244.0.99 web/ICMP", "ping"),
        ("10.244.0.99 10.96.7.7:80", "drop-unowned"),
        ("198.51.100.7 web", "drop-external"),
        ("10.244.0.99 web --external", "drop-external"),
        ("10.244.0.99 web --mid-flow", "reset-mid-flow"),
        ("10.244.0.99 192.0.2.77:80", "not-ours"),
    ] {
        let output = node.explain(question);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{question}: {err} {out}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["verdict"]["reason"], reason, "{question}");
        assert_eq!(answer["live"]["agree"], true, "{question}");
        assert_eq!(answer["live"]["pending_operations"], 0, "{question}");
        assert_eq!(answer["live"]["programs"][0]["program"], program, "{question}");
    }
    // Nothing of this has left a trace.
    assert_eq!((node.table("backends"), node.table("flows")), (backends, flows));
}

#[test]
fn explanation_and_kernel_agree_at_tc() {
    agrees("tc", "lb_tc_ingress");
}

#[test]
fn explanation_and_kernel_agree_at_xdp() {
    agrees("xdp-generic", "lb_xdp");
}

#[test]
fn a_difference_is_found_and_told_by_the_exit_code() {
    let mut node = Node::new("tc");
    // The kernel goes on with what the agent knew last.
    let mut agent = node.agent.take().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    node.write(&MANIFESTS.replace("10.244.0.1", "10.244.0.2"));
    let output = node.explain("10.244.0.99 web");
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(answer["live"]["agree"], false);
    assert!(answer["live"]["pending_operations"].as_u64().unwrap() > 0);
    let fields = answer["live"]["programs"][0]["fields"].as_array().unwrap();
    let differing: Vec<_> = fields.iter().filter(|field| field["agree"] == false).collect();
    assert_eq!(differing.len(), 1);
    assert_eq!(differing[0]["name"], "destination");
    assert!(differing[0]["kernel"].as_str().unwrap().starts_with("10.244.0.1"));
    assert!(differing[0]["manifests"].as_str().unwrap().starts_with("10.244.0.2"));
}

#[test]
fn h1_h2_health_checks_follow_the_manifests() {
    let node = Node::new("tc");
    for page in ["healthz", "livez", "readyz"] {
        assert_eq!(node.status(&format!("http://127.0.0.1:9440/{page}")).as_deref(), Some("200"), "{page}");
    }
    let url = "http://192.0.2.5:31234/";
    let (head, body) = node.curl(url).expect("the health check answers");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("x-load-balancing-endpoint-weight: 2"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["service"], serde_json::json!({"namespace": "default", "name": "web"}));
    assert_eq!(body["localEndpoints"], 2);
    assert_eq!(body["serviceProxyHealthy"], true);
    // Only on the address that serves node ports (F6).
    assert_eq!(node.status("http://127.0.0.1:31234/"), None);
    // Nobody is left here.
    node.write(&MANIFESTS.replace("nodeName: n1", "nodeName: n2"));
    wait("nobody is ready here", || node.status(url).as_deref() == Some("503"));
    // The Service is gone.
    node.write("");
    wait("the port is closed", || node.curl(url).is_none());
}
