//! Debian packages: the programs that the tests and the demo run.

use std::path::Path;

use anyhow::Context;
use lb_build::{find_program, search_path};
use xshell::{Shell, cmd};

use crate::step;

/// Programs, and the package of each.
const TOOLS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("musl-gcc", "musl-tools"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    ("ping", "iputils-ping"),
    ("python3", "python3"),
    ("socat", "socat"),
    ("tcpdump", "tcpdump"),
];

/// Where Debian asks whether a freshly installed service may start.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Packages of the tools that are not there.
pub(crate) fn missing_tools() -> Vec<&'static str> {
    let folders = search_path();
    TOOLS
        .iter()
        .filter(|(tool, _)| find_program(tool, &folders).is_none())
        .map(|(_, package)| *package)
        .collect()
}

/// Installs packages. Services among them (nginx) are not started.
pub(crate) fn install(sh: &Shell, packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    anyhow::ensure!(
        find_program("apt-get", &search_path()).is_some(),
        "this machine has no apt-get; install by hand what these Debian packages hold: {}",
        packages.join(" "),
    );
    let _quiet = NoServices::new()?;
    let _frontend = sh.push_env("DEBIAN_FRONTEND", "noninteractive");
    step::say("apt-get update");
    step::run(cmd!(sh, "apt-get update -qq"))?;
    step::say(format!("apt-get install {}", packages.join(" ")));
    step::run(cmd!(sh, "apt-get install -y -qq --no-install-recommends {packages...}")).with_context(
        || "Debian 12 has all of these, its toolchain in bookworm-security: look at /etc/apt/sources.list*",
    )
}

/// While it lives, installing a package starts no service.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;

        let policy = Path::new(POLICY);
        if policy.exists() {
            return Ok(Self { ours: false });
        }
        // 101: "action forbidden by policy".
        std::fs::write(policy, "#!/bin/sh\nexit 101\n").with_context(|| format!("write {POLICY}"))?;
        let guard = Self { ours: true };
        std::fs::set_permissions(policy, PermissionsExt::from_mode(0o755))
            .with_context(|| format!("chmod {POLICY}"))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            eprintln!(
                "xtask: could not remove {POLICY} ({error}); please do, or no service will start when installed"
            );
        }
    }
}
