//! DNS from end to end: the agent answers on addresses of the node, and clients ask a ClusterIP in front of them, by UDP and
//! TCP, with programs that people use.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use lb_tests::node::{Agent, TestNode};
use lb_tests::patience::wait_for;

/// The ClusterIP that pods ask.
const VIP: &str = "10.96.0.53";
/// The same, IPv6.
const VIP6: &str = "fd00:96::53";
/// Where the agent listens: addresses of the node.
const LISTEN: &str = "172.31.0.1";
const LISTEN6: &str = "fd00:31::1";

const DNS_SERVICE: &str = "
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIPs: [10.96.0.53, 'fd00:96::53']
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: RequireDualStack
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]
---
kind: EndpointSlice
metadata: {name: kube-dns-4, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]
endpoints: [{addresses: [172.31.0.1]}]
---
kind: EndpointSlice
metadata: {name: kube-dns-6, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv6
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]
endpoints: [{addresses: ['fd00:31::1']}]
";

/// A headless Service of 60 pods: more than a datagram holds. Another Service, in another namespace.
fn more_services() -> String {
    let endpoints: Vec<_> =
        (1..=60).map(|last| format!("{{addresses: [10.244.0.{last}], hostname: pod-{last}}}")).collect();
    format!(
        "kind: Service\nmetadata: {{name: many}}\nspec: {{clusterIP: None, ports: [{{name: http, port: 80}}]}}\n---\n\
         kind: EndpointSlice\nmetadata: {{name: many-1, labels: {{kubernetes.io/service-name: many}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 80}}]\nendpoints: [{}]\n---\n\
         kind: Service\nmetadata: {{name: other, namespace: elsewhere}}\n\
         spec: {{clusterIP: 10.96.7.7, ports: [{{port: 80}}]}}\n",
        endpoints.join(", ")
    )
}

/// A node with a DNS Service and others, and its agent.
fn node() -> (TestNode, Agent) {
    let node = TestNode::new(1);
    node.write("dns.yaml", DNS_SERVICE);
    node.write("more.yaml", &more_services());
    node.serve(&[0]);
    let agent = agent(&node);
    // After the socket is there: it takes an address that is yet to come.
    node.ip(&format!("address add {LISTEN6}/128 dev lo"));
    (node, agent)
}

fn agent(node: &TestNode) -> Agent {
    node.agent(&["--dns-listen", LISTEN, "--dns-listen", LISTEN6])
}

fn run(mut command: Command, arguments: &[&str]) -> Output {
    command.args(arguments).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {out} {err}", output.status);
    out.into_owned()
}

/// dig in the client, patient: a lost datagram is sent again.
fn dig(node: &TestNode, server: &str, arguments: &[&str]) -> String {
    let at = format!("@{server}");
    let command = node.client().command("dig").expect("a command");
    printed(&run(command, &[&[&*at, "+time=5", "+tries=6"], arguments].concat()))
}

/// The `resolv.conf` of a pod in the namespace `default`. The client is patient, the machine may be busy.
fn resolv_conf(node: &TestNode) -> PathBuf {
    let path = node.file("resolv.conf");
    let text = format!(
        "nameserver {VIP}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n\
         options ndots:5 timeout:5 attempts:5\n"
    );
    fs::write(&path, text).expect("writes");
    path
}

/// A command in the client, with the `resolv.conf` of a pod.
fn in_pod(node: &TestNode, program: &str, arguments: &[&str]) -> Output {
    let files = [(resolv_conf(node), PathBuf::from("/etc/resolv.conf"))];
    run(node.client().command_with_files(program, &files).expect("a command"), arguments)
}

#[test]
fn dig_asks_the_cluster_ip() {
    let (node, _agent) = node();
    for server in [VIP, VIP6] {
        for transport in ["+notcp", "+tcp"] {
            let ask = |arguments: &[&str]| dig(&node, server, &[arguments, &[transport, "+short"]].concat());
            assert_eq!(ask(&["web.default.svc.cluster.local", "A"]), "10.96.0.10\n");
            assert_eq!(ask(&["web.default.svc.cluster.local", "AAAA"]), "fd00:96::10\n");
            let service = ask(&["_http._tcp.web.default.svc.cluster.local", "SRV"]);
            assert_eq!(service, "0 100 80 web.default.svc.cluster.local.\n");
            assert_eq!(ask(&["-x", "10.96.0.10"]), "web.default.svc.cluster.local.\n");
            assert_eq!(ask(&["-x", "10.244.0.7"]), "pod-7.many.default.svc.cluster.local.\n");
            assert_eq!(ask(&["pod-7.many.default.svc.cluster.local"]), "10.244.0.7\n");
            assert_eq!(ask(&["dns-version.cluster.local", "TXT"]), "\"1.1.0\"\n");
            let all = |arguments: &[&str]| dig(&node, server, &[arguments, &[transport]].concat());
            let answer = all(&["absent.default.svc.cluster.local"]);
            assert!(answer.contains("status: NXDOMAIN"), "{answer}");
            assert!(answer.contains("cluster.local.\t\t5\tIN\tSOA\tns.dns.cluster.local."), "{answer}");
            let answer = all(&["example.com"]);
            assert!(answer.contains("status: REFUSED"), "{answer}");
        }
    }
}

#[test]
fn status_has_the_counts() {
    let (node, agent) = node();
    for _ in 0..3 {
        dig(&node, VIP, &["web.default.svc.cluster.local", "+notcp"]);
    }
    dig(&node, VIP, &["absent.cluster.local", "AAAA", "+tcp"]);
    wait_for("the counts", || {
        let dns = &node.json(&["status"])["dns"];
        // A datagram that was sent again counts again.
        let at_least = |count: &serde_json::Value, least| count.as_u64().is_some_and(|count| count >= least);
        at_least(&dns["udp"], 3)
            && at_least(&dns["tcp"], 1)
            && at_least(&dns["codes"]["NOERROR"], 3)
            && at_least(&dns["codes"]["NXDOMAIN"], 1)
            && at_least(&dns["types"]["AAAA"], 1)
            && dns["listen"] == serde_json::json!(["172.31.0.1:53", "[fd00:31::1]:53"])
    });
    let text = printed(&node.lb(&["status"]));
    assert!(text.contains("on 172.31.0.1:53 [fd00:31::1]:53; answered "), "{text}");
    agent.kill();
    assert!(node.json(&["status"])["dns"].is_null());
}

#[test]
fn dig_finds_the_rest_by_tcp() {
    let (node, _agent) = node();
    let many = |arguments: &[&str]| {
        let answer = dig(&node, VIP, &[&["many.default.svc.cluster.local", "+noedns"], arguments].concat());
        let count = answer.lines().filter(|line| line.contains("\t10.244.0.")).count();
        (answer, count)
    };
    let (answer, count) = many(&["+ignore"]);
    assert!(answer.contains("flags: qr aa tc rd") && (20..60).contains(&count), "{answer}");
    let (answer, count) = many(&[]);
    assert!(!answer.contains(" tc ") && count == 60, "{answer}");
    let (answer, count) = many(&["+edns=0", "+bufsize=1232"]);
    assert!(!answer.contains(" tc ") && count == 60, "{answer}");
    let answer = dig(&node, VIP, &["web.default.svc.cluster.local", "+edns=1", "+noednsneg"]);
    assert!(answer.contains("status: BADVERS") && answer.contains("EDNS: version: 0"), "{answer}");
    let answer = dig(&node, VIP, &["web.default.svc.cluster.local", "ANY", "+notcp"]);
    assert!(answer.contains("HINFO\t\"RFC8482\""), "{answer}");
    let answer = dig(&node, VIP, &["cluster.local", "+opcode=notify"]);
    assert!(answer.contains("status: NOTIMP"), "{answer}");
}

/// What each kind of resolver makes of names; `lookup` gives the addresses of a name, none if there is no such name.
fn resolves(lookup: impl Fn(&str) -> Vec<String>) {
    let both = ["10.96.0.10", "fd00:96::10"];
    for name in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"] {
        assert_eq!(lookup(name), both, "{name}");
    }
    assert_eq!(lookup("WEB.Default.SVC.cluster.LOCAL."), both);
    assert_eq!(lookup("other.elsewhere"), ["10.96.7.7"]);
    // Of another namespace; by search path it would be asked of the world in the end, and there is none here.
    assert_eq!(lookup("other.default.svc.cluster.local."), Vec::<String>::new());
    assert_eq!(lookup("pod-3.many"), ["10.244.0.3"]);
    assert_eq!(lookup("kube-dns.kube-system"), [VIP, VIP6]);
}

/// The first words of lines, ordered, each once.
fn first_words(text: &str) -> Vec<String> {
    let mut words: Vec<_> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    words.sort();
    words.dedup();
    words
}

#[test]
fn glibc_resolves() {
    let (node, _agent) = node();
    let lookup = |name: &str| {
        let output = in_pod(&node, "getent", &["ahosts", name]);
        // 2: not found.
        assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
        first_words(&String::from_utf8_lossy(&output.stdout))
    };
    resolves(lookup);
    assert_eq!(lookup("many").len(), 60);
    let reverse = printed(&in_pod(&node, "getent", &["hosts", "10.96.0.10"]));
    assert!(reverse.contains("web.default.svc.cluster.local"), "{reverse}");
}

#[test]
fn python_resolves() {
    const PROGRAM: &str = "import socket, sys\ntry:\n    found = socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)\n\
                           except socket.gaierror:\n    found = []\nfor entry in found: print(entry[4][0])";
    let (node, _agent) = node();
    resolves(|name| first_words(&printed(&in_pod(&node, "python3", &["-c", PROGRAM, name]))));
}

/// musl asks for A and AAAA at once, from one socket, and does not do TCP (before 1.2.4): Alpine's images have it.
#[test]
fn musl_resolves() {
    const PROGRAM: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int count, char **arguments) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    char text[INET6_ADDRSTRLEN];
    int error = getaddrinfo(arguments[1], "80", &hints, &found);
    if (error) return error == EAI_NONAME ? 0 : 1;
    for (; found; found = found->ai_next) {
        getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
        puts(text);
    }
}
"#;
    let (node, _agent) = node();
    let (source, program) = (node.file("lookup.c"), node.file("lookup"));
    fs::write(&source, PROGRAM).expect("writes");
    let compiler = Command::new("musl-gcc").args(["-static", "-o"]).arg(&program).arg(&source).output();
    printed(&compiler.expect("musl-gcc is there: `cargo xtask setup` installs it"));
    let program = program.display().to_string();
    let lookup = |name: &str| first_words(&printed(&in_pod(&node, &program, &[name])));
    resolves(lookup);
    // What fits into a datagram is better than nothing.
    assert!(lookup("many").len() >= 20);
}

/// An HTTP server on the node, as simple as can be.
fn serve_http(node: &TestNode, port: u16) {
    let listener = node.node().namespace().run(|| TcpListener::bind((LISTEN, port)).expect("listens"));
    let listener = listener.expect("enters");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok_and(|length| length > 0) {
                let reply = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
                let _closed = stream.write_all(reply.as_bytes());
            }
        }
    });
}

#[test]
fn curl_reaches_a_service_by_name() {
    let (node, _agent) = node();
    serve_http(&node, 8088);
    node.write(
        "hello.yaml",
        "kind: Service\nmetadata: {name: hello}\nspec: {clusterIP: 10.96.3.3, ports: [{port: 80}]}\n---\n\
         kind: EndpointSlice\nmetadata: {name: hello-1, labels: {kubernetes.io/service-name: hello}}\n\
         addressType: IPv4\nports: [{port: 8088}]\nendpoints: [{addresses: [172.31.0.1]}]\n",
    );
    wait_for("the name", || dig(&node, VIP, &["hello.default.svc.cluster.local", "+short"]) == "10.96.3.3\n");
    for name in ["hello", "hello.default", "hello.default.svc.cluster.local"] {
        let url = format!("http://{name}/");
        let output = in_pod(&node, "curl", &["-sS", "--max-time", "60", &url]);
        assert_eq!(printed(&output), "hello", "{name}");
    }
    // 6: could not resolve host.
    let output = in_pod(&node, "curl", &["-sS", "--max-time", "60", "http://absent/"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
}

/// A name leads to its Service from the first moment: the maps come first.
#[test]
fn a_change_is_in_the_next_answer() {
    let (node, _agent) = node();
    serve_http(&node, 8088);
    for round in 1..=10 {
        let address = format!("10.96.4.{round}");
        node.write(
            "moving.yaml",
            &format!(
                "kind: Service\nmetadata: {{name: moving}}\nspec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n---\n\
                 kind: EndpointSlice\nmetadata: {{name: moving-1, labels: {{kubernetes.io/service-name: moving}}}}\n\
                 addressType: IPv4\nports: [{{port: 8088}}]\nendpoints: [{{addresses: [172.31.0.1]}}]\n"
            ),
        );
        let answer = format!("{address}\n");
        wait_for("the new address", || {
            dig(&node, VIP, &["moving.default.svc.cluster.local", "+short"]) == answer
        });
        let to: SocketAddr = format!("{address}:80").parse().expect("an address");
        let connected = node.client().run(|| TcpStream::connect_timeout(&to, Duration::from_secs(30)));
        connected.expect("enters").expect("it is served as soon as it has a name");
    }
    fs::remove_file(node.manifests().join("moving.yaml")).expect("removes");
    wait_for("the name to go", || {
        dig(&node, VIP, &["moving.default.svc.cluster.local"]).contains("status: NXDOMAIN")
    });
}

/// Clients remember what they are told: while the agent is away they are told nothing, and never that a name is not there.
#[test]
fn a_restart_tells_nobody_that_names_are_gone() {
    let (node, first) = node();
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let socket = node.client().run(|| UdpSocket::bind("0.0.0.0:0").expect("a socket")).expect("enters");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("sets");
    let client = {
        let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
        thread::spawn(move || {
            let mut query = Message::new(7, MessageType::Query, OpCode::Query);
            let name = Name::from_ascii("web.default.svc.cluster.local.").expect("a name");
            query.add_query(Query::query(name, RecordType::A));
            let query = query.to_bytes().expect("a message");
            let mut buffer = [0; 600];
            while !stop.load(Ordering::Relaxed) {
                // Errors are those of the time without an agent.
                let _unreachable = socket.send_to(&query, (VIP, 53));
                if let Ok(length) = socket.recv(&mut buffer) {
                    let answer = Message::from_bytes(&buffer[..length]).expect("a message");
                    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
                    assert_eq!(answer.answers.len(), 1);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let more = || {
        let before = answers.load(Ordering::Relaxed);
        wait_for("answers", || client.is_finished() || answers.load(Ordering::Relaxed) > before + 20);
    };
    more();
    let mut running = first;
    for round in 0..3 {
        if round % 2 == 0 {
            running.kill();
        } else {
            running.terminate();
        }
        running = agent(&node);
        more();
    }
    stop.store(true, Ordering::Relaxed);
    client.join().expect("no other answers");
}
