//! Running cargo for the kernel programs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Missing, TARGET, Toolchain};

/// The package and the file it ends in.
const PACKAGE: &str = "lb-ebpf";

/// Variables of an outer cargo that must not reach the inner one: they would choose its compiler, flags or folders.
const LEAKS: &[&str] = &[
    "CARGO",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "MAKEFLAGS",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// What to do with the kernel programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Build the object.
    Build,
    /// Look for mistakes; warnings are errors. clippy where the toolchain has it, the compiler's own lints elsewhere.
    Lint,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The object file. There after [`Action::Build`] only.
    pub object: PathBuf,
    /// What the compiler said on the way: warnings, progress.
    pub log: String,
}

/// Why there is no object.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing to build with.
    #[error(transparent)]
    Toolchain(#[from] Missing),
    /// Cargo could not be started.
    #[error("start {command} for the kernel programs")]
    Start {
        /// The command.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// The compiler or the linker refused.
    #[error("the kernel programs do not build with {toolchain}\n{log}")]
    Refused {
        /// What they were built with.
        toolchain: Toolchain,
        /// What it said.
        log: String,
    },
}

/// Does `action` on the kernel programs of the workspace at `root`, all output going to `target_dir`, which must not be
/// the workspace's own (an outer cargo may hold its lock).
///
/// `arch` is the architecture of the machine that will run them, as Rust names it: `x86_64`, `aarch64`.
///
/// # Errors
/// No toolchain, or the compiler's or linker's refusal.
pub fn run(action: Action, root: &Path, target_dir: &Path, arch: &str) -> Result<Built, BuildError> {
    let toolchain = Toolchain::find()?;
    let mut command = command(action, &toolchain, root, target_dir, arch);
    let output = command
        .output()
        .map_err(|source| BuildError::Start { command: format!("{:?}", command.get_program()), source })?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(BuildError::Refused { toolchain, log });
    }
    Ok(Built { object: target_dir.join(TARGET).join("release").join(PACKAGE), log })
}

fn command(action: Action, toolchain: &Toolchain, root: &Path, target_dir: &Path, arch: &str) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let verb = match (action, toolchain) {
        (Action::Build, _) => "build",
        (Action::Lint, Toolchain::Nightly { .. }) => "clippy",
        // clippy-driver belongs to one compiler, and Debian ships none for this one.
        (Action::Lint, Toolchain::Distribution { .. }) => "check",
    };
    let mut command = match toolchain {
        Toolchain::Nightly { .. } => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo", verb, "-Z", "build-std=core"]);
            command
        }
        Toolchain::Distribution { .. } => {
            let mut command = Command::new(cargo);
            command.arg(verb);
            command
        }
    };
    for name in LEAKS {
        command.env_remove(name);
    }
    if let Toolchain::Distribution { rustc, .. } = toolchain {
        // aya-ebpf needs unstable features of the compiler; this switch lets a stable one have them.
        command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    }
    // Debug builds are refused by the verifier, hence always release.
    command
        .current_dir(root)
        .args(["--release", "--target", TARGET, "--package", PACKAGE, "--features", "kernel", "--target-dir"])
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(action, toolchain.bpf_linker(), arch));
    command
}

/// Compiler flags, in cargo's encoding that allows blanks.
fn flags(action: Action, bpf_linker: &Path, arch: &str) -> String {
    let mut flags = vec![
        format!("-Clinker={}", bpf_linker.display()),
        // Both for BTF, without which the kernel takes no named maps and prints no source lines.
        "-Cdebuginfo=2".to_owned(),
        // 32-bit arithmetic and jumps: kernel 5.1.
        "-Ctarget-cpu=v3".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "--check-cfg=cfg(bpf_target_arch,values(any()))".to_owned(),
    ];
    if action == Action::Lint {
        flags.push("-Dwarnings".to_owned());
    }
    flags.join("\x1f")
}
