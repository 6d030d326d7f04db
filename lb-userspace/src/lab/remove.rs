//! The end of a lab, found by its name alone.

use std::fs;

use super::error::{Context, Error, Result};
use super::labs::ignore_missing;
use super::netns::Namespace;
use super::process;
use super::state::Places;

/// Removes whatever there is of a lab. Returns what, for people.
pub(super) fn remove_all(places: &Places) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in Namespace::names(&places.netns_prefix())? {
        match Namespace::open(&name) {
            Ok(namespace) => kill_inside(&namespace)?,
            Err(Error::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        Namespace::remove(&name)?;
        removed.push(format!("network namespace {name}"));
    }
    for directory in [places.pins(), places.directory().to_owned()] {
        match fs::remove_dir_all(&directory) {
            Ok(()) => removed.push(format!("directory {}", directory.display())),
            Err(error) => ignore_missing(error).context("remove", directory.display())?,
        }
    }
    Ok(removed)
}

/// Kills all processes of a namespace, also those that start meanwhile.
pub(super) fn kill_inside(namespace: &Namespace) -> Result<()> {
    if namespace.is_own()? {
        return Err(Error::invalid(
            format!("network namespace {}", namespace.name()),
            "is the one this command runs in; run it from outside the lab",
        ));
    }
    // A process forks faster than it is found only if it means to; ten rounds are for those.
    for _ in 0..10 {
        let pids = namespace.processes()?;
        if pids.is_empty() {
            return Ok(());
        }
        process::kill_all(&pids)?;
    }
    Err(Error::NotReady {
        object: format!("network namespace {}", namespace.name()),
        reason: "has processes that come back faster than they are killed".to_owned(),
    })
}
