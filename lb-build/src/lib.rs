//! Builds the kernel programs: which toolchain, with which flags.
//!
//! The build script of `lb-userspace` and `xtask` both stand on this crate, so that they never choose differently.

mod compile;
mod program;
mod toolchain;

pub use compile::{Action, BuildError, Built, run};
pub use program::{find_program, search_path};
pub use toolchain::{DEBIAN_LLVM_PREFIX, DEBIAN_PACKAGES, Missing, Survey, Toolchain};

/// The target of the kernel programs: little-endian BPF.
pub const TARGET: &str = "bpfel-unknown-none";

/// The bpf-linker release that the project is tried with.
pub const BPF_LINKER_VERSION: &str = "0.13.0";
