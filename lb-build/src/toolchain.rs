//! Which toolchain builds the kernel programs: what is on this machine, what is missing, what brings it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{find_program, search_path};
use crate::{BPF_LINKER_VERSION, TARGET};

/// Where Debian's own rustc lives; unlike rustup's, it can have `core` for BPF prebuilt.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// A complete toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's nightly, which builds `core` from its sources.
    Nightly {
        /// The linker.
        bpf_linker: PathBuf,
    },
    /// The distribution's rustc, which brings `core` for BPF.
    Distribution {
        /// The compiler.
        rustc: PathBuf,
        /// The linker.
        bpf_linker: PathBuf,
    },
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nightly { bpf_linker } => write!(f, "nightly with rust-src, {}", bpf_linker.display()),
            Self::Distribution { rustc, bpf_linker } => {
                write!(f, "{} with {TARGET}, {}", rustc.display(), bpf_linker.display())
            }
        }
    }
}

/// Everything that was looked at on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// A nightly that can build `core`.
    pub nightly: bool,
    /// A distribution's rustc that has `core` for BPF.
    pub rustc: Option<PathBuf>,
    /// The linker.
    pub bpf_linker: Option<PathBuf>,
}

/// No complete toolchain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Missing {
    survey: Survey,
}

/// Debian's packages for the eBPF toolchain (in bookworm-security for Debian 12). `g++` is what bpf-linker is linked by.
pub const DEBIAN_PACKAGES: &[&str] =
    &["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev", "g++"];

/// What `cargo install` needs to be told to build bpf-linker against Debian's LLVM.
pub const DEBIAN_LLVM_PREFIX: &str = "/usr/lib/llvm-22";

impl Survey {
    /// Looks at this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let folders = search_path();
        let rustc = Path::new(DISTRIBUTION_RUSTC);
        Self {
            nightly: nightly_has_sources(),
            rustc: has_bpf_core(rustc).then(|| rustc.to_owned()),
            bpf_linker: find_program("bpf-linker", &folders),
        }
    }

    /// The toolchain to use, nightly first.
    ///
    /// # Errors
    /// [`Missing`], which says what to install, when neither is complete.
    pub fn choose(self) -> Result<Toolchain, Missing> {
        match self {
            Self { nightly: true, bpf_linker: Some(bpf_linker), .. } => Ok(Toolchain::Nightly { bpf_linker }),
            Self { rustc: Some(rustc), bpf_linker: Some(bpf_linker), .. } => {
                Ok(Toolchain::Distribution { rustc, bpf_linker })
            }
            survey => Err(Missing { survey }),
        }
    }
}

impl Toolchain {
    /// The toolchain of this machine.
    ///
    /// # Errors
    /// [`Missing`], which says what to install.
    pub fn find() -> Result<Self, Missing> {
        Survey::of_this_machine().choose()
    }

    /// The linker.
    #[must_use]
    pub fn bpf_linker(&self) -> &Path {
        match self {
            Self::Nightly { bpf_linker } | Self::Distribution { bpf_linker, .. } => bpf_linker,
        }
    }
}

impl Missing {
    /// What was found and what was not.
    #[must_use]
    pub fn survey(&self) -> &Survey {
        &self.survey
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, found: bool, what: &str, remedy: &str| {
            let sign = if found { "found  " } else { "MISSING" };
            write!(f, "\n    {sign} {what}")?;
            if found { Ok(()) } else { write!(f, "\n            {remedy}") }
        };
        let linker = self.survey.bpf_linker.is_some();
        write!(f, "no toolchain for the kernel programs ({TARGET}).")?;
        write!(f, "\n  `cargo xtask setup`, as root on Debian, installs what is missing. By hand, one of:")?;
        write!(f, "\n  1. rustup's nightly")?;
        line(
            f,
            self.survey.nightly,
            "nightly with rust-src",
            "rustup toolchain install nightly --component rust-src",
        )?;
        let install = format!("cargo install bpf-linker --version {BPF_LINKER_VERSION} --locked");
        line(f, linker, "bpf-linker", &format!("{install}   (needs LLVM as new as nightly's)"))?;
        write!(f, "\n  2. Debian's rustc")?;
        line(
            f,
            self.survey.rustc.is_some(),
            "/usr/bin/rustc with core for BPF",
            &format!("apt-get install {}", DEBIAN_PACKAGES.join(" ")),
        )?;
        let flags = "--no-default-features --features llvm-22";
        line(f, linker, "bpf-linker", &format!("LLVM_PREFIX={DEBIAN_LLVM_PREFIX} {install} {flags}"))
    }
}

/// Whether rustup's nightly is there with the sources of `core`.
fn nightly_has_sources() -> bool {
    output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"])).is_some_and(
        |sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file(),
    )
}

/// Whether `rustc` has `core` prebuilt for BPF.
fn has_bpf_core(rustc: &Path) -> bool {
    output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .is_some_and(|mut files| {
            files
                .any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
        })
}

/// What a program prints, if it runs and succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(nightly: bool, rustc: bool, bpf_linker: bool) -> Survey {
        Survey {
            nightly,
            rustc: rustc.then(|| DISTRIBUTION_RUSTC.into()),
            bpf_linker: bpf_linker.then(|| "/opt/bpf-linker".into()),
        }
    }

    #[test]
    fn nightly_comes_first_and_the_linker_is_always_needed() {
        assert!(matches!(survey(true, true, true).choose(), Ok(Toolchain::Nightly { .. })));
        assert!(matches!(survey(false, true, true).choose(), Ok(Toolchain::Distribution { .. })));
        for (nightly, rustc, linker) in [(true, true, false), (false, false, true), (false, false, false)] {
            assert!(survey(nightly, rustc, linker).choose().is_err(), "{nightly} {rustc} {linker}");
        }
    }

    #[test]
    fn the_message_names_what_is_missing_and_what_brings_it() {
        let message = survey(false, true, false).choose().expect_err("no linker").to_string();
        assert!(message.contains("found   /usr/bin/rustc"), "{message}");
        assert!(!message.contains("apt-get"), "{message}");
        assert!(
            message
                .contains("LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked")
        );
        assert!(message.contains("cargo xtask setup"));
    }
}
