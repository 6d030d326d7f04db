//! CPU time that traffic costs, whatever else the machine does.
//!
//! Both ends of the traffic are threads of this process, and the kernel's work for a packet on a veth is done in the sender's
//! time, or in `ksoftirqd`'s when there is much. So both are counted, and other processes are not. (A kernel with
//! `CONFIG_IRQ_TIME_ACCOUNTING` would count the kernel's work elsewhere.)

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// CPU time used so far by this process and by `ksoftirqd`.
pub(crate) fn cpu_time() -> io::Result<Duration> {
    let mut total = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
    for path in softirq_threads() {
        // "time on the CPU in ns, time waiting, slices"
        let text = fs::read_to_string(path)?;
        let ns = text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        total += Duration::from_nanos(ns);
    }
    Ok(total)
}

/// `/proc/PID/schedstat` of each `ksoftirqd`.
fn softirq_threads() -> &'static [String] {
    static THREADS: OnceLock<Vec<String>> = OnceLock::new();
    THREADS.get_or_init(|| {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter(|entry| {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                name.starts_with("ksoftirqd/")
            })
            .map(|entry| entry.path().join("schedstat").display().to_string())
            .collect()
    })
}
