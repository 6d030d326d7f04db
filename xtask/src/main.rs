//! The one door: `cargo xtask VERB`.

use std::process::ExitCode;

use clap::Parser;

mod bench;
mod bpffs;
mod cases;
mod cli;
mod demo;
mod fuzz;
mod kernel;
mod lint;
mod packages;
mod setup;
mod soak;
mod step;
mod test;
mod verifier;
mod vm;

fn main() -> ExitCode {
    match cli::Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
