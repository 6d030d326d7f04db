//! The network namespaces of this machine: their cookies, and the addresses that their sockets have.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::GetStruct;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};

use crate::lab::netns::DIRECTORY;
use crate::model::addresses::is_global;
use crate::model::desired::Family;

/// Number of a socket's network namespace, never given twice (kernel 5.14).
#[derive(Clone, Copy)]
struct NetnsCookie;

nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64, GetStruct<u64>);

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its cookie.
    pub cookie: u64,
    /// A file of it. Not held open: there may be more namespaces than descriptors.
    pub path: PathBuf,
    identity: Identity,
    /// The agent's own.
    pub own: bool,
    /// One of those asked for.
    pub named: bool,
    /// What its sockets use as source; of a family with several addresses, nothing can be said.
    pub addresses: Vec<IpAddr>,
}

/// Which namespace: device and inode of its file.
type Identity = (u64, u64);

fn identity(file: &File) -> io::Result<Identity> {
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// The file of a namespace that the user names: a path, or a name as `ip netns` has them.
pub fn path_of(name: &str) -> PathBuf {
    // An absolute path takes the directory's place.
    Path::new(DIRECTORY).join(name)
}

/// Looks at the caller's namespace, those in `named`, those that have a name, and those of all processes. What cannot be
/// entered is left out.
///
/// # Errors
/// When the caller's own cannot be told (kernels before 5.14).
pub fn look(named: &[PathBuf]) -> io::Result<Vec<Found>> {
    let own = File::open("/proc/thread-self/ns/net")?;
    // Entering a namespace is for the rest of a thread's life.
    let looked = thread::scope(|scope| scope.spawn(|| visit_all(own, named)).join());
    looked.unwrap_or_else(|_| Err(io::Error::other("a thread ended early")))
}

fn visit_all(own: File, named: &[PathBuf]) -> io::Result<Vec<Found>> {
    let (device, inode) = identity(&own)?;
    let mut seen = BTreeSet::from([(device, inode)]);
    let own_path = PathBuf::from("/proc/self/ns/net");
    let mut found = vec![Found { own: true, ..visit(own, own_path)? }];
    let wanted: BTreeSet<Identity> =
        named.iter().filter_map(|path| identity(&File::open(path).ok()?).ok()).collect();
    for path in named.iter().cloned().chain(entries(DIRECTORY, "")).chain(entries("/proc", "ns/net")) {
        // A look without opening first: most processes share a namespace.
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.dev() != device || !seen.insert((meta.dev(), meta.ino())) {
            continue;
        }
        if let Ok(visited) = File::open(&path).and_then(|file| visit(file, path)) {
            found.push(visited);
        }
    }
    for one in &mut found {
        one.named = wanted.contains(&one.identity);
    }
    Ok(found)
}

/// Entries of a directory, with something behind them.
fn entries(directory: &str, behind: &'static str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(move |entry| if behind.is_empty() { entry.path() } else { entry.path().join(behind) })
}

/// Cookie of the calling thread's namespace.
///
/// # Errors
/// Kernels before 5.14 do not tell.
pub fn cookie() -> io::Result<u64> {
    let any = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    Ok(getsockopt(&any, NetnsCookie)?)
}

/// Moves the thread there, and looks around.
fn visit(file: File, path: PathBuf) -> io::Result<Found> {
    let identity = identity(&file)?;
    setns(&file, CloneFlags::CLONE_NEWNET)?;
    let cookie = cookie()?;
    Ok(Found { cookie, path, identity, own: false, named: false, addresses: addresses() })
}

/// The address of each family that has just one.
fn addresses() -> Vec<IpAddr> {
    let all: BTreeSet<IpAddr> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .filter(|address| is_global(*address))
        .collect();
    let of = |family| {
        let mut of_family = all.iter().copied().filter(move |address| Family::of(*address) == family);
        of_family.next().filter(|_| of_family.next().is_none())
    };
    [Family::V4, Family::V6].into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        assert_eq!(path_of("pod"), Path::new("/run/netns/pod"));
        assert_eq!(path_of("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
    }
}
