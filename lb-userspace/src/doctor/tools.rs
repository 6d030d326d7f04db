//! Programs that help, though none is needed to run.

use std::process::Command;

use super::check::{Check, Status};

/// Program, argument that prints its version, what it is good for, package.
const TOOLS: &[(&str, &str, &str, &str)] = &[
    ("ip", "-V", "looking at links and routes", "iproute2"),
    ("nft", "--version", "seeing firewall rules", "nftables"),
    ("curl", "--version", "asking a Service", "curl"),
];

/// All checks here.
pub(super) fn checks() -> Vec<Check> {
    TOOLS
        .iter()
        .map(|(program, argument, purpose, package)| {
            let name = format!("tool {program}");
            match Command::new(program).arg(argument).output() {
                Ok(output) => {
                    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
                    let text = String::from_utf8_lossy(&text);
                    let line = text.lines().next().unwrap_or("no version");
                    // curl goes on with its libraries.
                    Check::ok(name, line.split(" (").next().unwrap_or(line).trim().to_owned())
                }
                Err(error) => Check::bad(
                    Status::Note,
                    name,
                    format!("{error}; good for {purpose}"),
                    format!("apt-get install {package}"),
                ),
            }
        })
        .collect()
}
