//! `lb lab explain`: `lb explain` with what a lab's agent knows.

use std::process::Command;

use super::agent;
use super::commands::Name;
use super::error::Result;
use super::labs::{Lab, NODE, OUTSIDE};

/// Arguments of `lb lab explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which lab.
    #[command(flatten)]
    pub name: Name,
    /// Who sends, what is dialled, and further options, as `lb explain` has them; the host outside is `outside`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<String>,
}

/// The command, on the lab's node.
///
/// # Errors
/// When the node is not there.
pub(super) fn command(lab: &Lab, arguments: &[String]) -> Result<Command> {
    let mut command = lab.exec(NODE, &lab.state().program.to_string_lossy())?;
    command.arg("explain");
    agent::describe(&mut command, lab.places(), lab.state());
    let mut is_outside = false;
    for argument in arguments {
        match outside(lab, argument) {
            Some(text) => {
                is_outside = true;
                command.arg(text);
            }
            None => drop(command.arg(argument)),
        }
    }
    if is_outside {
        command.arg("--external");
    }
    Ok(command)
}

/// `outside` or `outside:PORT` with an address in place of the name.
fn outside(lab: &Lab, argument: &str) -> Option<String> {
    let rest = argument.strip_prefix(OUTSIDE)?;
    let address = lab.state().outside_addresses.first()?;
    match rest {
        "" => Some(address.to_string()),
        _ if rest.starts_with(':') && address.is_ipv4() => Some(format!("{address}{rest}")),
        _ if rest.starts_with(':') => Some(format!("[{address}]{rest}")),
        _ => None,
    }
}
