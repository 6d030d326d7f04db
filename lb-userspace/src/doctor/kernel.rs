//! The kernel: version, BTF, JIT, who may load programs.

use super::check::{Check, Machine, Status};

/// (major, minor) of the oldest kernel that works.
const OLDEST: (u32, u32) = (5, 10);

/// First kernels with what is good to have.
const FEATURES: &[((u32, u32), &str)] = &[
    (
        (5, 12),
        "atomics that return something (locks of the flow table are kept in a map; two CPUs may take one turn of round robin)",
    ),
    ((5, 14), "--socket-lb (packets are balanced instead)"),
    ((5, 15), "generic XDP (tc takes any interface)"),
    ((5, 18), "xdp.frags (native XDP above an MTU of about 3500)"),
    ((6, 6), "tcx (tc programs that are swapped without a gap; clsact is used instead)"),
];

/// All checks here.
pub(super) fn checks(machine: &Machine) -> Vec<Check> {
    vec![version(machine), btf(machine), jit(machine), unprivileged(machine)]
}

fn version(machine: &Machine) -> Check {
    let name = "kernel version";
    let release = match machine.sysctl(name, "kernel/osrelease") {
        Ok(release) => release,
        Err(check) => return check,
    };
    let Some(version) = parse(&release) else {
        return Check::bad(Status::Note, name, format!("cannot read {release:?}"), "5.10 or later is needed");
    };
    if version < OLDEST {
        return Check::bad(
            Status::Problem,
            name,
            format!("{release} is too old"),
            "install kernel 5.10 or later",
        );
    }
    let lacks: Vec<&str> =
        FEATURES.iter().filter(|(since, _)| version < *since).map(|(_, feature)| *feature).collect();
    if lacks.is_empty() {
        return Check::ok(name, release);
    }
    Check::bad(
        Status::Note,
        name,
        format!("{release}, without {}", lacks.join(" and ")),
        "a kernel from 6.6 has all of it",
    )
}

/// Major and minor version from a release name such as `6.1.0-31-amd64`.
pub(super) fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf(machine: &Machine) -> Check {
    match machine.sys.join("kernel/btf/vmlinux").metadata() {
        Ok(meta) => Check::ok("kernel BTF", format!("{} KiB", meta.len() / 1024)),
        Err(error) => Check::bad(
            Status::Warning,
            "kernel BTF",
            format!("/sys/kernel/btf/vmlinux: {error}"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the large distributions have it",
        ),
    }
}

fn jit(machine: &Machine) -> Check {
    let name = "BPF JIT";
    // Kernels with CONFIG_BPF_JIT_ALWAYS_ON show 1; other network namespaces than the first do not show it at all.
    match machine.proc("sys/net/core/bpf_jit_enable").ok().flatten().as_deref() {
        Some("0") => Check::bad(
            Status::Warning,
            name,
            "off: programs are interpreted, several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(value) => Check::ok(name, format!("on ({value})")),
        None => Check::bad(
            Status::Note,
            name,
            "cannot be seen from this network namespace",
            "in the first one: sysctl net.core.bpf_jit_enable",
        ),
    }
}

fn unprivileged(machine: &Machine) -> Check {
    let name = "unprivileged BPF";
    match machine.sysctl(name, "kernel/unprivileged_bpf_disabled") {
        Err(check) => check,
        Ok(value) if value == "0" => Check::bad(
            Status::Note,
            name,
            "every user may load BPF programs",
            "lb does not need that: sysctl -w kernel.unprivileged_bpf_disabled=1",
        ),
        Ok(value) => Check::ok(name, format!("off ({value})")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::fixture::{machine, outcome};
    use super::*;

    const RELEASE: &str = "proc/sys/kernel/osrelease";

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, status) in [
            ("5.9.16", Status::Problem),
            ("5.10.0-46-amd64", Status::Note),
            ("5.12.0-34-amd64", Status::Note),
            ("6.1.0-31-cloud-amd64", Status::Note),
            ("6.6-rc1", Status::Ok),
            ("6.18.2", Status::Ok),
            ("10.0", Status::Ok),
            ("what", Status::Note),
        ] {
            let (_folder, machine) = machine(&[(RELEASE, release)]);
            assert_eq!(version(&machine).status, status, "{release}");
        }
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let (_folder, machine) = machine(&[(RELEASE, "6.1.0\n")]);
        let check = version(&machine);
        assert!(check.found.contains("tcx") && !check.found.contains("xdp.frags"), "{}", check.found);
    }

    #[test]
    fn a_bare_machine_is_told_apart_from_a_good_one() {
        let (_folder, bare) = machine(&[]);
        let bare = checks(&bare);
        assert_eq!(
            outcome(&bare),
            [
                ("kernel version", Status::Note),
                ("kernel BTF", Status::Warning),
                ("BPF JIT", Status::Note),
                ("unprivileged BPF", Status::Note)
            ]
        );
        let (_folder, good) = machine(&[
            (RELEASE, "6.12.1"),
            ("sys/kernel/btf/vmlinux", "x"),
            ("proc/sys/net/core/bpf_jit_enable", "1\n"),
            ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
        ]);
        assert!(checks(&good).iter().all(|check| check.status == Status::Ok), "{:?}", checks(&good));
    }

    #[test]
    fn an_interpreter_is_warned_about() {
        let (_folder, machine) = machine(&[("proc/sys/net/core/bpf_jit_enable", "0\n")]);
        assert_eq!(jit(&machine).status, Status::Warning);
    }
}
