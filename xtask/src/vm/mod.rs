//! `cargo xtask vm`: the programs on kernels that are not this machine's, in virtual machines.

mod archive;
mod compare;
mod document;
mod guest;
mod initramfs;
mod kernel;
mod log;
mod modules;
mod qemu;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use xshell::Shell;

use crate::step;
use document::Run;
use kernel::Kernel;

/// What machines are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Checks
    #[default]
    Check,
    /// lb beside IPVS, counted in instructions; written to docs/kernels.md
    Bench,
}

/// Arguments of `vm`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// What to do in the machines
    #[arg(value_enum, default_value_t)]
    what: What,
    /// 5.10, 6.1, 6.12, 6.18, 7, a kernel image, or a Debian package of one [default: 5.10 and 7; for `bench` 6.12]
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
    /// All kernels that have a name; what was seen is written to docs/kernels.md when all is well
    #[arg(long, conflicts_with_all = ["kernel", "filter"])]
    all: bool,
    /// Only checks whose names contain one of these
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    filter: Vec<String>,
    /// How many machines run side by side; each keeps one CPU busy
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// A kernel that cannot be downloaded is skipped, by name, instead of a failure
    #[arg(long)]
    skip_missing: bool,
}

impl Args {
    /// The oldest and the newest kernel, as far as they can be had: part of all tests.
    pub(crate) fn in_tests() -> Self {
        Self { jobs: 2, skip_missing: true, ..Self::default() }
    }

    /// What the guest is told to run.
    fn filter(&self) -> String {
        if self.what == What::Bench { "bench/".to_owned() } else { self.filter.join(",") }
    }

    fn kernels(&self) -> Vec<String> {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        if self.all {
            named(kernel::NAMES)
        } else if self.kernel.is_empty() && self.what == What::Bench {
            named(&["6.12"])
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
    let folder = step::target().join("vm");
    let program = guest::build(sh, &folder)?;
    let mut kernels = Vec::new();
    for name in args.kernels() {
        match Kernel::bring(&name, &folder).with_context(|| format!("kernel {name}")) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) if args.skip_missing => step::say(format!("SKIPPED, nothing is known of {error:#}")),
            Err(error) => return Err(error),
        }
    }
    if kernels.is_empty() {
        step::say("no kernel could be had, so none was tried");
        return Ok(());
    }
    let host = Host { folder, program, filter: args.filter() };
    let runs = host.boot_all(&kernels, args.jobs)?;
    let bad: Vec<&str> = runs.iter().filter(|run| !run.is_good()).map(|run| run.name.as_str()).collect();
    anyhow::ensure!(bad.is_empty(), "not all is well on {}", bad.join(", "));
    match args.what {
        What::Bench => document::section("ipvs", &compare::table(&runs)?)?,
        What::Check if args.all => document::section("table", &document::table(&runs)?)?,
        What::Check => {}
    }
    Ok(())
}

/// What machines are made of.
struct Host {
    folder: PathBuf,
    program: PathBuf,
    filter: String,
}

impl Host {
    /// Boots so many at a time; what they said, in the order of `kernels`.
    fn boot_all(&self, kernels: &[Kernel], jobs: usize) -> anyhow::Result<Vec<Run>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut runs = Vec::new();
            while let Some((number, kernel)) = {
                let number = next.fetch_add(1, Ordering::Relaxed);
                kernels.get(number).map(|kernel| (number, kernel))
            } {
                runs.push(self.boot(kernel).map(|run| (number, run)));
            }
            runs
        };
        let runs: anyhow::Result<BTreeMap<usize, Run>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.clamp(1, kernels.len())).map(|_| scope.spawn(work)).collect();
            let ended = workers.into_iter().flat_map(|worker| {
                worker.join().unwrap_or_else(|_| vec![Err(anyhow::anyhow!("a thread has ended early"))])
            });
            ended.collect()
        });
        Ok(runs?.into_values().collect())
    }

    fn boot(&self, kernel: &Kernel) -> anyhow::Result<Run> {
        let name = kernel.file_name();
        let begin = Instant::now();
        let machine = self.folder.join("machines").join(name);
        std::fs::create_dir_all(&machine).with_context(|| format!("create {}", machine.display()))?;
        initramfs::write(&machine.join("initramfs"), &self.program, kernel)?;
        step::say(format!("kernel {name}: {}", kernel.title()));
        let (status, log) = qemu::boot(&machine, kernel.image(), &self.filter, name)?;
        match log.verdict(status) {
            Ok(counts) => println!("==> {name}: {counts}, in {} s", begin.elapsed().as_secs()),
            Err(problems) => {
                for problem in problems {
                    println!("==> {name}: {problem}");
                }
                println!("    what the kernel said is in {}", machine.join("console").display());
            }
        }
        Ok(Run { name: name.to_owned(), package: kernel.title().to_owned(), status, log })
    }
}
