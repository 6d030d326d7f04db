//! `lb lab port-forward`: from this machine's loopback into a lab. Needs root.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use lb_tests::lab::{TestLab, examples, lb_program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A forward that runs, and ends with the test.
struct Forward {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Forward {
    fn start(lab: &TestLab, arguments: &[&str]) -> Self {
        let mut child = Command::new(lb_program())
            .args(["lab", "port-forward", "--name", lab.name()])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next line that it prints, and the local address in it.
    fn next(&mut self) -> (String, SocketAddr) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let address = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        (line.clone(), address.unwrap_or_else(|| panic!("no address in {line:?}")))
    }

    /// Sends a signal, and gives its exit code.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "it goes on after {signal}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // Gone already, or of no more use.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A whole exchange on one connection; the client closes its side first.
fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {answer:?}")).trim()
}

fn up(lab: &TestLab, example: &str) {
    lab.ok("up", &["-f", &examples().join(example).display().to_string()]);
}

#[test]
fn connections_are_balanced_like_those_of_the_client() {
    let lab = TestLab::new();
    up(&lab, "clusterip");
    let client = lab.pods("client")[0].v4.clone();
    let mut forward = Forward::start(&lab, &["svc/backend-service", "0:80"]);
    let (line, address) = forward.next();
    assert!(address.ip().is_loopback() && line.contains("default/backend-service"), "{line}");
    let answers: Vec<String> = (0..3).map(|_| get(address)).collect();
    let pods: BTreeSet<&str> = answers.iter().map(|answer| header(answer, "X-Pod:")).collect();
    assert_eq!(pods.len(), 3, "{answers:?}");
    let from: SocketAddr = header(&answers[0], "X-Client:").parse().unwrap();
    assert_eq!(from.ip().to_string(), client);

    let complaint = lab.fails("port-forward", &["svc/backend-service", &format!("{}:80", address.port())]);
    assert!(complaint.contains(&format!("cannot listen on 127.0.0.1:{}", address.port())), "{complaint}");

    assert_eq!(forward.end(Signal::SIGINT), Some(0));
}

#[test]
fn ports_by_name_and_several_at_once() {
    let lab = TestLab::new();
    up(&lab, "multi-port");
    let mut forward = Forward::start(&lab, &["service/web.default", ":http", ":9000"]);
    let mut remotes = BTreeSet::new();
    // Each port on one loopback address or on both.
    while remotes.len() < 2 {
        let (line, address) = forward.next();
        assert!(get(address).contains("X-Pod: web-"), "{line}");
        remotes.insert(line.rsplit_once(':').unwrap().1.trim().to_owned());
    }
    assert_eq!(remotes, BTreeSet::from(["80".to_owned(), "9000".to_owned()]));
    assert_eq!(forward.end(Signal::SIGTERM), Some(0));
}

#[test]
fn what_cannot_be_forwarded_is_said() {
    let lab = TestLab::new();
    let folder = tempfile::tempdir().unwrap();
    let text = "kind: Pod\nmetadata: {name: web, labels: {app: web}}\n---\n\
                kind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n---\n\
                kind: Service\nmetadata: {name: headless}\nspec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}\n---\n\
                kind: Service\nmetadata: {name: outer, namespace: shop}\nspec: {type: ExternalName, externalName: example.org}\n";
    std::fs::write(folder.path().join("all.yaml"), text).unwrap();
    lab.ok("up", &["-f", &folder.path().display().to_string()]);
    for (arguments, part) in [
        (["svc/other", "0:80"], "Service default/other is not there; there are default/web"),
        (["svc/web", "0:81"], "Service default/web has no TCP port 81; it has 80/TCP"),
        (["svc/headless", "0:80"], "Service default/headless is headless"),
        (["svc/outer.shop", "0:80"], "Service shop/outer is of type ExternalName"),
        (["web", "0:80"], "svc/NAME or svc/NAME.NAMESPACE is wanted"),
        (["svc/web", "x:80"], "LOCAL:PORT is wanted"),
    ] {
        let complaint = lab.fails("port-forward", &arguments);
        assert!(complaint.contains(part), "{arguments:?}: {complaint}");
    }
    lab.ok("down", &[]);
    let complaint = lab.fails("port-forward", &["svc/web", "0:80"]);
    assert!(complaint.contains("there is no lab"), "{complaint}");
}
