//! `lb status` and `lb get`: straight from the pinned maps, so they work whether or not an agent runs.

mod affinity;
mod backends;
pub(crate) mod clock;
mod flows;
mod output;
mod services;
mod stats;
mod status;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytemuck::Pod;
use clap::{Args as ClapArgs, Subcommand};
use lb_common::abi::{ABI_VERSION, Meta};
use lb_common::tables::Table;

use crate::maps::{DEFAULT_PIN_DIR, KernelStore, MapError, MapStore};

pub use output::Format;

/// Where the maps are and how to print.
#[derive(Clone, Debug, ClapArgs)]
pub struct Common {
    /// Directory in a bpffs that the agent pins under
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR, env = "LB_PIN_DIR", global = true)]
    pub pin_dir: PathBuf,
    /// A table for people, or data for machines
    #[arg(long, short, value_enum, default_value_t, global = true)]
    pub output: Format,
}

/// Arguments of `lb get`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What to list.
    #[command(subcommand)]
    pub what: What,
    /// Where and how.
    #[command(flatten)]
    pub common: Common,
}

/// What can be listed.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Frontends of Services, their policies and new connections
    Services(services::Filter),
    /// Backends, their state and traffic
    Backends(backends::Filter),
    /// Connections in the flow table
    Flows(flows::Filter),
    /// Remembered backends of clients (session affinity)
    Affinity(affinity::Filter),
    /// Packets and bytes by interface and by what became of them
    Stats(stats::Filter),
}

/// Arguments of `lb status`.
#[derive(Debug, ClapArgs)]
pub struct StatusArgs {
    /// Where and how.
    #[command(flatten)]
    pub common: Common,
}

/// Runs `lb get`.
///
/// # Errors
/// Nothing is pinned there, or the maps are of another version.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    let store = open(&args.common.pin_dir)?;
    let format = args.common.output;
    match &args.what {
        What::Services(filter) => output::print(format, &services::collect(&store, filter)?),
        What::Backends(filter) => output::print(format, &backends::collect(&store, filter)?),
        What::Flows(filter) => output::print(format, &flows::collect(&store, filter, clock::now)?),
        What::Affinity(filter) => output::print(format, &affinity::collect(&store, filter, clock::now)?),
        What::Stats(filter) => output::print(format, &stats::collect(&store, filter)?),
    }
}

/// Runs `lb status`.
///
/// # Errors
/// Nothing is pinned there, or the maps are of another version.
pub fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let store = open(&args.common.pin_dir)?;
    output::print(args.common.output, &status::collect(&store, &args.common.pin_dir)?)
}

/// Opens what is pinned there.
pub(crate) fn open(pin_dir: &Path) -> anyhow::Result<KernelStore> {
    let maps = pin_dir.join("maps");
    if let Err(error) = std::fs::metadata(&maps) {
        let hint = if error.kind() == std::io::ErrorKind::PermissionDenied {
            "run as root"
        } else {
            "`lb run` makes it; --pin-dir looks elsewhere"
        };
        return Err(error).with_context(|| format!("nothing is pinned under {} ({hint})", pin_dir.display()));
    }
    let unreadable = || format!("the dataplane under {} cannot be read", pin_dir.display());
    let meta = KernelStore::open_table(pin_dir, Table::Meta).with_context(unreadable)?;
    let version = read::<Meta>(&meta, Table::Meta, 0)?.map_or(0, |meta| meta.abi_version);
    // 0: made a moment ago, not written yet.
    if version != ABI_VERSION && version != 0 {
        bail!(
            "the maps under {} have layout version {version}, this program knows version {ABI_VERSION}: use the `lb` that \
             made them, or begin anew with `lb detach` and `lb run`",
            pin_dir.display()
        );
    }
    KernelStore::open_pinned(pin_dir).with_context(unreadable)
}

/// Reads one entry, typed.
fn read<V: Pod>(store: &dyn MapStore, table: Table, index: u32) -> Result<Option<V>, MapError> {
    let value = store.lookup(table, &index.to_ne_bytes())?;
    Ok(value.and_then(|value| bytemuck::try_pod_read_unaligned(&value).ok()))
}

/// Whether `text` is wanted by a filter: absent, or contained in it.
fn wanted(filter: Option<&str>, text: &str) -> bool {
    filter.is_none_or(|part| text.contains(part))
}
