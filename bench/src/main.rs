//! Measurements of lb, as ratios in one run: see docs/benchmarks.md.

use std::process::ExitCode;

use clap::Parser;

mod agent;
mod bpf;
mod cli;
mod cpus;
mod insn;
mod machine;
mod manifests;
mod packet;
mod path;
mod report;
mod sample;
mod scale;
mod tables;

fn main() -> ExitCode {
    match cli::Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
