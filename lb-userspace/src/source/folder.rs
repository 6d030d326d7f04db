//! Which files a path stands for.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

/// File names that are read in a folder.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Whether a file of this name is read in a folder.
pub(super) fn is_wanted(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let wanted = path.extension().is_some_and(|extension| EXTENSIONS.map(OsStr::new).contains(&extension));
    wanted && !hidden
}

/// Whether there is a file, or something of which nobody knows whether it is one. Follows symbolic links; one that leads nowhere
/// is no file.
pub(super) fn is_there(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => true,
        Ok(_) => {
            debug!(path = %path.display(), "not a file, skipped");
            false
        }
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The files a path stands for, in order.
pub(super) fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if is_wanted(&path) && is_there(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
