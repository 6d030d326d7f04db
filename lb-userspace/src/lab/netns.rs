//! Network namespaces with names, in the place and manner of `ip netns`, so that `ip netns list` shows them.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::error::{Context, Error, Result};

/// Where named network namespaces are bind-mounted.
pub const DIRECTORY: &str = "/run/netns";

const NONE: Option<&str> = None;

/// A named network namespace, held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a new namespace of this name, its `lo` still down.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name is taken; whatever the kernel refuses, such as not being root.
    pub fn create(name: &str) -> Result<Self> {
        let path = path_of(name)?;
        let lock = prepare_directory()?;
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists {
                    object: format!("the network namespace {name}"),
                    hint: format!("`ip netns delete {name}` removes it if nobody needs it"),
                });
            }
            other => other.context("create", path.display())?,
        };
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("make network namespace", name)?;
            mount(Some("/proc/thread-self/ns/net"), &path, NONE, MsFlags::MS_BIND, NONE)
                .context("name network namespace", name)
        });
        drop(lock);
        match made.and_then(|()| Self::open(name)) {
            Ok(namespace) => Ok(namespace),
            Err(error) => {
                // Nothing but the empty file can be left; the first error is the one to report.
                let _ = Self::remove(name);
                Err(error)
            }
        }
    }

    /// Opens the namespace of this name.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none, or when the name is left over from a namespace that is gone.
    pub fn open(name: &str) -> Result<Self> {
        let path = path_of(name)?;
        let missing = |hint: &str| Error::Missing {
            object: format!("network namespace {name}"),
            hint: hint.to_owned(),
        };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing("`ip netns list` shows those that are there"));
            }
            other => other.context("open", path.display())?,
        };
        // A name without its mount is a plain file on /run, on another device than namespaces are.
        let device = |path: &str| fs::metadata(path).map(|meta| meta.dev()).context("look at", path);
        let metadata = file.metadata().context("look at", path.display())?;
        if metadata.dev() != device("/proc/self/ns/net")? {
            return Err(missing("its name is a leftover"));
        }
        Ok(Self { name: name.to_owned(), file })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file descriptor of the namespace.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from).context("duplicate descriptor of", &self.name)
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).context("enter network namespace", &self.name)
    }

    /// Runs `body` inside the namespace, on a thread of its own.
    ///
    /// # Errors
    /// When the kernel refuses to enter. A panic of `body` goes on in the caller.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(body())
        })
    }

    /// A command whose process will be inside the namespace. Mounts stay the caller's: unlike under
    /// `ip netns exec`, bpffs and cgroups are where they were.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        self.command_with_files(program, &[])
    }

    /// The same; in place of some files (the second of each pair) the process sees others (the first).
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn command_with_files(
        &self,
        program: impl AsRef<OsStr>,
        files: &[(PathBuf, PathBuf)],
    ) -> Result<Command> {
        let descriptor = self.descriptor()?;
        let files: Vec<(CString, CString)> =
            files.iter().map(|(from, to)| Ok((c_path(from)?, c_path(to)?))).collect::<Result<_>>()?;
        let mut command = Command::new(program);
        let enter = move || -> nix::Result<()> {
            setns(&descriptor, CloneFlags::CLONE_NEWNET)?;
            if files.is_empty() {
                return Ok(());
            }
            unshare(CloneFlags::CLONE_NEWNS)?;
            // Nothing mounted here shows outside, but what is unmounted outside goes here too.
            let (none, root): (Option<&CStr>, &CStr) = (None, c"/");
            mount(none, root, none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
            for (from, to) in &files {
                mount(Some(from.as_c_str()), to.as_c_str(), none, MsFlags::MS_BIND, none)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec only setns, unshare and mount run: plain system calls on a descriptor and on
        // C strings that the closure owns; turning an errno into an error allocates nothing.
        unsafe {
            command.pre_exec(move || enter().map_err(io::Error::from));
        }
        Ok(command)
    }

    /// Processes whose main thread is in the namespace, without the calling process.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let own = self.file.metadata().context("look at", &self.name)?;
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").context("read", "/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // Gone meanwhile, or a zombie: it is in no namespace any more.
            let Ok(other) = fs::metadata(entry.path().join("ns/net")) else { continue };
            if (other.dev(), other.ino()) == (own.dev(), own.ino())
                && pid.unsigned_abs() != std::process::id()
            {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Whether this is the namespace that the calling process lives in.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn is_own(&self) -> Result<bool> {
        let own = fs::metadata("/proc/self/ns/net").context("look at", "/proc/self/ns/net")?;
        let this = self.file.metadata().context("look at", &self.name)?;
        Ok((own.dev(), own.ino()) == (this.dev(), this.ino()))
    }

    /// Removes the name; the namespace itself goes with its last process and descriptor.
    ///
    /// # Errors
    /// When the kernel refuses; no such name is not an error.
    pub fn remove(name: &str) -> Result<()> {
        let path = path_of(name)?;
        // A name may be mounted over more than once, after a crash of whoever made it.
        loop {
            match umount2(&path, MntFlags::MNT_DETACH) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(error) => return Err(error).context("unmount", path.display()),
            }
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("remove", path.display())
            }
            _ => Ok(()),
        }
    }

    /// Names that begin with `prefix`, in order.
    ///
    /// # Errors
    /// When the directory exists and cannot be read.
    pub fn names(prefix: &str) -> Result<Vec<String>> {
        let entries = match fs::read_dir(DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context("read", DIRECTORY)?,
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        Ok(names)
    }
}

fn path_of(name: &str) -> Result<PathBuf> {
    // 255 is NAME_MAX of Linux' file systems.
    if name.is_empty() || name.len() > 255 || name.starts_with('.') || name.contains('/') {
        return Err(Error::invalid(format!("network namespace name {name:?}"), "cannot be a file name"));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::invalid(format!("path {}", path.display()), "has a zero byte"))
}

/// Makes /run/netns a shared mount, as `ip netns add` does, so that names made here are seen, and removed, in all
/// mount namespaces. The returned lock is the one that `ip` takes.
fn prepare_directory() -> Result<Flock<File>> {
    fs::create_dir_all(DIRECTORY).context("create", DIRECTORY)?;
    let directory = File::open(DIRECTORY).context("open", DIRECTORY)?;
    let lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .context("lock", DIRECTORY)?;
    let share = || mount(NONE, DIRECTORY, NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    match share() {
        Err(Errno::EINVAL) => {
            mount(Some(DIRECTORY), DIRECTORY, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
                .and_then(|()| share())
                .context("make a shared mount of", DIRECTORY)?;
        }
        other => other.context("make a shared mount of", DIRECTORY)?,
    }
    Ok(lock)
}

/// Runs `body` on a thread of its own and hands a panic on.
fn on_thread<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        for name in ["", ".", "..", "a/b", ".hidden"] {
            assert!(matches!(path_of(name), Err(Error::Invalid { .. })), "{name:?}");
        }
        assert_eq!(path_of("lb-x-node").unwrap(), Path::new("/run/netns/lb-x-node"));
    }
}
