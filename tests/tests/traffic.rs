//! Ordinary programs through a Service, at every hook and in both families: curl to nginx, iperf3, socat, ping. Needs
//! root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use lb_tests::patience::wait_for;
use lb_tests::scene::{Scene, text, url};
use serde_json::Value;
use tempfile::TempDir;

/// Addresses of the services in [`manifests`].
const WEB: [&str; 2] = ["10.96.0.80", "fd00:10:96::80"];
const ECHO: [&str; 2] = ["10.96.0.7", "fd00:10:96::7"];
const IPERF: [&str; 2] = ["10.96.0.52", "fd00:10:96::52"];
/// Addresses of the lab's node.
const NODE: [&str; 2] = ["172.31.255.1", "fd00:172:31::1"];
/// Bytes of the file that the web servers have.
const FILE: usize = 5_000_000;
/// Bytes that iperf3 transfers each way.
const BULK: u64 = 50_000_000;

/// More than both sockets' buffers of 128 KiB hold, doubled as the kernel does.
const ON_ITS_WAY: u64 = 1_000_000;

/// What nginx says: its own address as dialled, and who dialled. Paths are relative to the pod's folder.
const NGINX: &str = "\
daemon off; master_process off; pid nginx.pid; error_log stderr;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  default_type text/plain;
  server {
    listen 8080 backlog=4096; listen [::]:8080 backlog=4096;
    root ..;
    location = / { return 200 \"$server_addr $remote_addr\\n\"; }
  }
}
";

/// Three web servers behind port 80, echo servers, and iperf3.
fn manifests(nginx: &Path) -> TempDir {
    let folder = TempDir::new().unwrap();
    let service = |name: &str, [v4, v6]: [&str; 2], ports: &str| {
        format!(
            "kind: Service\nmetadata: {{name: {name}}}\nspec: {{ipFamilyPolicy: RequireDualStack, selector: {{app: {name}}}, \
             clusterIPs: ['{v4}', '{v6}'], ports: [{ports}]}}\n---\n"
        )
    };
    let nginx = nginx.display();
    let text = [
        service("web", WEB, "{port: 80, targetPort: 8080}"),
        service("echo", ECHO, "{name: tcp, port: 7}, {name: udp, port: 7, protocol: UDP}"),
        service("iperf", IPERF, "{name: tcp, port: 5201}, {name: udp, port: 5201, protocol: UDP}"),
        format!(
            "kind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 3\n  selector: {{matchLabels: {{app: web}}}}\n  \
             template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      containers:\n      - name: nginx\n        \
             command: [sh, -c]\n        args: ['mkdir {nginx}/$HOSTNAME && exec nginx -p {nginx}/$HOSTNAME \
             -c {nginx}/nginx.conf']\n---\n"
        ),
        "kind: Pod\nmetadata: {name: echo, labels: {app: echo}}\nspec:\n  containers:\n  \
         - {name: tcp, command: [socat, 'TCP6-LISTEN:7,fork,reuseaddr,ipv6only=0', 'EXEC:cat']}\n  \
         - {name: udp, command: [socat, 'UDP6-RECVFROM:7,fork,ipv6only=0', PIPE]}\n---\n"
            .to_owned(),
        "kind: Pod\nmetadata: {name: iperf, labels: {app: iperf}}\nspec:\n  containers:\n  \
         - {name: iperf, command: [iperf3, -s]}\n---\n"
            .to_owned(),
    ];
    fs::write(folder.path().join("all.yaml"), text.concat()).unwrap();
    folder
}

/// All of it, up and answering.
struct Stage {
    scene: Scene,
    file: Vec<u8>,
    _folders: [TempDir; 2],
}

impl Stage {
    fn new(hook: &str) -> Self {
        let nginx = TempDir::new().unwrap();
        fs::write(nginx.path().join("nginx.conf"), NGINX).unwrap();
        let file = noise(FILE);
        fs::write(nginx.path().join("file"), &file).unwrap();
        let manifests = manifests(nginx.path());
        let scene = Scene::new(manifests.path(), hook);
        for pod in scene.pods("") {
            let port = match pod.name.split('-').next() {
                Some("web") => 8080,
                Some("echo") => 7,
                Some("iperf") => 5201,
                _ => continue,
            };
            // Not by a connection: iperf3 would take it for a client.
            let filter = format!("sport = :{port}");
            wait_for(&format!("{} to listen", pod.name), || {
                !scene.ok(&pod.name, &["ss", "-Hltn", &filter]).is_empty()
            });
        }
        Self { scene, file, _folders: [nginx, manifests] }
    }

    /// Addresses of the web servers, of the family of this one.
    fn web(&self, like: &str) -> Vec<&str> {
        let v6 = like.contains(':');
        self.scene
            .pods("web-")
            .into_iter()
            .map(|pod| if v6 { pod.v6.as_str() } else { pod.v4.as_str() })
            .collect()
    }

    fn client_address(&self, like: &str) -> &str {
        let pod = self.scene.pod("client");
        if like.contains(':') { &pod.v6 } else { &pod.v4 }
    }
}

fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// An address as socat has it.
fn socat(protocol: &str, address: &str) -> String {
    match address.parse().unwrap() {
        IpAddr::V4(address) => format!("{protocol}4:{address}:7"),
        IpAddr::V6(address) => format!("{protocol}6:[{address}]:7"),
    }
}

/// Bytes without a pattern (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// How often each line occurs.
fn tally(lines: &str) -> BTreeMap<&str, usize> {
    let mut tally = BTreeMap::new();
    for line in lines.lines() {
        *tally.entry(line).or_default() += 1;
    }
    tally
}

/// 300 connections one after the other: each server has 100, within the number of CPUs (S1), and sees the client's own
/// address (A1).
fn round_robin(stage: &Stage, vip: &str) {
    let requests = url(vip, "/?[1-300]");
    let said = stage.scene.ok("client", &["curl", "-sSf", "-m10", "-HConnection: close", &requests]);
    let client = stage.client_address(vip);
    let cpus = thread::available_parallelism().unwrap().get();
    let tally = tally(&said);
    for server in stage.web(vip) {
        let count = tally.get(format!("{server} {client}").as_str()).copied().unwrap_or(0);
        assert!(count.abs_diff(100) <= cpus, "{server} had {count} of 300: {tally:?}");
    }
    assert_eq!(tally.values().sum::<usize>(), 300, "{tally:?}");
}

/// 200 more short ones in sequence, which with [`round_robin`] makes 500, then 200 more, 50 at once.
fn many_connections(stage: &Stage, vip: &str) {
    let curl = |more: &[&str], requests: &str| {
        let requests = url(vip, requests);
        let base = ["curl", "-sSf", "-m10", "-HConnection: close", "-w", "%{num_connects} %{http_code}\\n"];
        stage.scene.ok("client", &[&base[..], more, &[&requests]].concat())
    };
    for (more, requests, count) in [
        (&[][..], "/?[1-200]", 200),
        (&["--parallel", "--parallel-immediate", "--parallel-max", "50"], "/?[1-200]", 200),
    ] {
        let said = curl(more, requests);
        let successes = said.lines().filter(|line| *line == "1 200").count();
        assert_eq!(successes, count, "{said}");
    }
}

/// A download, and an upload that comes back, byte for byte.
fn integrity(stage: &Stage, web: &str, echo: &str) {
    let request = url(web, "/file");
    let output = stage.scene.run("client", &["curl", "-sSf", "-m20", &request]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout == stage.file, "curl got {} bytes, not the file", output.stdout.len());

    let mut command = stage.scene.command("client", &["socat", "-t10", "-T20", "-", &socat("TCP", echo)]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let (output, written) = thread::scope(|scope| {
        let writer = scope.spawn(move || input.write_all(&stage.file));
        (child.wait_with_output().unwrap(), writer.join().unwrap())
    });
    let said = text(&output.stderr);
    assert!(output.status.success() && written.is_ok(), "{written:?} {}: {said}", output.status);
    assert!(
        output.stdout == stage.file,
        "socat got {} bytes back, not the file: {said}",
        output.stdout.len()
    );
}

/// What iperf3 reports. Its server takes one test after the other, and a client ends before it is done with the last.
fn iperf3(stage: &Stage, command: &[&str]) -> Value {
    let mut report = Value::Null;
    wait_for("iperf3's server to be done with the test before", || {
        let output = stage.scene.run("client", command);
        report = serde_json::from_slice(&output.stdout).unwrap();
        let error = report["error"].as_str().unwrap_or_default();
        let busy = error.contains("the server is busy");
        // With -J, iperf3 3.12 leaves with 0 also when it failed.
        assert!(busy || (output.status.success() && error.is_empty()), "{command:?}: {error}");
        !busy
    });
    report
}

/// Both ways, over TCP, and datagrams of nearly a packet's size. The window bounds what is on its way when iperf3 ends
/// the test, which it does not count as received.
fn bulk(stage: &Stage, vip: &str) {
    for (more, least) in [
        (&["-n", "50M", "-w", "128K"][..], BULK - ON_ITS_WAY),
        (&["-n", "50M", "-w", "128K", "-R"], BULK - ON_ITS_WAY),
        (&["-u", "-b", "20M", "-l", "1400", "-n", "1M"], 1_000_000),
    ] {
        let command = [&["iperf3", "-J", "--connect-timeout", "5000", "-c", vip][..], more].concat();
        let report = iperf3(stage, &command);
        let end = &report["end"];
        if more[0] == "-u" {
            let (sent, lost) = (&end["sum"]["packets"], &end["sum"]["lost_packets"]);
            let bytes = end["sum"]["bytes"].as_u64().unwrap();
            // A busy machine loses some in the receiver's buffer; what does not come through at all is lost whole.
            assert!(bytes >= least && lost.as_u64().unwrap() * 2 < sent.as_u64().unwrap(), "{end}");
        } else {
            let received = end["sum_received"]["bytes"].as_u64().unwrap();
            assert!(received >= least, "{more:?}: {received} bytes of {least}");
        }
    }
}

/// A datagram and its answer. The kernel hands socat's connected socket only what comes from the VIP.
fn datagrams(stage: &Stage, vip: &str) {
    for message in ["ping", "pong and more"] {
        let script = format!("printf '{message}' | socat -t1 -T2 - {},shut-none", socat("UDP", vip));
        assert_eq!(stage.scene.ok("client", &["sh", "-c", &script]), message);
    }
}

fn programs_work(hook: &str) {
    let stage = Stage::new(hook);
    for family in [0, 1] {
        let (web, echo, iperf) = (WEB[family], ECHO[family], IPERF[family]);
        round_robin(&stage, web);
        many_connections(&stage, web);
        integrity(&stage, web, echo);
        datagrams(&stage, echo);
        bulk(&stage, iperf);
    }
    not_ours(&stage);
}

#[test]
fn programs_work_through_tc() {
    programs_work("tc");
}

#[test]
fn programs_work_through_native_xdp() {
    programs_work("xdp");
}

#[test]
fn programs_work_through_generic_xdp() {
    programs_work("xdp-generic");
}

/// Counters of an interface that have grown since.
fn grown(scene: &Scene, interface: &str, before: &[(String, u64)]) -> Vec<(String, u64)> {
    let old =
        |name: &str| before.iter().find(|(reason, _)| reason == name).map_or(0, |(_, packets)| *packets);
    let now = scene.counters(interface).into_iter();
    now.map(|(name, packets)| (name.clone(), packets - old(&name)))
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

/// The counter of ICMP echo to other addresses than ClusterIPs: no Service has that protocol.
fn ping(packets: u64) -> (String, u64) {
    ("other-protocol".to_owned(), packets)
}

/// Pod to pod, pod to node, ping, ARP: passed on, and every packet counted as such (V8).
fn not_ours(stage: &Stage) {
    let scene = &stage.scene;
    let (client, web) = (scene.pod("client"), scene.pod("web-"));
    let both = [&client.interface, &web.interface];
    for (to, node) in [(&web.v4, NODE[0]), (&web.v6, NODE[1])] {
        let before = both.map(|interface| scene.counters(interface));
        let said = scene.ok("client", &["ping", "-n", "-c5", "-i0.01", "-W2", "-p", "a55a", to]);
        assert!(said.contains("5 received") && !said.contains("wrong data"), "{said}");
        for (interface, before) in both.iter().zip(&before) {
            assert_eq!(grown(scene, interface, before), [ping(5)], "ping {to}: {interface}");
        }

        let before = scene.counters(&client.interface);
        scene.ok("client", &["ping", "-n", "-c5", "-i0.01", "-W2", node]);
        assert_eq!(grown(scene, &client.interface, &before), [ping(5)], "ping {node}");

        let before = both.map(|interface| scene.counters(interface));
        let direct = format!("http://{}/", socket(to, 8080));
        let said = scene.ok("client", &["curl", "-sSf", "-m5", "-HConnection: close", &direct]);
        assert_eq!(said, format!("{to} {}\n", stage.client_address(to)));
        for (interface, before) in both.iter().zip(&before) {
            let grown = grown(scene, interface, before);
            assert!(matches!(&grown[..], [(reason, 3..)] if reason == "not-ours"), "{interface}: {grown:?}");
        }
    }
    // A subnet of its own on the client's wire, so that somebody asks for a hardware address.
    scene.ok("node", &["ip", "address", "add", "192.0.2.1/24", "dev", &client.interface]);
    scene.ok("client", &["ip", "address", "add", "192.0.2.2/24", "dev", "eth0"]);
    let before = scene.counters(&client.interface);
    scene.ok("client", &["ping", "-n", "-c2", "-i0.01", "-W2", "192.0.2.1"]);
    let seen = grown(scene, &client.interface, &before);
    let count =
        |reason: &str| seen.iter().find(|(name, _)| name == reason).map_or(0, |(_, packets)| *packets);
    // The request, and perhaps the answer to the node's own question.
    assert!((1..=2).contains(&count("not-ip")) && count(&ping(2).0) == 2 && seen.len() == 2, "{seen:?}");
    wait_for("the neighbour", || {
        let known = scene.ok("client", &["ip", "neighbour", "show", "192.0.2.1"]);
        known.contains("REACHABLE") || known.contains("DELAY") || known.contains("STALE")
    });
}
