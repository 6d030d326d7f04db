//! UDP sockets that are connected to a backend which has gone (C4): nothing but their end makes them dial another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;

use lb_common::abi::{BackendEntry, SocketEntry, SocketKey, backend_flag, protocol, socket_kind};
use lb_common::tables::Table;
use nix::sched::{CloneFlags, setns};

use super::{diag, namespaces};
use crate::maps::{MapError, MapStore};

/// Why a socket may still be connected to a backend that has gone.
#[derive(Debug, thiserror::Error)]
pub enum StaleError {
    /// The tables cannot be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Network namespaces cannot be looked at.
    #[error("cannot look at network namespaces: {0}")]
    Namespaces(io::Error),
    /// Sockets of a network namespace cannot be closed.
    #[error(
        "{namespace}: cannot close {sockets} UDP sockets whose backend has gone: {source} (needs a kernel with \
         CONFIG_INET_DIAG_DESTROY)"
    )]
    Close {
        /// A file of it.
        namespace: String,
        /// How many.
        sockets: usize,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Such a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stale {
    /// Cookie of its namespace.
    pub namespace: u64,
    /// Its own.
    pub cookie: u64,
    /// Number and generation of the backend.
    pub backend: (u32, u32),
}

/// Finds connected UDP sockets whose backend does not take datagrams any more.
///
/// # Errors
/// [`MapError`].
pub fn find(store: &dyn MapStore) -> Result<BTreeSet<Stale>, MapError> {
    let mut connected = Vec::new();
    store.scan(Table::Sockets, &mut |key, value| {
        let (Ok(key), Ok(entry)) = (
            bytemuck::try_pod_read_unaligned::<SocketKey>(key),
            bytemuck::try_pod_read_unaligned::<SocketEntry>(value),
        ) else {
            return;
        };
        if key.kind == socket_kind::CONNECTED && entry.protocol == protocol::UDP {
            connected.push((key.cookie, entry));
        }
    })?;
    let mut stale = BTreeSet::new();
    for (cookie, entry) in connected {
        let backend = store.lookup(Table::Backends, bytemuck::bytes_of(&entry.backend_id))?;
        let backend = backend.and_then(|bytes| bytemuck::try_pod_read_unaligned::<BackendEntry>(&bytes).ok());
        let serves = backend.is_some_and(|backend| {
            backend.generation == entry.backend_generation && backend.flags & backend_flag::SERVING != 0
        });
        if !serves {
            let backend = (entry.backend_id, entry.backend_generation);
            stale.insert(Stale { namespace: entry.netns, cookie, backend });
        }
    }
    Ok(stale)
}

/// Closes them; gives their number. Sockets of namespaces that nobody has any more are no longer anybody's either.
///
/// # Errors
/// [`StaleError`]; those of other namespaces are closed all the same.
pub fn close<'a>(stale: impl Iterator<Item = &'a Stale>) -> Result<usize, StaleError> {
    let mut by_namespace = BTreeMap::<u64, BTreeSet<u64>>::new();
    for one in stale {
        by_namespace.entry(one.namespace).or_default().insert(one.cookie);
    }
    if by_namespace.is_empty() {
        return Ok(0);
    }
    let (mut closed, mut failure) = (0, None);
    for found in namespaces::look(&[]).map_err(StaleError::Namespaces)? {
        let Some(cookies) = by_namespace.get(&found.cookie) else { continue };
        match close_in(&found.path, found.cookie, cookies) {
            Ok(count) => closed += count,
            Err(source) => {
                let namespace = found.path.display().to_string();
                failure = Some(StaleError::Close { namespace, sockets: cookies.len(), source });
            }
        }
    }
    failure.map_or(Ok(closed), Err)
}

fn close_in(path: &Path, namespace: u64, cookies: &BTreeSet<u64>) -> io::Result<usize> {
    let close = || {
        match File::open(path) {
            // The process or the name has gone meanwhile, or is another's.
            Err(_) => return Ok(0),
            Ok(file) => setns(file, CloneFlags::CLONE_NEWNET)?,
        }
        if namespaces::cookie()? == namespace { diag::close_udp(cookies) } else { Ok(0) }
    };
    // Entering a namespace is for the rest of a thread's life.
    let ended = thread::scope(|scope| scope.spawn(close).join());
    ended.unwrap_or_else(|_| Err(io::Error::other("a thread ended early")))
}
