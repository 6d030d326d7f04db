//! `cargo xtask lint`.

use lb_build::{Action, BPF_LINKER_VERSION, Built};
use xshell::{Shell, cmd};

use crate::step;

/// Formatting, lints of both worlds, licences.
pub(crate) fn run(sh: &Shell) -> anyhow::Result<()> {
    step::say("formatting");
    step::run(cmd!(sh, "cargo fmt --all --check"))?;
    step::say("clippy, user side");
    step::run(cmd!(sh, "cargo clippy --quiet --workspace --all-targets -- -Dwarnings"))?;
    step::say(format!("lints, kernel side (bpf-linker {BPF_LINKER_VERSION} or later)"));
    let folder = step::target().join("ebpf-lint");
    let Built { log, .. } = lb_build::run(Action::Lint, &step::workspace(), &folder, std::env::consts::ARCH)?;
    log.lines().filter(|line| line.starts_with("warning")).for_each(|line| println!("{line}"));
    licences(sh)
}

fn licences(sh: &Shell) -> anyhow::Result<()> {
    if lb_build::find_program("cargo-deny", &lb_build::search_path()).is_none() {
        step::say(
            "licences and bans of dependencies: NOT CHECKED, no cargo-deny (cargo install cargo-deny --locked)",
        );
        return Ok(());
    }
    step::say("licences and bans of dependencies");
    step::run(cmd!(sh, "cargo deny --offline check bans licenses sources"))
}
