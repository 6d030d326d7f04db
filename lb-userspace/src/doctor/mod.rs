//! `lb doctor`: what on this machine stands in the way, and what to do.
//!
//! Each check is a small function over a [`Machine`], whose `/proc` and `/sys` may be folders of a test. It looks at the
//! network namespace it is started in, changes nothing, and works without root: then it says what it could not see.

mod check;
mod devices;
mod firewall;
mod forwarding;
mod kernel;
mod mounts;
mod network;
mod privilege;
mod tools;

use clap::{Args as ClapArgs, ValueEnum};

pub(crate) use mounts::points as mount_points;
pub(crate) use network::masquerade_ports;

pub use check::{Check, Machine, Report, Status};

/// Arguments.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Look at these interfaces only; all of this network namespace if none is given
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub iface: Vec<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Formats of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For machines, with stable field names.
    Json,
}

/// Looks at everything. `interfaces` empty = all.
#[must_use]
pub fn examine(machine: &Machine, interfaces: &[String]) -> Report {
    let mut checks = kernel::checks(machine);
    checks.extend(mounts::checks(machine));
    checks.extend(privilege::checks(machine));
    checks.extend(network::checks(machine));
    checks.extend(firewall::checks());
    checks.extend(forwarding::checks());
    checks.extend(devices::checks(machine, interfaces));
    checks.extend(tools::checks());
    Report::new(checks)
}

/// Runs the command.
///
/// # Errors
/// When there is a problem, so that the exit code tells.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    let report = examine(&Machine::this(), &args.iface);
    match args.output {
        Output::Table => print!("{}", report.table()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    match report.problems {
        0 => Ok(()),
        1 => anyhow::bail!("1 problem"),
        many => anyhow::bail!("{many} problems"),
    }
}
