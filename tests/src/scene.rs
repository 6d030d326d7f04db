//! A lab with the agent at a given hook, and programs running in its namespaces.

use std::io::Read;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lb_userspace::lab::netns::Namespace;
use serde_json::Value;

use crate::lab::{TestLab, TestPod};
use crate::patience::wait_for;

/// A lab that is up. Removed when dropped, and with it what was started there; every packet must be accounted for then.
#[derive(Debug)]
pub struct Scene {
    // In this order: the background goes before the namespaces it is in.
    background: Vec<Background>,
    /// The lab.
    pub lab: TestLab,
    pods: Vec<TestPod>,
}

impl Scene {
    /// Brings up a lab from these manifests with the agent attaching at `hook`.
    ///
    /// # Panics
    /// When that fails, or when the agent has attached elsewhere.
    pub fn new(manifests: &Path, hook: &str) -> Self {
        Self::forwarding(manifests, hook, "auto")
    }

    /// The same, with this forwarding asked for.
    ///
    /// # Panics
    /// As above.
    pub fn forwarding(manifests: &Path, hook: &str, forwarding: &str) -> Self {
        let lab = TestLab::new();
        lab.ok("up", &["--hook", hook, "--forwarding", forwarding, "-f", &manifests.display().to_string()]);
        let pods = lab.pods("");
        let scene = Self { background: Vec::new(), lab, pods };
        let client = scene.pod("client");
        let programs =
            text(&scene.run("node", &["ip", "-d", "link", "show", "dev", &client.interface]).stdout);
        let found = if programs.contains(" xdpgeneric") {
            "xdp-generic"
        } else if programs.contains(" xdp") {
            "xdp"
        } else {
            "tc"
        };
        assert_eq!(found, hook, "{programs}");
        for pod in &scene.pods {
            assert!(
                scene.lab.open_books().interfaces().any(|name| name == pod.interface),
                "{} has no books",
                pod.name
            );
        }
        scene
    }

    /// The first pod whose name begins so.
    ///
    /// # Panics
    /// When there is none.
    pub fn pod(&self, prefix: &str) -> &TestPod {
        self.pods.iter().find(|pod| pod.name.starts_with(prefix)).expect("a pod of this name")
    }

    /// The pods whose name begins so, as they were at the beginning.
    pub fn pods(&self, prefix: &str) -> Vec<&TestPod> {
        self.pods.iter().filter(|pod| pod.name.starts_with(prefix)).collect()
    }

    /// The network namespace of a pod, or of the `node`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn namespace(&self, place: &str) -> Namespace {
        if place == "node" {
            return self.lab.node();
        }
        Namespace::open(&self.pod(place).netns).expect("the namespace is there")
    }

    /// A command in a pod or on the node.
    ///
    /// # Panics
    /// When it is empty.
    pub fn command(&self, place: &str, command: &[&str]) -> Command {
        let (program, arguments) = command.split_first().expect("a command");
        let mut command = self.namespace(place).command(program).expect("a command for the namespace");
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command in a pod or on the node.
    ///
    /// # Panics
    /// When its program is not found.
    pub fn run(&self, place: &str, command: &[&str]) -> Output {
        self.command(place, command).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Runs a command and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, place: &str, command: &[&str]) -> String {
        let output = self.run(place, command);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command:?} in {place}: {} {err} {out}", output.status);
        out
    }

    /// Runs a command in the background until this is dropped.
    ///
    /// # Panics
    /// When its program is not found.
    pub fn keep_running(&mut self, place: &str, command: &[&str]) {
        let child = self.command(place, command).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.background.push(Background(child.unwrap_or_else(|error| panic!("{command:?}: {error}"))));
    }

    /// Runs a closure in a pod or on the node.
    ///
    /// # Panics
    /// When the closure does.
    pub fn inside<T: Send>(&self, place: &str, body: impl FnOnce() -> T + Send) -> T {
        self.namespace(place).run(body).expect("to enter the namespace")
    }

    /// Waits until a TCP port takes connections from there, and until the last of them is closed.
    ///
    /// # Panics
    /// When it does not for long.
    pub fn wait_for_tcp(&self, place: &str, to: SocketAddr) {
        self.inside(place, || {
            wait_for(&format!("{to} to listen"), || {
                TcpStream::connect_timeout(&to, Duration::from_secs(1))
                    .and_then(|stream| close(&stream))
                    .is_ok()
            });
        });
    }

    /// Switches a device's checksum offload on sending.
    ///
    /// # Panics
    /// When ethtool cannot.
    pub fn tx_offload(&self, place: &str, interface: &str, on: bool) {
        self.ok(place, &["ethtool", "-K", interface, "tx", if on { "on" } else { "off" }]);
    }

    /// `lb get WHAT`.
    ///
    /// # Panics
    /// When it fails.
    pub fn get(&self, what: &str) -> Vec<Value> {
        let output = self.lab.on_node(&["get", what, "--output", "json"]);
        assert!(output.status.success(), "lb get {what}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a list in JSON")
    }

    /// Counters of one interface of the node, reason and packets, in order of the reasons' names.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn counters(&self, interface: &str) -> Vec<(String, u64)> {
        let rows = self.get("stats").into_iter().filter(|row| row["interface"] == interface);
        let mut counters: Vec<_> = rows
            .map(|row| {
                let reason = row["reason"].as_str().expect("a reason").to_owned();
                (reason, row["packets"].as_u64().expect("a number"))
            })
            .collect();
        counters.sort();
        counters
    }

    /// See [`kernel_counter`].
    ///
    /// # Panics
    /// When there is no such counter.
    pub fn kernel_counter(&self, place: &str, name: &str) -> u64 {
        kernel_counter(&self.namespace(place), name)
    }
}

/// A counter of the kernel's own, such as `Udp InCsumErrors`; IPv6's are called `Udp6InCsumErrors`.
///
/// # Panics
/// When there is no such counter.
pub fn kernel_counter(namespace: &Namespace, name: &str) -> u64 {
    // nstat would count from its own history.
    let files = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6"];
    let read = || files.map(|file| std::fs::read_to_string(file).expect("a file of /proc"));
    let [v4, v6] = namespace.run(read).expect("to enter the namespace");
    let found = match name.split_once(' ') {
        Some((group, field)) => {
            let mut lines = v4.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
            let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
            names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == field).map(|(_, value)| value)
        }
        None => v6.lines().find_map(|line| line.strip_prefix(name).map(str::trim)),
    };
    found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no counter {name}"))
}

/// A process that is killed when this is dropped, with those it has started.
#[derive(Debug)]
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("cannot end a process of the test: {error}");
        }
    }
}

/// `http://` and an address as URLs have it.
pub fn url(address: &str, path: &str) -> String {
    let address: IpAddr = address.parse().expect("an address");
    format!("http://{}{path}", SocketAddr::new(address, 80))
}

/// Ends a connection and waits until the other side has, too.
///
/// # Errors
/// When the other side does not, or had more to say.
pub fn close(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(std::io::Error::other("more came after the end")),
    }
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
