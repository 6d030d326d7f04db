//! `cargo xtask vm`: the programs on kernels that are not this machine's, in virtual machines.

mod archive;
mod document;
mod guest;
mod initramfs;
mod kernel;
mod log;
mod modules;
mod qemu;

use std::time::Instant;

use anyhow::Context;
use xshell::Shell;

use crate::step;
use document::Run;
use kernel::Kernel;

/// Arguments of `vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// 5.10, 6.1, 6.12, 6.18, 7, a kernel image, or a Debian package of one [default: 5.10 and 7]
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
    /// All kernels that have a name; what was seen is written to docs/kernels.md when all is well
    #[arg(long, conflicts_with_all = ["kernel", "filter"])]
    all: bool,
    /// Only checks whose name contains this
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,
}

impl Args {
    fn kernels(&self) -> Vec<String> {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        if self.all {
            named(kernel::NAMES)
        } else if self.kernel.is_empty() {
            named(&[kernel::NAMES[0], kernel::NAMES[kernel::NAMES.len() - 1]])
        } else {
            self.kernel.clone()
        }
    }
}

/// Boots each kernel and runs the checks in it.
pub(crate) fn run(sh: &Shell, args: &Args) -> anyhow::Result<()> {
    qemu::bring(sh)?;
    let program = guest::build(sh)?;
    let folder = step::target().join("vm");
    let (mut bad, mut runs) = (Vec::new(), Vec::new());
    for name in args.kernels() {
        let begin = Instant::now();
        let kernel = Kernel::bring(&name, &folder).with_context(|| format!("kernel {name}"))?;
        let machine = folder.join("machines").join(kernel.file_name());
        std::fs::create_dir_all(&machine).with_context(|| format!("create {}", machine.display()))?;
        initramfs::write(&machine.join("initramfs"), &program, &kernel)?;
        step::say(format!("kernel {}", kernel.title()));
        let (status, log) = qemu::boot(&machine, kernel.image(), &args.filter)?;
        match log.verdict(status) {
            Ok(counts) => {
                println!("==> {name}: {counts}, in {} s", begin.elapsed().as_secs());
                runs.push(Run { name, package: kernel.title().to_owned(), log });
            }
            Err(problems) => {
                for problem in problems {
                    println!("==> {name}: {problem}");
                }
                println!("    what the kernel said is in {}", machine.join("console").display());
                bad.push(name);
            }
        }
    }
    anyhow::ensure!(bad.is_empty(), "not all is well on {}", bad.join(", "));
    if args.all {
        document::write(&runs)?;
    }
    Ok(())
}
