//! File systems: bpffs for pins, cgroup2 for socket programs.

use super::check::{Check, Machine, Status};

/// All checks here.
pub(super) fn checks(machine: &Machine) -> Vec<Check> {
    let mounts = match machine.proc("thread-self/mounts") {
        Ok(mounts) => mounts.unwrap_or_default(),
        Err(error) => {
            return vec![Check::bad(
                Status::Note,
                "mounts",
                format!("could not see: {error}"),
                "look at /proc/mounts yourself",
            )];
        }
    };
    vec![bpffs(&mounts), cgroup2(&mounts)]
}

/// Mount points of a type of file system.
pub(crate) fn points<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == kind).then_some(point)
    })
}

fn bpffs(mounts: &str) -> Check {
    let name = "bpffs";
    let points: Vec<&str> = points(mounts, "bpf").collect();
    if points.contains(&"/sys/fs/bpf") {
        return Check::ok(name, "/sys/fs/bpf");
    }
    let (status, found) = match points.first() {
        Some(other) => (Status::Warning, format!("at {other}, not at /sys/fs/bpf")),
        None => (Status::Problem, "not mounted: maps and links cannot be pinned".to_owned()),
    };
    // `ip netns exec` gives its command a new /sys, where bpffs is missing although the machine has it.
    let advice =
        "mount -t bpf bpf /sys/fs/bpf; inside `ip netns exec`, use `nsenter --net=/run/netns/NAME` instead";
    Check::bad(status, name, found, advice)
}

fn cgroup2(mounts: &str) -> Check {
    match points(mounts, "cgroup2").next() {
        Some(point) => Check::ok("cgroup2", point),
        None => Check::bad(
            Status::Note,
            "cgroup2",
            "not mounted: Services cannot be translated at the socket",
            "mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::fixture::{machine, outcome};
    use super::*;

    #[test]
    fn mounts_are_told_by_type_and_place() {
        for (mounts, bpffs, cgroup2) in [
            ("", Status::Problem, Status::Note),
            ("none /run/bpf bpf rw 0 0\n", Status::Warning, Status::Note),
            (
                "bpf /sys/fs/bpf bpf rw,nosuid 0 0\ncgroup /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
                Status::Ok,
                Status::Ok,
            ),
            (
                "tmpfs /sys/fs/bpf tmpfs rw 0 0\ncgroup /sys/fs/cgroup cgroup rw 0 0\n",
                Status::Problem,
                Status::Note,
            ),
        ] {
            let (_folder, machine) = machine(&[("proc/thread-self/mounts", mounts)]);
            assert_eq!(outcome(&checks(&machine)), [("bpffs", bpffs), ("cgroup2", cgroup2)], "{mounts}");
        }
    }
}
