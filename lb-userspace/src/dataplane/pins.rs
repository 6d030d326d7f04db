//! The pin directory: names, lock, removal.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use lb_common::abi::{ABI_VERSION, Meta};
use lb_common::tables::{SPECS, Table};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;

use super::DataplaneError;
use super::hook::Hook;
use super::sockets::SocketHook;
use crate::maps::{KernelStore, MapStore};

/// Looks at /proc/locks before nobody is taken to hold the lock.
const LOOKS: usize = 5;

/// What a pinned link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkKind {
    /// The balancing program, on the way in.
    Ingress(Hook),
    /// Replies of the host's own sockets, on the way out.
    Egress(Hook),
    /// Answers that an XDP program leaves to tc.
    Answer(Hook),
}

impl LinkKind {
    const ALL: [Self; 10] = [
        Self::Ingress(Hook::Xdp),
        Self::Ingress(Hook::XdpGeneric),
        Self::Ingress(Hook::Tcx),
        Self::Ingress(Hook::Clsact),
        Self::Egress(Hook::Tcx),
        Self::Egress(Hook::Clsact),
        Self::Answer(Hook::Tcx),
        Self::Answer(Hook::Clsact),
        Self::Answer(Hook::Xdp),
        Self::Answer(Hook::XdpGeneric),
    ];

    /// The hook.
    pub const fn hook(self) -> Hook {
        match self {
            Self::Ingress(hook) | Self::Egress(hook) | Self::Answer(hook) => hook,
        }
    }

    /// Name in the pin directory, behind the interface's.
    pub fn name(self) -> String {
        match self {
            Self::Ingress(hook) => hook.name().to_owned(),
            Self::Egress(hook) => format!("{hook}_egress"),
            Self::Answer(hook) => format!("{hook}_answer"),
        }
    }
}

/// A link found in the pin directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The interface it was made for.
    pub iface: String,
    /// What it is for.
    pub kind: LinkKind,
    /// The pin.
    pub path: PathBuf,
}

/// The directory on a bpffs that holds everything which outlives the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinDir(PathBuf);

/// Held by the agent that owns a pin directory; the kernel lets go of it with the process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] Flock<File>);

impl PinDir {
    /// Names a directory; nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn maps(&self) -> PathBuf {
        self.0.join("maps")
    }

    fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    fn sockets(&self) -> PathBuf {
        self.0.join("sockets")
    }

    /// Pin of the link of a program on a cgroup.
    pub fn socket(&self, hook: SocketHook) -> PathBuf {
        self.sockets().join(hook.name())
    }

    /// Pin of one map.
    pub fn map(&self, table: Table) -> PathBuf {
        self.maps().join(table.spec().name)
    }

    /// Pin of one link.
    pub fn link(&self, iface: &str, kind: LinkKind) -> PathBuf {
        self.links().join(format!("{}-{}", escape(iface), kind.name()))
    }

    fn error(&self, source: io::Error) -> DataplaneError {
        DataplaneError::PinDir { path: self.0.clone(), source }
    }

    /// Makes the directory and takes its lock.
    ///
    /// # Errors
    /// [`DataplaneError::PinDir`] when it is not on a bpffs, [`DataplaneError::Foreign`] when others may change what is
    /// in it, [`DataplaneError::Locked`] when another agent has it.
    pub fn lock(&self) -> Result<Lock, DataplaneError> {
        // Looked at first, to leave no trace on a file system that was not meant.
        let there = self.0.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        if statfs(there).map_err(|errno| self.error(errno.into()))?.filesystem_type() != BPF_FS_MAGIC {
            return Err(self.error(io::Error::other("not on a BPF file system")));
        }
        for dir in [self.0.clone(), self.maps(), self.links(), self.sockets()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(|source| self.error(source))?;
            let found = fs::symlink_metadata(&dir).map_err(|source| self.error(source))?;
            let (uid, mode) = (found.uid(), found.mode() & 0o7777);
            if !found.is_dir() || uid != geteuid().as_raw() || mode & 0o022 != 0 {
                return Err(DataplaneError::Foreign { path: dir, uid, mode });
            }
        }
        let dir = File::open(&self.0).map_err(|source| self.error(source))?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock(lock)),
            Err(_) => Err(DataplaneError::Locked { path: self.0.clone(), pid: self.holder() }),
        }
    }

    /// The process that holds the lock, as /proc/locks tells: neither a number that another process has by now nor a
    /// zombie.
    pub fn holder(&self) -> Option<u32> {
        let meta = fs::metadata(&self.0).ok()?;
        let (major, minor) = (nix::sys::stat::major(meta.dev()), nix::sys::stat::minor(meta.dev()));
        let file = format!("{major:02x}:{minor:02x}:{}", meta.ino());
        // The kernel shows the list a page at a time, and forgets its place when it changes between two of them.
        (0..LOOKS).find_map(|_| {
            let mut text = String::with_capacity(64 * 1024);
            File::open("/proc/locks").ok()?.read_to_string(&mut text).ok()?;
            holder_of(&text, &file)
        })
    }

    /// Opens the pinned maps, or makes and pins them: (maps, whether they were there before).
    ///
    /// # Errors
    /// [`DataplaneError::Version`] or [`DataplaneError::Map`] when what is pinned does not fit.
    pub fn maps_or_new(&self, sizes: &super::Sizes) -> Result<(KernelStore, bool), DataplaneError> {
        if self.map(Table::Meta).exists() {
            let store = self.open_checked()?;
            store.check_capacities(|spec| sizes.of(spec))?;
            return Ok((store, true));
        }
        // META is pinned last: without it, an earlier start was cut short, and nothing here has been used yet.
        self.remove_maps();
        let mut store = KernelStore::create(|spec| sizes.of(spec))?;
        // Drawn once: where a flow lies depends on it.
        let seed = RandomState::new().hash_one(0_u8) as u32 | 1;
        let meta = Meta { abi_version: ABI_VERSION, flow_seed: seed, ..Meta::default() };
        store.update(Table::Meta, bytemuck::bytes_of(&0_u32), bytemuck::bytes_of(&meta))?;
        store.pin(&self.0)?;
        Ok((store, false))
    }

    /// Opens the pinned maps after a look at their version.
    ///
    /// # Errors
    /// [`DataplaneError::Version`] or [`DataplaneError::Map`] when what is pinned does not fit.
    pub fn open_checked(&self) -> Result<KernelStore, DataplaneError> {
        let found = meta(&KernelStore::open_table(&self.0, Table::Meta)?).map_or(0, |meta| meta.abi_version);
        // 0: pinned, but never written.
        if found != ABI_VERSION && found != 0 {
            return Err(DataplaneError::Version { path: self.0.clone(), found, wanted: ABI_VERSION });
        }
        Ok(KernelStore::open_pinned(&self.0)?)
    }

    /// All pinned links, by interface.
    ///
    /// # Errors
    /// [`DataplaneError::PinDir`].
    pub fn links_found(&self) -> Result<Vec<Link>, DataplaneError> {
        let entries = match fs::read_dir(self.links()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| self.error(source))?,
        };
        let mut links = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| self.error(source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            for kind in LinkKind::ALL {
                if let Some(iface) = name.strip_suffix(&format!("-{}", kind.name())) {
                    links.push(Link { iface: unescape(iface), kind, path: entry.path() });
                }
            }
        }
        links.sort();
        Ok(links)
    }

    /// Whether anything is pinned here.
    pub fn exists(&self) -> bool {
        self.0.exists()
    }

    fn remove_maps(&self) {
        // META first: what is left after an interruption does not look complete.
        for spec in SPECS.iter().rev().filter(|s| s.table == Table::Meta).chain(SPECS) {
            let _absent = fs::remove_file(self.map(spec.table));
        }
    }

    fn remove_dirs(&self) {
        for dir in [self.maps(), self.links(), self.sockets(), self.0.clone()] {
            let _not_empty = fs::remove_dir(dir);
        }
    }

    /// Removes the maps and the directory itself; links must be gone.
    pub fn remove(&self) {
        self.remove_maps();
        self.remove_dirs();
    }
}

/// Lines are `1: FLOCK  ADVISORY  WRITE 1234 00:2d:5 0 EOF`; those who wait have an arrow in front.
fn holder_of(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, "WRITE", pid, held, ..] if held == file => pid.parse().ok(),
        _ => None,
    })
}

/// The entry of the `META` map, `None` while it has not been written.
pub fn meta(store: &dyn MapStore) -> Option<Meta> {
    let value = store.lookup(Table::Meta, bytemuck::bytes_of(&0u32)).ok()??;
    bytemuck::try_pod_read_unaligned(&value).ok()
}

/// bpffs refuses names with a dot.
fn escape(iface: &str) -> String {
    iface.replace('%', "%25").replace('.', "%2e").replace('-', "%2d")
}

fn unescape(name: &str) -> String {
    name.replace("%2d", "-").replace("%2e", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_pinning() {
        for name in ["eth0", "eth0.100", "veth-a", "a%2eb", "tcx", "br-1.2-3"] {
            assert!(!escape(name).contains(['.', '-']), "{name}");
            assert_eq!(unescape(&escape(name)), name);
        }
    }

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:2d:5 0 EOF\n2: FLOCK  ADVISORY  READ 8 00:2d:5 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:2d:55 0 EOF\n4: FLOCK  ADVISORY  WRITE 10 00:2d:5 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 11 00:2d:6 0 EOF\n";
        assert_eq!(holder_of(locks, "00:2d:5"), Some(10));
        assert_eq!(holder_of(locks, "00:2d:6"), None);
    }

    #[test]
    fn every_kind_has_its_own_suffix() {
        for a in LinkKind::ALL {
            for b in LinkKind::ALL {
                let ends = format!("-{}", a.name()).ends_with(&format!("-{}", b.name()));
                assert_eq!(ends, a == b, "{a:?} {b:?}");
            }
        }
    }
}
