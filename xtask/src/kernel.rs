//! The toolchain of the kernel programs: what of it is missing, and installing it.

use lb_build::{BPF_LINKER_VERSION, DEBIAN_LLVM_PREFIX, DEBIAN_PACKAGES, Toolchain};
use xshell::{Shell, cmd};

use crate::step;

/// What [`install_linker`] does, in words.
pub(crate) const INSTALL_LINKER: &str = "cargo install bpf-linker, against Debian's LLVM 22 (about a minute)";

/// What is missing of the toolchain that setup installs.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    pub(crate) packages: Vec<&'static str>,
    pub(crate) bpf_linker: bool,
}

/// Nothing, if any complete toolchain is there; else what Debian's lacks.
pub(crate) fn missing() -> Missing {
    let Err(missing) = Toolchain::find() else { return Missing::default() };
    let survey = missing.survey();
    let bpf_linker = survey.bpf_linker.is_none();
    // The linker's libraries come with the same list, so that a lone missing linker brings them as well.
    let packages = if survey.rustc.is_none() || bpf_linker { DEBIAN_PACKAGES.to_vec() } else { Vec::new() };
    Missing { packages: not_installed(packages), bpf_linker }
}

/// Those of `packages` that dpkg does not have.
fn not_installed(packages: Vec<&'static str>) -> Vec<&'static str> {
    let installed = |package: &&str| {
        std::process::Command::new("dpkg-query")
            .args(["--show", "--showformat=${db:Status-Status}", package])
            .output()
            .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
    };
    packages.into_iter().filter(|package| !installed(package)).collect()
}

/// Builds and installs bpf-linker.
pub(crate) fn install_linker(sh: &Shell) -> anyhow::Result<()> {
    step::say(INSTALL_LINKER);
    let install =
        cmd!(sh, "cargo install bpf-linker --version {BPF_LINKER_VERSION} --locked --no-default-features");
    step::run(install.args(["--features", "llvm-22", "--quiet"]).env("LLVM_PREFIX", DEBIAN_LLVM_PREFIX))
}
