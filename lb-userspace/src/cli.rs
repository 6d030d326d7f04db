//! The command line: one subcommand, one module.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

use crate::{agent, detach, doctor, explain, lab, show};

/// Kubernetes Services on eBPF, with or without a cluster.
#[derive(Debug, Parser)]
#[command(name = "lb", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands of `lb`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: watch manifests, fill the maps, attach to interfaces
    Run(Box<agent::Args>),
    /// Let go of all interfaces and remove everything from the kernel
    Detach(detach::Args),
    /// How the dataplane is: agent, attachments, room in the tables
    Status(show::StatusArgs),
    /// Look at Services, backends, flows and counters, straight from the maps
    Get(show::Args),
    /// Say what happens to a packet, and why: from manifests alone, or in the kernel as well
    Explain(explain::Args),
    /// Check this machine and say what to do about what is found
    Doctor(doctor::Args),
    /// Services without a cluster, in network namespaces
    Lab(lab::Args),
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// The whole program: data goes to standard output, what happens to standard error. `LB_LOG=debug` shows more.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("LB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Whatever the subcommand reports.
    pub fn execute(&self) -> anyhow::Result<()> {
        match &self.command {
            Command::Run(args) => agent::execute(args),
            Command::Detach(args) => detach::execute(args),
            Command::Status(args) => show::status(args),
            Command::Get(args) => show::execute(args),
            Command::Explain(args) => explain::execute(args),
            Command::Doctor(args) => doctor::execute(args),
            Command::Lab(args) => lab::execute(args),
            Command::Completions { shell } => {
                clap_complete::generate(*shell, &mut Self::command(), "lb", &mut std::io::stdout());
                Ok(())
            }
        }
    }
}
