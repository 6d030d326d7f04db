//! Files of our own, readable by their owner only.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces a file as a whole: whoever reads it sees the old contents or the new, also after a crash. Folders that are
/// missing are made.
///
/// # Errors
/// What the file system says, the same words for the same reason each time; the old file is then still there.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    // Created with mode 0600.
    let mut file = NamedTempFile::new_in(folder).map_err(without_name)?;
    file.write_all(contents).map_err(without_name)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The error without the name of the temporary file, which is another each time.
fn without_name(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(Error::source).and_then(|source| source.downcast_ref::<io::Error>());
    match inner.and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error,
    }
}
