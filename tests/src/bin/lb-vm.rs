//! All that runs inside a virtual machine of `cargo xtask vm`: PID 1, the checks, and `lb` when it is called so.

use std::path::Path;
use std::process::ExitCode;

use lb_tests::vm;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "lb") {
        return lb_userspace::cli::main();
    }
    if std::process::id() == 1 {
        vm::init::main();
    }
    let filter = arguments.next().unwrap_or_default();
    if vm::run(&filter.to_string_lossy()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
