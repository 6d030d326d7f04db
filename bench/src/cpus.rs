//! Which CPUs threads may run on.

use std::io;
use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// All that this process was given.
pub(crate) fn all() -> io::Result<CpuSet> {
    static ALL: OnceLock<CpuSet> = OnceLock::new();
    if let Some(all) = ALL.get() {
        return Ok(*all);
    }
    // The whole process's main thread: others may have been moved.
    let given = sched_getaffinity(Pid::this())?;
    Ok(*ALL.get_or_init(|| given))
}

/// One of them, the last: the first has the machine's interrupts more often.
pub(crate) fn one() -> io::Result<CpuSet> {
    let all = all()?;
    let mut one = CpuSet::new();
    if let Some(cpu) = (0..CpuSet::count()).rev().find(|cpu| all.is_set(*cpu).unwrap_or(false)) {
        one.set(cpu)?;
    }
    Ok(one)
}

/// Keeps a thread on these; 0 is the calling one.
pub(crate) fn set(thread: Pid, cpus: &CpuSet) -> io::Result<()> {
    Ok(sched_setaffinity(thread, cpus)?)
}
