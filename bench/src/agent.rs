//! An agent: `lb run` on a node of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lb_userspace::lab::netns::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::manifests::{POD_CIDR, SERVICE_CIDR};

/// How long an agent may take for its first synchronisation.
const PATIENCE: Duration = Duration::from_secs(300);

/// The program that is measured: it lies beside this one.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?.with_file_name("lb");
    anyhow::ensure!(program.exists(), "{} is not there: `cargo xtask bench` builds it", program.display());
    Ok(program)
}

/// A running agent. Ended, and all of it removed, when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    pins: PathBuf,
}

impl Agent {
    /// Starts an agent on `node` and waits until it is ready. `name` is for its pins, `folder` for its files.
    pub(crate) fn start(
        node: &Namespace,
        name: &str,
        manifests: &Path,
        folder: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let pins = PathBuf::from(format!("/sys/fs/bpf/{name}"));
        let (log, ready) = (folder.join("agent.log"), folder.join("ready"));
        let mut command = command(node)?;
        command.arg("run").arg("--manifests").arg(manifests).arg("--pin-dir").arg(&pins);
        command.arg("--state-file").arg(folder.join("state.json")).arg("--ready-file").arg(&ready);
        command.args(["--service-cidr", SERVICE_CIDR, "--pod-cidr", POD_CIDR]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).with_context(|| format!("make {}", log.display()))?);
        let start = Instant::now();
        let mut agent = Self { child: command.spawn().context("start lb run")?, pins };
        while !ready.exists() {
            if let Some(status) = agent.child.try_wait().context("wait for lb run")? {
                bail!("lb run ended ({status}): {}", fs::read_to_string(&log).unwrap_or_default());
            }
            if start.elapsed() > PATIENCE {
                bail!("lb run was not ready in time: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(agent)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it pins.
    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process number")?);
        kill(pid, Signal::SIGTERM).context("end lb run")?;
        self.child.wait().context("wait for lb run")?;
        detach(&self.pins)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lb-bench: cannot clean up: {error:#}");
        }
    }
}

fn command(node: &Namespace) -> anyhow::Result<Command> {
    node.command(program()?).context("make a command for the node")
}

/// Removes what an agent has left in the kernel.
pub(crate) fn detach(pins: &Path) -> anyhow::Result<()> {
    let arguments = [OsStr::new("detach"), OsStr::new("--pin-dir"), pins.as_os_str()];
    let output = Command::new(program()?).args(arguments).output().context("start lb detach")?;
    anyhow::ensure!(
        output.status.success(),
        "lb detach --pin-dir {}: {}",
        pins.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
