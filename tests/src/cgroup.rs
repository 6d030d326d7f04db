//! A cgroup of a test's own, for threads of the test.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use lb_userspace::lab::netns::Namespace;
use lb_userspace::sockets::cgroup::mounts;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::gettid;
use tempfile::TempDir;

use crate::patience::wait_for;

/// A cgroup whose members are threads, removed when dropped.
#[derive(Debug)]
pub struct TestCgroup {
    path: PathBuf,
    /// Where cgroup2 has been mounted for this test; nobody had done it.
    mount: Option<TempDir>,
}

impl TestCgroup {
    /// A cgroup of this name inside the test's own: threads move within their process's domain only.
    ///
    /// # Panics
    /// When it cannot be made: not root, or a kernel without cgroup2.
    pub fn new(name: &str) -> Self {
        let mut own_mount = None;
        let root = mounts().expect("mounts").into_iter().next().unwrap_or_else(|| {
            let folder = own_mount.insert(TempDir::new().expect("a folder"));
            mount(Some("none"), folder.path(), Some("cgroup2"), MsFlags::empty(), None::<&str>)
                .expect("a kernel with cgroup2");
            folder.path().to_owned()
        });
        let path = own(&root).join(name);
        fs::create_dir(&path).expect("a cgroup");
        let this = Self { path, mount: own_mount };
        fs::write(this.path.join("cgroup.type"), "threaded").expect("a cgroup of threads");
        this
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same as text.
    ///
    /// # Panics
    /// When it is no text.
    pub fn text(&self) -> &str {
        self.path.to_str().expect("a plain path")
    }

    /// Moves the calling thread here.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.threads"), gettid().to_string())
    }

    /// Runs `body` as a member, in a network namespace, on a thread of its own. Sockets it makes stay members.
    ///
    /// # Panics
    /// When the kernel refuses, or `body` does.
    pub fn run<T: Send>(&self, namespace: &Namespace, body: impl FnOnce() -> T + Send) -> T {
        let member = || {
            self.enter().expect("enters the cgroup");
            namespace.enter().expect("enters the namespace");
            body()
        };
        let ended = thread::scope(|scope| scope.spawn(member).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A command that becomes a member, in a network namespace.
    ///
    /// # Panics
    /// When there is no descriptor left.
    pub fn command(&self, namespace: &Namespace, program: &str) -> Command {
        let mut command = namespace.command("sh").expect("a command");
        command.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.path).arg(program);
        command
    }
}

/// The directory of this process's cgroup, with cgroup2 mounted at `root`.
///
/// # Panics
/// On a kernel without cgroup2.
pub fn own(root: &Path) -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").expect("this process's cgroup");
    root.join(own.lines().find_map(|line| line.strip_prefix("0::/")).expect("one of cgroup2"))
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        if !thread::panicking() {
            wait_for("the end of the cgroup's threads", || fs::remove_dir(&self.path).is_ok());
        } else if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
        if let Some(mount) = &self.mount {
            let _busy = umount2(mount.path(), MntFlags::MNT_DETACH);
        }
    }
}
