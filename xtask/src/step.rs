//! Saying what is done, and doing it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use xshell::Cmd;

/// The workspace's root.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Where cargo puts what it builds, unless told otherwise.
pub(crate) fn target() -> PathBuf {
    let root = workspace();
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

/// One line for each step, beside what the verb prints.
pub(crate) fn say(what: impl AsRef<str>) {
    eprintln!("==> {}", what.as_ref());
}

/// Runs a command whose output the user sees.
pub(crate) fn run(command: Cmd<'_>) -> anyhow::Result<()> {
    let text = command.to_string();
    command.quiet().run().with_context(|| format!("`{text}` failed"))
}

/// Whether this process is root.
pub(crate) fn is_root(sh: &xshell::Shell) -> anyhow::Result<bool> {
    Ok(xshell::cmd!(sh, "id -u").quiet().read().context("find out who runs this")?.trim() == "0")
}
