//! The BPF file system, where maps and links are pinned.

use anyhow::Context;
use xshell::{Shell, cmd};

use crate::step;

/// What [`mount`] does, in words.
pub(crate) const MOUNT: &str = "mount -t bpf bpf /sys/fs/bpf";

/// Whether it is mounted where everybody expects it.
pub(crate) fn is_mounted() -> bool {
    std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts_bpffs(&mounts))
}

fn mounts_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/sys/fs/bpf") && fields.next() == Some("bpf")
    })
}

/// Mounts it.
pub(crate) fn mount(sh: &Shell) -> anyhow::Result<()> {
    step::say(MOUNT);
    step::run(cmd!(sh, "mount -t bpf bpf /sys/fs/bpf"))
        .context("is /sys read-only here? In a container, give it a bpffs at /sys/fs/bpf from outside")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bpf_at_the_usual_place_counts() {
        assert!(mounts_bpffs("sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\n"));
        assert!(!mounts_bpffs("bpf /tmp/bpf bpf rw 0 0\n"));
        assert!(!mounts_bpffs("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
