//! Processes that the lab starts and ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Context, Error, Result};

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(5);

/// A process, told apart from a later one of the same number by its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Name of the container, or what else it is.
    pub role: String,
    /// Process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process of this id.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(role: &str, pid: i32) -> Result<Self> {
        match stat(pid) {
            Some(stat) => Ok(Self { role: role.to_owned(), pid, started: stat.started }),
            None => Err(Error::NotReady {
                object: format!("process {pid} of {role}"),
                reason: "is gone".to_owned(),
            }),
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.zombie)
    }
}

struct Stat {
    zombie: bool,
    started: u64,
}

/// The parts of /proc/PID/stat that matter; see proc(5): state is field 3, starttime field 22.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, is in parentheses and may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { zombie: matches!(state, "Z" | "X"), started })
}

/// Starts a command in the background, in a session of its own, both outputs appended to `log`.
///
/// # Errors
/// When the program is not found or the log cannot be written.
pub fn start(mut command: Command, log: &Path) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = File::options().create(true).append(true).open(log).context("open", log.display())?;
    let errors = output.try_clone().context("open", log.display())?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    // Its own group, so that Ctrl-C in the terminal does not reach it.
    command.process_group(0);
    command.spawn().context("start", program)
}

/// Kills processes at once and waits until they are gone.
///
/// # Errors
/// When one cannot be killed or does not go.
pub fn kill_all(pids: &[i32]) -> Result<()> {
    for &pid in pids {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("kill", format!("process {pid}")),
        }
    }
    // Milliseconds normally; a process in the middle of disk access may take longer.
    let gone = wait_until(Duration::from_secs(10), || {
        pids.iter().all(|&pid| {
            // Reaps it where it is this process's own child.
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            stat(pid).is_none_or(|stat| stat.zombie)
        })
    });
    if gone {
        Ok(())
    } else {
        Err(Error::NotReady {
            object: format!("processes {pids:?}"),
            reason: "were killed and do not go".to_owned(),
        })
    }
}

/// Asks a process to end and waits up to `patience`. Says whether it did.
///
/// # Errors
/// When it cannot be signalled.
pub fn terminate(process: &Process, patience: Duration) -> Result<bool> {
    if !process.is_alive() {
        return Ok(true);
    }
    match kill(Pid::from_raw(process.pid), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).context("terminate", format!("process {}", process.pid)),
    }
    Ok(wait_until(patience, || {
        let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        !process.is_alive()
    }))
}

/// Looks at a condition until it holds or the time is over; says which.
pub fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Waits until a started process has made `file`, its sign of being ready.
///
/// # Errors
/// [`Error::NotReady`] with the end of its log when it exits first, or the time is over.
pub fn wait_ready(what: &str, child: &mut Child, file: &Path, log: &Path, patience: Duration) -> Result<()> {
    let mut exit: io::Result<Option<std::process::ExitStatus>> = Ok(None);
    let ready = wait_until(patience, || {
        exit = child.try_wait();
        file.exists() || !matches!(exit, Ok(None))
    });
    let reason = match exit {
        Ok(Some(status)) => format!("ended ({status})"),
        Err(error) => return Err(error).context("wait for", what),
        Ok(None) if ready => return Ok(()),
        Ok(None) => format!("is not ready after {} s", patience.as_secs()),
    };
    Err(Error::NotReady {
        object: what.to_owned(),
        reason: format!("{reason}; its log says:\n{}", tail(log)),
    })
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return "  (nothing)".to_owned();
    }
    let start = lines.len().saturating_sub(LINES);
    lines[start..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Process::of("self", std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        assert!(!Process { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn a_killed_process_is_gone() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of("sleep", child.id().cast_signed()).unwrap();
        kill_all(&[process.pid]).unwrap();
        assert!(!process.is_alive());
        // Already reaped, or about to be: either is fine.
        let _ = child.wait();
    }

    #[test]
    fn a_process_that_ends_early_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo out of luck; exit 3"]);
        let mut child = start(command, &log).unwrap();
        let error =
            wait_ready("the thing", &mut child, &folder.path().join("no"), &log, Duration::from_secs(10))
                .unwrap_err()
                .to_string();
        assert!(error.contains("exit status: 3") && error.contains("out of luck"), "{error}");
    }
}
