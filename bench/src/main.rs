//! Measurements of lb, as ratios in one run: see docs/benchmarks.md.

use std::process::ExitCode;

use clap::Parser;

mod bpf;
mod cli;
mod machine;
mod packet;
mod report;
mod sample;

fn main() -> ExitCode {
    match cli::Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
