//! PID 1 of a guest: mounts, modules, the checks in a process of their own, the end.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use super::exit;
use super::report::Report;

/// File system, where, and its options.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("tmpfs", "/run", ""),
    ("tmpfs", "/tmp", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
];
/// The serial port for results. The kernel's own messages go to the first.
const RESULTS: &str = "/dev/ttyS1";
/// Modules, in files whose names sort in the order of loading.
const MODULES: &str = "/modules";
/// What `lb` is called in here: this very program, see `lb-vm`.
const LB: &str = "/bin/lb";

/// Does all of it and ends the machine.
pub fn main() -> ! {
    let outcome = run();
    let console = OpenOptions::new().write(true).open("/dev/ttyS0").ok();
    let results = OpenOptions::new().write(true).open(RESULTS).ok();
    if let Err(error) = &outcome {
        eprintln!("init: {error:#}");
    }
    let open: Vec<_> = console.iter().chain(&results).map(AsFd::as_fd).collect();
    exit::leave(&open, if matches!(outcome, Ok(true)) { exit::GOOD } else { exit::BAD })
}

fn run() -> anyhow::Result<bool> {
    for (kind, at, options) in MOUNTS {
        fs::create_dir_all(at).with_context(|| format!("create {at}"))?;
        mount(Some(*kind), *at, Some(*kind), MsFlags::empty(), Some(*options))
            .with_context(|| format!("mount {kind} at {at}"))?;
    }
    load_modules()?;
    let program = std::env::current_exe().context("find this program")?;
    fs::hard_link(&program, LB).with_context(|| format!("link {} to {LB}", program.display()))?;
    let results = OpenOptions::new().write(true).open(RESULTS).with_context(|| format!("open {RESULTS}"))?;
    facts(&results)?;
    let child = Command::new(program)
        .arg(option("lb.filter")?)
        .env_clear()
        .envs([("PATH", "/bin"), ("HOME", "/"), ("LB_BIN", LB), ("RUST_BACKTRACE", "0")])
        .stdin(Stdio::null())
        .stdout(results)
        .spawn()
        .context("start the checks")?;
    let checks = Pid::from_raw(child.id().cast_signed());
    loop {
        // Also of processes whose parents have ended.
        match wait().context("wait for the checks")? {
            WaitStatus::Exited(pid, code) if pid == checks => return Ok(code == 0),
            WaitStatus::Signaled(pid, signal, _) if pid == checks => bail!("the checks ended by {signal}"),
            _ => {}
        }
    }
}

/// What the table in the documentation wants to know.
fn facts(out: &File) -> anyhow::Result<()> {
    let report = Report::new(out);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    report.fact("release", release.trim());
    let version = fs::read_to_string("/proc/version").context("read the kernel's version")?;
    report.fact("version", version.trim());
    Ok(())
}

fn load_modules() -> anyhow::Result<()> {
    let mut files: Vec<PathBuf> = match fs::read_dir(MODULES) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        // A kernel that has everything built in.
        Err(_) => return Ok(()),
    };
    files.sort();
    for file in files {
        let output = Command::new("/bin/busybox").arg("insmod").arg(&file).output();
        let output = output.with_context(|| format!("start insmod for {}", file.display()))?;
        if !output.status.success() {
            bail!("load {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

/// An option of the kernel's command line; empty if it is not there.
fn option(name: &str) -> anyhow::Result<String> {
    let line = fs::read_to_string("/proc/cmdline").context("read the kernel's command line")?;
    let value = line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Ok(value.unwrap_or_default().to_owned())
}
