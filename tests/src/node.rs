//! A node with a client and servers, on which a test starts, kills and restarts agents itself.
//!
//! Servers and clients are sockets of the test's own process, made inside the namespaces: quick, and nothing to find
//! when the test is over.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lb_userspace::lab;
use lb_userspace::lab::netns::Namespace;
use lb_userspace::lab::topology::Node;
use lb_userspace::maps::KernelStore;
use lb_userspace::plan::{Numbers, Tables};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{TestLab, lb_program};
use crate::patience::{PATIENCE, wait_for};

/// The Service of [`TestNode::serve`].
pub const VIP4: &str = "10.96.0.10:80";
/// The same, IPv6.
pub const VIP6: &str = "[fd00:96::10]:80";
/// Port that servers listen on.
pub const PORT: u16 = 8080;

/// A node with a client and servers, gone when dropped; every packet must be accounted for then.
#[derive(Debug)]
pub struct TestNode {
    lab: TestLab,
    node: Node,
    client: Namespace,
    folder: TempDir,
    servers: Vec<Namespace>,
}

impl TestNode {
    /// A node with a client on `veth-c` and so many servers on `veth-s0`, `veth-s1`, …
    ///
    /// # Panics
    /// When not root.
    pub fn new(servers: u8) -> Self {
        Self::wired(servers, false)
    }

    /// The same; who sends on these wires works out checksums itself, as on wires between machines.
    ///
    /// # Panics
    /// As above.
    pub fn like_between_machines(servers: u8) -> Self {
        Self::wired(servers, true)
    }

    fn wired(servers: u8, finished: bool) -> Self {
        let lab = TestLab::new();
        let node =
            Node::create(&format!("lb-{}-node", lab.name()), &["172.31.0.1".parse().expect("an address")])
                .expect("a node")
                .for_native_xdp(true)
                .with_finished_checksums(finished);
        let client = node
            .add_pod(
                &format!("lb-{}-client", lab.name()),
                "veth-c",
                &["10.77.0.2".parse().expect("an address"), "fd00:77::2".parse().expect("an address")],
            )
            .expect("a client");
        let folder = TempDir::new().expect("a folder");
        fs::create_dir(folder.path().join("manifests")).expect("a folder");
        let mut this = Self { lab, node, client, folder, servers: Vec::new() };
        for _ in 0..servers {
            this.add_server();
        }
        this
    }

    /// Adds a server: it names itself, then repeats each line it is told. Its address is [`address`].
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn add_server(&mut self) {
        let number = self.servers.len();
        let pod = self.make_server(number, &format!("veth-s{number}"));
        self.servers.push(pod);
    }

    /// Adds a server by way of another wire, see [`Node::add_pod_by`].
    ///
    /// # Panics
    /// As above.
    pub fn add_server_by(&mut self, interface: &str, lay: impl FnOnce(&Namespace) -> lab::Result<()>) {
        let number = self.servers.len();
        let (name, addresses) = self.server_place(number);
        let pod = self.node.add_pod_by(&name, interface, &addresses, lay).expect("a server");
        start_server(&pod, number);
        self.servers.push(pod);
    }

    /// Puts a new server with the same address, behind this interface, in the place of one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn replace_server(&mut self, number: usize, old: &str, interface: &str) {
        let name = self.servers[number].name().to_owned();
        self.node.remove_pod(&name, old).expect("the old server goes");
        self.servers[number] = self.make_server(number, interface);
    }

    /// The namespace of a server.
    pub fn server(&self, number: usize) -> &Namespace {
        &self.servers[number]
    }

    fn make_server(&self, number: usize, interface: &str) -> Namespace {
        let (name, addresses) = self.server_place(number);
        let pod = self.node.add_pod(&name, interface, &addresses).expect("a server");
        start_server(&pod, number);
        pod
    }

    /// Namespace and addresses of a server.
    fn server_place(&self, number: usize) -> (String, [IpAddr; 2]) {
        let addresses = [4, 6].map(|family| address(number, family).parse().expect("an address"));
        (self.namespace_name(&format!("s{number}")), addresses)
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Name for a namespace of this node's surroundings, removed with it.
    pub fn namespace_name(&self, what: &str) -> String {
        format!("lb-{}-{what}", self.lab.name())
    }

    /// The client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the agents of this node pin.
    pub fn pin_dir(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/bpf/lb-lab-{}", self.lab.name()))
    }

    /// The folder of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// A path for the test's own files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a manifest, at once and as a whole.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, text: &str) {
        let draft = self.manifests().join(format!(".{name}.draft"));
        fs::write(&draft, text).expect("writes");
        fs::rename(draft, self.manifests().join(name)).expect("renames");
    }

    /// Writes the manifests of a Service at [`VIP4`] and [`VIP6`] in front of these servers.
    pub fn serve(&self, servers: &[usize]) {
        self.write("service.yaml", SERVICE);
        self.write("slices.yaml", &slices(servers));
    }

    /// A command of `lb` on the node. The pin directory is given where the verb takes one.
    ///
    /// # Panics
    /// When the process has no descriptor left.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let command = self.node.namespace().command(lb_program()).expect("a command");
        self.with_arguments(command, arguments)
    }

    /// The same in a mount namespace of its own, in which this shell script runs before.
    ///
    /// # Panics
    /// When the process has no descriptor left.
    pub fn command_after(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = self.node.namespace().command("unshare").expect("a command");
        command.args(["--mount", "sh", "-ec", &format!("{script}\nexec \"$0\" \"$@\"")]).arg(lb_program());
        self.with_arguments(command, arguments)
    }

    fn with_arguments(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments);
        if arguments[0] != "doctor" && !arguments.contains(&"--pin-dir") {
            command.arg("--pin-dir").arg(self.pin_dir());
        }
        command
    }

    /// Runs a command of `lb` on the node.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn lb(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("lb starts")
    }

    /// Runs it and returns what it prints as JSON.
    ///
    /// # Panics
    /// When it fails, or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.lb(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "lb {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Runs `ip` on the node.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, arguments: &str) -> String {
        let mut command = self.node.namespace().command("ip").expect("a command");
        let output = command.args(arguments.split(' ')).output().expect("ip starts");
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts an agent on `veth*`, or on what the arguments say, and does not wait for it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Agent {
        self.start_by(self.command(&[&["run"], arguments].concat()), arguments)
    }

    /// Starts one in a mount namespace of its own, in which this shell script runs before.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_after(&self, script: &str, arguments: &[&str]) -> Agent {
        self.start_by(self.command_after(script, &[&["run"], arguments].concat()), arguments)
    }

    fn start_by(&self, mut command: Command, arguments: &[&str]) -> Agent {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let (log, ready) =
            (self.file(&format!("agent{count}.log")), self.file(&format!("agent{count}.ready")));
        if !arguments.contains(&"--manifests") {
            command.arg("--manifests").arg(self.manifests());
        }
        if !arguments.contains(&"--state-file") {
            command.arg("--state-file").arg(self.file("state.json"));
        }
        command.arg("--ready-file").arg(&ready);
        if !arguments.contains(&"--service-cidr") {
            command.args(["--service-cidr", "10.96.0.0/16", "--service-cidr", "fd00:96::/112"]);
        }
        for cidr in ["10.77.0.0/24", "fd00:77::/64"] {
            command.args(["--pod-cidr", cidr]);
        }
        if !arguments.contains(&"--iface") {
            command.args(["--iface", "veth*"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).expect("a log"));
        Agent { child: command.spawn().expect("lb starts"), log, ready }
    }

    /// Starts an agent and waits until the first synchronisation is in the kernel.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn agent(&self, arguments: &[&str]) -> Agent {
        let mut agent = self.start(arguments);
        agent.wait_ready();
        let own_pins = !arguments.contains(&"--pin-dir");
        if own_pins {
            // Of the first agent; a later one takes over its programs and counters.
            self.lab.open_books();
        }
        agent
    }

    /// What is in the agent's tables.
    ///
    /// # Panics
    /// When the maps cannot be read.
    pub fn tables(&self) -> Tables {
        Tables::read(&KernelStore::open_pinned(&self.pin_dir()).expect("maps")).expect("tables")
    }

    /// The same as text.
    pub fn dump(&self, numbers: Numbers) -> String {
        self.tables().dump(numbers)
    }

    /// Links as `lb status` shows them: interface, hook, number, program, interface index.
    pub fn links(&self) -> Vec<Value> {
        self.json(&["status"])["links"].as_array().cloned().expect("a list")
    }

    /// A connection from the client.
    ///
    /// # Errors
    /// Why there is none.
    pub fn connect(&self, to: &str) -> Result<Talk, String> {
        self.client.run(|| Talk::new(to)).expect("enters")
    }

    /// Begins to make new connections from the client to `to`, one after another.
    pub fn load(&self, to: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU32::new(0));
        let (stopped, count, to) = (stop.clone(), done.clone(), to.to_owned());
        let client = Namespace::open(self.client.name()).expect("opens");
        let thread = thread::spawn(move || {
            client.enter().expect("enters");
            let mut tally = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                let answer = Talk::new(&to).and_then(|mut talk| talk.say("load").map(|()| talk.server));
                tally.push(Answer { start, end: Instant::now(), answer });
                count.fetch_add(1, Ordering::Relaxed);
                // Local ports are not endless.
                thread::sleep(Duration::from_millis(1));
            }
            tally
        });
        Load { stop, done, thread }
    }

    /// SYNs that the client had to send again.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn repeated_syns(&self) -> u64 {
        let text = self.client.run(|| fs::read_to_string("/proc/thread-self/net/netstat")).expect("enters");
        let text = text.expect("counters");
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs.find(|(name, _)| *name == "TCPSynRetrans").expect("a counter").1.parse().expect("a number")
    }
}

/// Address of a server.
pub fn address(server: usize, family: u8) -> String {
    let host = server + 10;
    if family == 4 { format!("10.77.0.{host}") } else { format!("fd00:77::{host}") }
}

const SERVICE: &str = "kind: Service\nmetadata: {name: web}\nspec:\n  clusterIP: 10.96.0.10\n  \
     clusterIPs: [10.96.0.10, 'fd00:96::10']\n  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n  \
     ports: [{name: http, port: 80}]\n";

/// The slices of [`TestNode::serve`].
pub fn slices(servers: &[usize]) -> String {
    [4, 6]
        .map(|family| {
            let endpoints: Vec<_> =
                servers.iter().map(|server| format!("{{addresses: ['{}']}}", address(*server, family))).collect();
            format!(
                "kind: EndpointSlice\nmetadata: {{name: web-{family}, labels: {{kubernetes.io/service-name: web}}}}\n\
                 addressType: IPv{family}\nports: [{{name: http, port: {PORT}}}]\nendpoints: [{}]\n",
                endpoints.join(", ")
            )
        })
        .join("---\n")
}

fn start_server(pod: &Namespace, number: usize) {
    let listener = pod.run(|| TcpListener::bind(("::", PORT)).expect("listens")).expect("enters");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || repeat(stream, number));
        }
    });
}

fn repeat(stream: TcpStream, number: usize) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    let mut line = format!("{number}\n");
    while writer.write_all(line.as_bytes()).is_ok() {
        line.clear();
        if !reader.read_line(&mut line).is_ok_and(|length| length > 0) {
            break;
        }
    }
}

/// An open connection to a server.
#[derive(Debug)]
pub struct Talk {
    stream: BufReader<TcpStream>,
    /// Which server it is.
    pub server: usize,
}

impl Talk {
    /// Connects from where the thread is.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn new(to: &str) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{to}: {error}");
        let address: SocketAddr = to.parse().expect("an address");
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
        let mut this = Self { stream: BufReader::new(stream), server: usize::MAX };
        let line = this.line()?;
        this.server = line.trim_end().parse().map_err(|_| format!("{to} says {line:?}"))?;
        Ok(this)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Err("closed by the server".to_owned()),
            Ok(_) => Ok(line),
            Err(error) => Err(format!("no answer: {error}")),
        }
    }

    /// What the socket takes for its peer.
    ///
    /// # Panics
    /// When it has none.
    pub fn peer(&self) -> SocketAddr {
        self.stream.get_ref().peer_addr().expect("a peer")
    }

    /// Says something and waits for it to be repeated.
    ///
    /// # Errors
    /// What went wrong with the connection.
    pub fn say(&mut self, what: &str) -> Result<(), String> {
        writeln!(self.stream.get_mut(), "{what}").map_err(|error| format!("cannot send: {error}"))?;
        let line = self.line()?;
        if line.trim_end() == what { Ok(()) } else { Err(format!("said {what}, heard {line}")) }
    }
}

/// What came of one connection under load.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it was begun.
    pub start: Instant,
    /// When it was over.
    pub end: Instant,
    /// Which server answered, or what went wrong.
    pub answer: Result<usize, String>,
}

/// Connections that are made one after another until it is over.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    thread: JoinHandle<Vec<Answer>>,
}

impl Load {
    /// Waits for so many more connections.
    pub fn more(&self, count: u32) {
        let goal = self.done.load(Ordering::Relaxed) + count;
        wait_for("the load", || self.done.load(Ordering::Relaxed) >= goal);
    }

    /// Ends it.
    ///
    /// # Panics
    /// When the load itself did.
    pub fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load ends")
    }

    /// Ends it; every connection must have been answered. Gives the answers.
    ///
    /// # Panics
    /// When one was not.
    pub fn all_answered(self) -> Vec<usize> {
        let answers = self.stop();
        let failures: Vec<_> = answers.iter().filter(|answer| answer.answer.is_err()).collect();
        assert!(failures.is_empty(), "{} of {} failed: {failures:?}", failures.len(), answers.len());
        answers.into_iter().filter_map(|answer| answer.answer.ok()).collect()
    }
}

/// An agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
    ready: PathBuf,
}

impl Agent {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether its ready file is there.
    pub fn ready_file(&self) -> &Path {
        &self.ready
    }

    /// Waits until the first synchronisation is in the kernel.
    ///
    /// # Panics
    /// When it ends before.
    pub fn wait_ready(&mut self) {
        wait_for("the agent's ready file", || {
            let gone = self.child.try_wait().expect("waits");
            assert!(gone.is_none(), "the agent ended: {}", self.log());
            self.ready.exists()
        });
    }

    /// Waits until it has said something.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_log(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < end, "the agent never said {text:?}: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// kill -9.
    ///
    /// # Panics
    /// When it had ended before.
    pub fn kill(mut self) -> String {
        assert!(self.child.try_wait().expect("waits").is_none(), "the agent ended: {}", self.log());
        self.child.kill().expect("kills");
        self.child.wait().expect("waits");
        self.log()
    }

    /// SIGTERM; how it ended, and what it had said.
    ///
    /// # Panics
    /// When it does not end.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGTERM).expect("signals");
        (self.wait(), self.log())
    }

    /// Waits until it ends of itself.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end of the agent", || {
            status = self.child.try_wait().expect("waits");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
