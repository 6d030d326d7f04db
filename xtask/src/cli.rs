//! The verbs.

use clap::{Parser, Subcommand};
use xshell::Shell;

use crate::{bench, cases, demo, fuzz, lint, setup, soak, step, test, verifier, vm};

/// Build, test, lint and demo of lb.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what is missing for building and testing; does nothing when all is there
    Setup,
    /// Build target/release/lb, kernel programs included
    Build,
    /// Set up, build, and run all tests (as root)
    Test(test::Args),
    /// Facts about Services, as data, through the real control plane
    Cases(cases::Args),
    /// Formatting, clippy for both worlds, licences of dependencies
    Lint,
    /// Set up, build, and show a Service at work without a cluster (as root)
    Demo,
    /// Set up, build, and measure (as root): packets, paths, scale, or all
    Bench(bench::Args),
    /// Instructions, stack and size of each kernel program against what is recorded (as root)
    Verifier(verifier::Args),
    /// Set up, and put load on a node for an hour while backends change and the agent restarts (as root)
    Soak(soak::Args),
    /// Look for inputs that are too much for something: packets, manifests, DNS messages, pinned maps
    Fuzz(fuzz::Args),
    /// Boot other kernels in virtual machines and run the checks there (as root, for what is missing)
    Vm(vm::Args),
    /// Lint, then test: what should be well before a merge
    Ci,
}

impl Cli {
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        let sh = Shell::new()?;
        sh.change_dir(step::workspace());
        match &self.verb {
            Verb::Setup => setup::run(&sh),
            Verb::Build => build(&sh),
            Verb::Test(args) => {
                test::needs_root(&sh)?;
                setup::run(&sh)?;
                test::run(&sh, args)
            }
            Verb::Fuzz(args) => fuzz::run(&sh, args),
            Verb::Cases(args) => cases::run(&sh, args),
            Verb::Lint => lint::run(&sh),
            Verb::Demo => {
                demo::needs_root(&sh)?;
                setup::run(&sh)?;
                build(&sh)?;
                demo::run()
            }
            Verb::Bench(args) => {
                bench::needs_root(&sh)?;
                setup::run(&sh)?;
                bench::run(&sh, args)
            }
            Verb::Verifier(args) => {
                test::needs_root(&sh)?;
                setup::run(&sh)?;
                verifier::run(&sh, args)
            }
            Verb::Soak(args) => {
                test::needs_root(&sh)?;
                setup::run(&sh)?;
                soak::run(&sh, args)
            }
            Verb::Vm(args) => {
                setup::run(&sh)?;
                vm::run(&sh, args)
            }
            Verb::Ci => {
                test::needs_root(&sh)?;
                setup::run(&sh)?;
                lint::run(&sh)?;
                test::run(&sh, &test::Args::default())
            }
        }
    }
}

fn build(sh: &Shell) -> anyhow::Result<()> {
    step::say("build target/release/lb");
    step::run(xshell::cmd!(sh, "cargo build --release --package lb-userspace --bin lb"))
}
