//! The machine: booted, listened to, and ended when it takes too long.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use lb_build::{find_program, search_path};
use xshell::Shell;

use super::log::Log;
use crate::packages;

const QEMU: &str = "qemu-system-x86_64";
/// Programs, and the package of each.
const TOOLS: &[(&str, &str)] =
    &[(QEMU, "qemu-system-x86"), ("busybox", "busybox-static"), ("xz", "xz-utils"), ("dpkg", "dpkg")];
/// Wires between two network cards (virtio-net) of the machine.
const WIRES: u8 = 2;
/// How long a machine may take in all. With two side by side each is ready in some 7 minutes on a machine that has nothing else
/// to do.
const PATIENCE: Duration = Duration::from_secs(2400);

/// Packages of what is missing.
pub(crate) fn missing() -> Vec<&'static str> {
    let folders = search_path();
    let missing = TOOLS.iter().filter(|(tool, _)| find_program(tool, &folders).is_none());
    missing.map(|(_, package)| *package).collect()
}

/// Installs what is missing.
pub(crate) fn bring(sh: &Shell) -> anyhow::Result<()> {
    let missing = missing();
    packages::install(sh, &missing).with_context(|| {
        format!("virtual machines need more programs; as root: apt-get install {}", missing.join(" "))
    })
}

/// Boots a kernel with the archive in `machine` and listens until the machine ends. How QEMU ended, none if it had to be
/// killed, and what the guest said. Its lines are shown with `name` in front.
pub(crate) fn boot(
    machine: &Path,
    image: &Path,
    filter: &str,
    name: &str,
) -> anyhow::Result<(Option<i32>, Log)> {
    let mut command = command(machine, image, filter);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut guest = Guest(command.spawn().with_context(|| format!("start {QEMU}"))?);
    let output = guest.0.stdout.take().context("QEMU has no output")?;
    let (sender, lines) = channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut log = Log::default();
    let end = Instant::now() + PATIENCE;
    let in_time = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if !line.starts_with("begin ") {
                    println!("    {name}: {}", line.replace("\\n", "\n      "));
                }
                log.add(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    let status = if in_time { guest.0.wait().context("wait for QEMU")?.code() } else { None };
    drop(guest);
    // It ends with the output that it reads.
    let _ended = reader.join();
    Ok((status, log))
}

/// Software emulation: few machines can run a kernel of another make by hardware, least those that are virtual
/// themselves. Without `-cx16` QEMU 7.2 lost guests now and then when its host was busy.
///
/// The guest's clock counts its instructions (`-icount`, a nanosecond each), and jumps when there is nothing to do. A host
/// that is busy makes the machine slower, and nothing in it late.
fn command(machine: &Path, image: &Path, filter: &str) -> Command {
    let mut command = Command::new(QEMU);
    command.args([
        "-machine",
        "pc",
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "max,-cx16",
        "-icount",
        "shift=0,sleep=off",
        "-smp",
        "1",
        "-m",
        "512M",
    ]);
    command.args(["-nodefaults", "-no-reboot", "-display", "none"]);
    command.arg("-kernel").arg(image).arg("-initrd").arg(machine.join("initramfs"));
    command.arg("-append").arg(format!("console=ttyS0 panic=-1 loglevel=5 lb.filter={filter}"));
    command.arg("-serial").arg(format!("file:{}", machine.join("console").display()));
    command.args(["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    for wire in 1..=WIRES {
        for end in 1..=2 {
            // Of one hub, which hands every packet to the other end.
            command.arg("-netdev").arg(format!("hubport,id=wire{wire}end{end},hubid={wire}"));
            // Checks find it by its address. Nothing is booted from it.
            let device = format!(
                "virtio-net-pci,netdev=wire{wire}end{end},mac=02:00:00:00:{wire:02x}:{end:02x},romfile="
            );
            command.arg("-device").arg(device);
        }
    }
    command
}

/// A process that does not outlive us.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
