//! Finding programs.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folders programs are looked for in: `PATH`, then where cargo installs, then where Debian keeps the
/// administrator's tools (not in everybody's `PATH`).
#[must_use]
pub fn search_path() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    folders.extend(cargo_home.map(|home| home.join("bin")));
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
}

/// The first executable file called `name` in `folders`.
#[must_use]
pub fn find_program(name: impl AsRef<OsStr>, folders: &[PathBuf]) -> Option<PathBuf> {
    let name = name.as_ref();
    folders.iter().map(|folder| folder.join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executables_count_and_the_first_folder_wins() {
        let [plain, first, second] = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        for (folder, mode) in [(&plain, 0o644), (&first, 0o755), (&second, 0o755)] {
            let file = folder.path().join("tool");
            std::fs::write(&file, "").expect("a file");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("a mode");
        }
        let folders = [&plain, &first, &second].map(|folder| folder.path().to_owned());
        assert_eq!(find_program("tool", &folders), Some(first.path().join("tool")));
        assert_eq!(find_program("tool", &folders[..1]), None);
        assert_eq!(find_program("other", &folders), None);
    }
}
