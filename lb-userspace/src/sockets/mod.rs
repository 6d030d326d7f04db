//! Balancing at sockets (`--socket-lb`): the cgroup, the network namespaces, and the sockets whose backend has gone.

mod args;
pub mod cgroup;
mod diag;
pub mod namespaces;
pub mod stale;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use lb_common::abi::{NetnsEntry, netns_flag};
use lb_common::tables::Table;

pub use args::{Choice, SocketArgs};
use namespaces::Found;

use crate::maps::{MapError, MapStore};
use crate::plan::words::{v4_word, v6_words};

/// Why sockets cannot be balanced.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No cgroup2 to be seen.
    #[error(
        "no cgroup2 is mounted here: `mount -t cgroup2 none DIR` and --cgroup DIR (inside `ip netns exec`, use `nsenter \
         --net` instead: it hides the machine's)"
    )]
    NoCgroup,
    /// The kernel does not say what is mounted.
    #[error("cannot see where cgroup2 is mounted: {0}")]
    Mounts(io::Error),
    /// The kernel does not tell network namespaces apart.
    #[error("cannot tell network namespaces apart (kernel 5.14 and later can): {0}")]
    Namespaces(io::Error),
}

/// The cgroup meant.
///
/// # Errors
/// [`SocketError`] when there is none.
pub fn cgroup_of(args: &SocketArgs) -> Result<PathBuf, SocketError> {
    if let Some(path) = &args.cgroup {
        return Ok(path.clone());
    }
    let mounts = cgroup::mounts().map_err(SocketError::Mounts)?;
    mounts.into_iter().next().ok_or(SocketError::NoCgroup)
}

/// The network namespaces that the kernel programs know.
#[derive(Debug, Default)]
pub struct Namespaces {
    excluded: Vec<PathBuf>,
    written: BTreeMap<u64, NetnsEntry>,
}

impl Namespaces {
    /// Those an earlier agent has written are known. `excluded` are names or paths.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn adopt(excluded: &[String], store: &dyn MapStore) -> Result<Self, MapError> {
        let mut written = BTreeMap::new();
        store.scan(Table::Netns, &mut |key, value| {
            if let (Ok(cookie), Ok(entry)) =
                (bytemuck::try_pod_read_unaligned(key), bytemuck::try_pod_read_unaligned(value))
            {
                written.insert(cookie, entry);
            }
        })?;
        Ok(Self { excluded: excluded.iter().map(|name| namespaces::path_of(name)).collect(), written })
    }

    /// The files of those that are excluded.
    pub fn excluded(&self) -> &[PathBuf] {
        &self.excluded
    }

    /// Names of those that are excluded and not there.
    pub fn missing(&self) -> impl Iterator<Item = &PathBuf> {
        self.excluded.iter().filter(|path| !path.exists())
    }

    /// Writes what has been found. `primary` are the node's addresses.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn write(
        &mut self,
        store: &mut dyn MapStore,
        found: &[Found],
        primary: &[IpAddr],
    ) -> Result<(), MapError> {
        let now: BTreeMap<u64, NetnsEntry> = found
            .iter()
            .map(|one| (one.cookie, entry_of(one, primary)))
            .filter(|(_, entry)| *entry != NetnsEntry::default())
            .collect();
        for (cookie, entry) in &now {
            if self.written.get(cookie) != Some(entry) {
                store.update(Table::Netns, bytemuck::bytes_of(cookie), bytemuck::bytes_of(entry))?;
            }
        }
        for cookie in self.written.keys().filter(|cookie| !now.contains_key(cookie)) {
            store.delete(Table::Netns, bytemuck::bytes_of(cookie))?;
        }
        self.written = now;
        Ok(())
    }
}

fn entry_of(found: &Found, primary: &[IpAddr]) -> NetnsEntry {
    let mut entry = NetnsEntry::default();
    let node = if found.own { primary } else { &[] };
    // The node's primary addresses are later: they count.
    for address in found.addresses.iter().chain(node) {
        match address {
            IpAddr::V4(address) => entry.v4 = v4_word(*address),
            IpAddr::V6(address) => entry.v6 = v6_words(*address),
        }
    }
    entry.flags |= if found.own { netns_flag::NODE } else { 0 };
    entry.flags |= if found.named { netns_flag::EXCLUDED } else { 0 };
    entry
}
