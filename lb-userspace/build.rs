//! Builds the kernel programs into `OUT_DIR`, where `src/object.rs` embeds them from.

use std::path::{Path, PathBuf};
use std::{env, fs};

use lb_build::{Action, BuildError};

fn main() {
    if let Err(message) = build() {
        // One line for each line: cargo shows these without the script's other output.
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<(), String> {
    let out = folder("OUT_DIR")?;
    let root = folder("CARGO_MANIFEST_DIR")?.join("..");
    for input in ["Cargo.lock", "Cargo.toml", "lb-common", "lb-ebpf"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let arch =
        env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| format!("CARGO_CFG_TARGET_ARCH: {error}"))?;
    let built = lb_build::run(Action::Build, &root, &out.join("ebpf"), &arch).map_err(explain)?;
    if built.log.contains("warning: ") {
        built.log.lines().for_each(|line| println!("cargo::warning={line}"));
    }
    copy(&built.object, &out.join("lb.bpf.o"))
}

fn folder(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| format!("{variable} is not set; run this by cargo"))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|error| format!("copy {} to {}: {error}", from.display(), to.display()))
}

fn explain(error: BuildError) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
