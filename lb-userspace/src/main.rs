//! The `lb` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match lb_userspace::cli::Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb: {error:#}");
            ExitCode::FAILURE
        }
    }
}
