//! `cargo xtask setup`: what building and testing need, installed if it is not there.

use xshell::Shell;

use crate::{bpffs, kernel, packages, step};

/// Brings everything that is missing; says so when nothing is.
pub(crate) fn run(sh: &Shell) -> anyhow::Result<()> {
    let todo = Todo::look(sh);
    if todo.is_empty() {
        step::say("setup: everything is here");
        return Ok(());
    }
    if !step::is_root(sh)? {
        anyhow::bail!(
            "setup needs root, for:\n{todo}\nRun it as root: sudo -E env \"PATH=$PATH\" cargo xtask setup"
        );
    }
    eprint!("==> setup will\n{todo}");
    packages::install(sh, &todo.packages)?;
    if todo.bpf_linker {
        kernel::install_linker(sh)?;
    }
    if todo.bpffs {
        bpffs::mount(sh)?;
    }
    let rest = Todo::look(sh);
    anyhow::ensure!(rest.is_empty(), "setup ran, and yet there is more to do:\n{rest}");
    Ok(())
}

/// What is missing.
struct Todo {
    packages: Vec<&'static str>,
    bpf_linker: bool,
    bpffs: bool,
}

impl Todo {
    fn look(_sh: &Shell) -> Self {
        let kernel = kernel::missing();
        let mut packages = packages::missing_tools();
        packages.extend(kernel.packages);
        Self { packages, bpf_linker: kernel.bpf_linker, bpffs: !bpffs::is_mounted() }
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && !self.bpf_linker && !self.bpffs
    }
}

impl std::fmt::Display for Todo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.packages.is_empty() {
            writeln!(f, "    apt-get install {}", self.packages.join(" "))?;
        }
        if self.bpf_linker {
            writeln!(f, "    {}", kernel::INSTALL_LINKER)?;
        }
        if self.bpffs {
            writeln!(f, "    {}", bpffs::MOUNT)?;
        }
        Ok(())
    }
}
