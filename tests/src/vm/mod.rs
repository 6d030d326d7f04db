//! The checks that run inside a virtual machine, on a kernel that is not this machine's: `cargo xtask vm`.
//!
//! One static program, `lb-vm`, is everything in there: PID 1 ([`init`]), the checks, and `lb` itself under another name.
//! What it finds goes over a serial port, a line for each check ([`report`]).

pub mod bench;
pub mod clock;
pub mod datagrams;
pub mod doctor;
pub mod exit;
pub mod init;
pub mod programs;
pub mod report;
pub mod rows;
pub mod sockets;
pub mod traffic;
pub mod virtio;
pub mod wires;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use lb_userspace::dataplane::kernel_at_least;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use report::{Outcome, Report};

/// What a kernel must have for a check. One that is new enough to have it is never excused.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The feature, for people.
    pub feature: &'static str,
    /// The first kernel with it: major and minor version.
    pub since: (u8, u8),
}

/// XDP programs for packets in several buffers.
pub const XDP_FRAGS: Need = Need { feature: "xdp.frags", since: (5, 18) };
/// Programs that may redirect to devices at generic XDP.
pub const XDP_GENERIC: Need = Need { feature: "generic XDP", since: (5, 15) };
/// Programs that know the network namespaces of sockets, by numbers that the kernel tells the agent as well.
pub const SOCKET_LB: Need = Need { feature: "--socket-lb", since: (5, 14) };
/// All that a supported kernel may lack, as `lb doctor` calls it.
pub const NEEDS: [Need; 5] = [
    Need { feature: "atomics that return something", since: (5, 12) },
    SOCKET_LB,
    XDP_GENERIC,
    XDP_FRAGS,
    Need { feature: "tcx", since: (6, 6) },
];

/// Something to find out about a kernel.
pub struct Check {
    name: String,
    needs: Option<Need>,
    body: Box<dyn FnOnce() -> String + Send>,
}

impl Check {
    /// A check that panics when it fails, and else says what it has seen.
    pub fn new(
        name: impl Into<String>,
        needs: Option<Need>,
        body: impl FnOnce() -> String + Send + 'static,
    ) -> Self {
        Self { name: name.into(), needs, body: Box::new(body) }
    }
}

/// All checks, in the order in which they run: what is broken at the bottom is told first.
pub fn checks() -> Vec<Check> {
    let mut checks = programs::checks();
    checks.extend(rows::checks());
    checks.extend(traffic::checks());
    checks.extend(virtio::checks());
    checks.extend(sockets::checks());
    checks.extend(clock::checks());
    checks.extend(doctor::checks());
    checks
}

/// Those whose names contain a word of `filter`, which commas separate. Measurements only when it begins like their names.
fn chosen(filter: &str) -> Vec<Check> {
    let all = if filter.starts_with("bench/") { bench::checks() } else { checks() };
    all.into_iter().filter(|check| filter.split(',').any(|word| check.name.contains(word))).collect()
}

/// Runs the checks whose names contain `filter`, and reports on standard output; whether all went well.
pub fn run(filter: &str) -> bool {
    let report = Report::new(std::io::stdout());
    let checks = chosen(filter);
    report.plan(checks.len());
    remember_panics();
    for Check { name, needs, body } in checks {
        if let Some(Need { feature, since: (major, minor) }) = needs
            && !kernel_at_least(major, minor)
        {
            let why = format!("{feature} needs kernel {major}.{minor}");
            report.result(&name, Outcome::Skipped, 0, &why);
            continue;
        }
        report.begin(&name);
        limit_locked_memory();
        let start = Instant::now();
        // A thread of its own: a check may leave it in another namespace.
        let caught = thread::spawn(move || catch_unwind(AssertUnwindSafe(body))).join();
        let millis = start.elapsed().as_millis();
        match caught {
            Ok(Ok(detail)) => report.result(&name, Outcome::Passed, millis, &detail),
            _ => report.result(&name, Outcome::Failed, millis, &last_panic()),
        }
    }
    report.done()
}

/// What processes begin with where nobody has changed it; a check before may have.
fn limit_locked_memory() {
    const USUAL: u64 = 64 << 10;
    let set = getrlimit(Resource::RLIMIT_MEMLOCK)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_MEMLOCK, USUAL, hard));
    set.expect("a limit that can be set");
}

/// What the last panic said.
static PANIC: Mutex<String> = Mutex::new(String::new());

fn remember_panics() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        if let Ok(mut last) = PANIC.lock() {
            *last = panic.to_string();
        }
    }));
}

fn last_panic() -> String {
    PANIC.lock().map(|last| last.clone()).unwrap_or_default()
}
