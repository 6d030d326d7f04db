//! Where cgroup2 is, and which of its directories has a number.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::doctor::mount_points;

/// Levels of cgroups that are looked through: deeper than any system nests them.
const MAX_DEPTH: usize = 32;

/// Mount points of cgroup2, as the calling thread sees them.
///
/// # Errors
/// When the kernel does not say what is mounted.
pub fn mounts() -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
    Ok(mount_points(&mounts, "cgroup2").map(PathBuf::from).collect())
}

/// The directory of the cgroup with this number, if it can be seen from here.
pub fn find(number: u64) -> Option<PathBuf> {
    let mounts = mounts().ok()?;
    mounts.iter().find_map(|mount| find_below(mount, number, MAX_DEPTH))
}

fn find_below(directory: &Path, number: u64, depth: usize) -> Option<PathBuf> {
    if fs::metadata(directory).ok()?.ino() == number {
        return Some(directory.to_owned());
    }
    let depth = depth.checked_sub(1)?;
    let children = fs::read_dir(directory).ok()?.flatten();
    children
        .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|child| find_below(&child.path(), number, depth))
}
