//! What this process may do: capabilities, locked memory.

use super::check::{Check, Machine, Status};
use super::kernel::parse;

/// Bits of the capability sets, from capability.h.
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const SYS_RESOURCE: u32 = 24;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// First kernel that accounts BPF memory to the cgroup and not to RLIMIT_MEMLOCK.
const MEMCG: (u32, u32) = (5, 11);

/// All checks here.
pub(super) fn checks(machine: &Machine) -> Vec<Check> {
    let status = machine.proc("thread-self/status").ok().flatten().unwrap_or_default();
    let set = Privileges::parse(&status);
    vec![capabilities(set), memlock(machine, set)]
}

/// Of this process.
#[derive(Clone, Copy, Debug, Default)]
struct Privileges {
    effective: u64,
    root: bool,
}

impl Privileges {
    /// From /proc/PID/status.
    fn parse(status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Self {
            effective: field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0),
            // Real, effective, saved, file system.
            root: field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)) == Some("0"),
        }
    }

    fn has(self, bit: u32) -> bool {
        self.effective & (1 << bit) != 0
    }
}

fn capabilities(set: Privileges) -> Check {
    let name = "capabilities";
    let wanted = [(NET_ADMIN, "CAP_NET_ADMIN"), (BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")];
    let lacks: Vec<&str> = wanted
        .into_iter()
        // CAP_SYS_ADMIN includes the two that were split from it in 5.8.
        .filter(|(bit, _)| !set.has(*bit) && (*bit == NET_ADMIN || !set.has(SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect();
    if lacks.is_empty() {
        return Check::ok(name, "enough to load and attach programs");
    }
    let found = format!("without {}", lacks.join(", "));
    if set.root {
        let advice = "root in a container: give it these capabilities, or run it on the host";
        return Check::bad(Status::Problem, name, found, advice);
    }
    Check::bad(
        Status::Warning,
        name,
        format!("not root, {found}"),
        "`lb run` wants root; so do the checks left out here",
    )
}

fn memlock(machine: &Machine, set: Privileges) -> Check {
    let name = "locked memory";
    let release = machine.proc("sys/kernel/osrelease").ok().flatten().unwrap_or_default();
    if parse(&release).is_some_and(|version| version >= MEMCG) {
        return Check::ok(name, "not limited (this kernel accounts maps to the cgroup)");
    }
    let limits = machine.proc("thread-self/limits").ok().flatten().unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or("unknown");
    if soft == "unlimited" || set.has(SYS_RESOURCE) {
        return Check::ok(name, format!("{soft} bytes, can be raised"));
    }
    let found = format!("{soft} bytes, and no CAP_SYS_RESOURCE to raise it");
    Check::bad(Status::Problem, name, found, "ulimit -l unlimited; with systemd: LimitMEMLOCK=infinity")
}

#[cfg(test)]
mod tests {
    use super::super::check::fixture::machine;
    use super::*;

    fn status(uid: u32, bits: &[u32]) -> String {
        let set = bits.iter().fold(0u64, |set, bit| set | 1 << bit);
        format!("Name:\tlb\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapPrm:\t0\nCapEff:\t{set:016x}\n")
    }

    #[test]
    fn the_right_capabilities_are_asked_for() {
        for (uid, bits, outcome) in [
            (0, &[NET_ADMIN, SYS_ADMIN][..], Status::Ok),
            (1000, &[NET_ADMIN, BPF, PERFMON][..], Status::Ok),
            (0, &[SYS_ADMIN][..], Status::Problem),
            (0, &[NET_ADMIN, BPF][..], Status::Problem),
            (1000, &[][..], Status::Warning),
        ] {
            let check = capabilities(Privileges::parse(&status(uid, bits)));
            assert_eq!(check.status, outcome, "{uid} {bits:?}: {}", check.found);
        }
    }

    #[test]
    fn locked_memory_matters_on_old_kernels_only() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax locked memory         65536        65536        bytes\n";
        for (release, bits, outcome) in [
            ("5.10.0", &[][..], Status::Problem),
            ("5.10.0", &[SYS_RESOURCE][..], Status::Ok),
            ("5.11.0", &[][..], Status::Ok),
        ] {
            let (_folder, machine) = machine(&[
                ("proc/sys/kernel/osrelease", release),
                ("proc/thread-self/limits", limits),
                ("proc/thread-self/status", &status(0, bits)),
            ]);
            assert_eq!(checks(&machine)[1].status, outcome, "{release} {bits:?}");
        }
    }
}
