//! What can go wrong between the agent and the kernel, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::maps::MapError;

/// An error of the dataplane.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The pin directory cannot be made or read.
    #[error("{}: {source}; it must be on a BPF file system (`mount -t bpf bpf /sys/fs/bpf`)", path.display())]
    PinDir {
        /// The directory or pin.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Others may change what is pinned, or have made the directory.
    #[error("{}: belongs to user {uid} with mode {mode:03o}; only its owner, who runs the agent, may write there: remove it, or use another --pin-dir", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else holds the pin directory.
    #[error("{}: another agent is running on this pin directory{}; stop it, or use another --pin-dir", path.display(), pid.map_or(String::new(), |pid| format!(" (process {pid})")))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other agent, when known.
        pid: Option<u32>,
    },
    /// What is pinned is of another version.
    #[error("{}: pinned by another version of lb (layout {found}, this one has {wanted}); `lb detach --pin-dir {}` removes it, which ends the connections it carries", path.display(), path.display())]
    Version {
        /// The directory.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Version of this program.
        wanted: u32,
    },
    /// A map cannot be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The object cannot be loaded.
    #[error("cannot load the kernel programs: {reason}")]
    Object {
        /// What the loader says.
        reason: String,
    },
    /// The verifier or the kernel refuses a program.
    #[error("the kernel refuses program {program}: {reason}")]
    Program {
        /// The program.
        program: &'static str,
        /// The kernel's reason, the verifier's log cut to its end.
        reason: String,
    },
    /// A program cannot be attached.
    #[error("{iface}: cannot attach at {hook}: {reason}{}", advice.map_or(String::new(), |advice| format!("; {advice}")))]
    Attach {
        /// The interface.
        iface: String,
        /// The hook tried.
        hook: &'static str,
        /// The kernel's reason.
        reason: String,
        /// What to do.
        advice: Option<&'static str>,
    },
    /// The kernel does not say which filters are at clsact.
    #[error("cannot list tc filters: {source}")]
    Filters {
        /// The kernel's reason.
        source: io::Error,
    },
    /// A program cannot be detached.
    #[error("{iface}: cannot detach from {hook}: {reason}")]
    Detach {
        /// The interface.
        iface: String,
        /// The hook.
        hook: &'static str,
        /// The kernel's reason.
        reason: String,
    },
}
