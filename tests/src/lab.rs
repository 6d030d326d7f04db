//! Labs for tests: of a name nobody else has, gone when the test is over, and every packet accounted for then.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use lb_userspace::lab::Lab;
use lb_userspace::lab::netns::Namespace;
use serde_json::Value;

use crate::ledger::{Ledger, Place};

/// The `lb` program under test: the one that `LB_BIN` names (`cargo xtask test` names the binary that ships), else the one
/// that cargo builds from the same sources whenever it builds these tests.
///
/// # Panics
/// When it is not there.
pub fn lb_program() -> PathBuf {
    let program = std::env::var_os("LB_BIN").map_or_else(built_with_the_tests, PathBuf::from);
    assert!(program.exists(), "{} is not there", program.display());
    program
}

/// The program of this package, in target/debug or target/release.
fn built_with_the_tests() -> PathBuf {
    let own = std::env::current_exe().expect("the test has a file");
    // Tests are in target/PROFILE/deps.
    let folder = own.parent().and_then(Path::parent).expect("a test is two folders down");
    folder.join("lb-under-test")
}

/// The examples of the repository.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// A lab that is removed when dropped; every packet must be accounted for then, or when it is taken down. Needs root.
#[derive(Debug)]
pub struct TestLab {
    name: String,
    ledger: OnceLock<Ledger>,
}

impl Default for TestLab {
    fn default() -> Self {
        Self::new()
    }
}

impl TestLab {
    /// A name for a lab, unique among tests that run at the same time. Nothing is made yet.
    ///
    /// # Panics
    /// When not root: the lab needs it, and skipping would hide that.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and needs root");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("t{}x{count}", std::process::id()), ledger: OnceLock::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `lb lab VERB --name NAME ARGUMENTS`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn lb(&self, verb: &str, arguments: &[&str]) -> Output {
        if verb == "down" {
            self.close_books();
        }
        let output = Command::new(lb_program())
            .args(["lab", verb, "--name", &self.name])
            .args(arguments)
            .output()
            .expect("lb starts");
        if verb == "up" && output.status.success() && !arguments.contains(&"--no-agent") {
            self.open_books();
        }
        output
    }

    /// Counts packets from now on, unless it is done already. The agent is up, and no traffic under way.
    ///
    /// # Panics
    /// When `lb` cannot tell.
    pub fn open_books(&self) -> &Ledger {
        self.ledger.get_or_init(|| self.accounts(Ledger::open))
    }

    /// Compares the counts, if they were begun and the lab is still there.
    ///
    /// # Panics
    /// When a packet is not accounted for.
    pub fn close_books(&self) {
        if let Some(ledger) = self.ledger.get()
            && Namespace::open(&self.node_name()).is_ok()
        {
            let result = self.accounts(|place| ledger.close(place));
            assert_eq!(result, Ok(()), "packets are not accounted for");
        }
    }

    /// Hands the place that packets are counted in to `what`.
    fn accounts<T>(&self, what: impl FnOnce(&Place<'_>) -> T) -> T {
        let lb = |arguments: &[&str]| self.on_node(arguments);
        what(&Place { node: &self.node(), pins: Path::new(&self.pins()), lb: &lb })
    }

    /// The node's namespace.
    ///
    /// # Panics
    /// When it is not there.
    pub fn node(&self) -> Namespace {
        Namespace::open(&self.node_name()).expect("the node's namespace is there")
    }

    fn node_name(&self) -> String {
        format!("lb-{}-node", self.name)
    }

    fn pins(&self) -> String {
        format!("/sys/fs/bpf/lb-lab-{}", self.name)
    }

    /// Runs `lb` on the node, with the lab's pin directory.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn on_node(&self, arguments: &[&str]) -> Output {
        let mut command = self.node().command(lb_program()).expect("a command for the namespace");
        command.args(arguments).args(["--pin-dir", &self.pins()]).stdin(Stdio::null());
        command.output().expect("lb starts")
    }

    /// Runs it and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.lb(verb, arguments);
        assert!(output.status.success(), "lb lab {verb} {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs it and returns its complaint.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn fails(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.lb(verb, arguments);
        assert!(!output.status.success(), "lb lab {verb} {arguments:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Brings it up from these manifests, without the agent.
    ///
    /// # Panics
    /// When that fails.
    pub fn up_bare(&self, manifests: &Path) -> String {
        self.ok("up", &["--no-agent", "-f", &manifests.display().to_string()])
    }

    /// Runs a command in a pod.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Output {
        let mut arguments = vec![pod, "--"];
        arguments.extend_from_slice(command);
        self.lb("exec", &arguments)
    }

    /// What curl gets from this URL, in a pod.
    ///
    /// # Errors
    /// curl's complaint.
    pub fn curl(&self, pod: &str, url: &str) -> Result<String, String> {
        let output = self.exec(pod, &["curl", "-sS", "--max-time", "5", url]);
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// `lb lab status --output json`.
    ///
    /// # Panics
    /// When it fails.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok("status", &["--output", "json"])).expect("status is JSON")
    }

    /// The pods of `status` whose name begins so.
    ///
    /// # Panics
    /// When the lab is not up.
    pub fn pods(&self, prefix: &str) -> Vec<TestPod> {
        let status = self.status();
        let pods = status["pods"].as_array().expect("pods are a list").iter().map(TestPod::from);
        pods.filter(|pod| pod.name.starts_with(prefix)).collect()
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        let books = (!thread::panicking()).then(|| catch_unwind(AssertUnwindSafe(|| self.close_books())));
        if let Err(error) = Lab::down(&self.name) {
            eprintln!("cannot remove the lab {}: {error:?}", self.name);
        }
        if let Some(Err(complaint)) = books {
            resume_unwind(complaint);
        }
    }
}

/// A pod as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestPod {
    /// Name.
    pub name: String,
    /// Network namespace.
    pub netns: String,
    /// The node's end of its veth pair.
    pub interface: String,
    /// IPv4 address.
    pub v4: String,
    /// IPv6 address.
    pub v6: String,
    /// Labels, as JSON.
    pub labels: Value,
    /// Processes.
    pub pids: Vec<i64>,
}

impl From<&Value> for TestPod {
    fn from(pod: &Value) -> Self {
        let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let processes = pod["processes"].as_array().cloned().unwrap_or_default();
        Self {
            name: string(&pod["name"]),
            netns: string(&pod["netns"]),
            interface: string(&pod["interface"]),
            v4: string(&pod["addresses"][0]),
            v6: string(&pod["addresses"][1]),
            labels: pod["labels"].clone(),
            pids: processes.iter().filter_map(|process| process["pid"].as_i64()).collect(),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
