//! Settings of this network namespace: forwarding, and which sources are let through.

use std::ops::RangeInclusive;

use super::check::{Check, Machine, Status};
use crate::plan::DEFAULT_MASQUERADE_PORTS;

/// All checks here.
pub(super) fn checks(machine: &Machine) -> Vec<Check> {
    let mut checks = vec![
        forwarding(machine, "IPv4 forwarding", "net/ipv4/ip_forward"),
        forwarding(machine, "IPv6 forwarding", "net/ipv6/conf/all/forwarding"),
    ];
    checks.push(rp_filter(machine));
    checks.push(accept_local(machine));
    checks.push(masquerade_ports(machine, &DEFAULT_MASQUERADE_PORTS));
    checks
}

/// Whether source ports for masqueraded flows are ports that local sockets take by themselves. Then a reply to such a socket may
/// be taken for one to a client.
pub(crate) fn masquerade_ports(machine: &Machine, ports: &RangeInclusive<u16>) -> Check {
    let (name, path) = ("masquerade ports", "net/ipv4/ip_local_port_range");
    let text = match machine.sysctl(name, path) {
        Ok(text) => text,
        Err(check) => return check,
    };
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (numbers.next(), numbers.next()) else {
        return Check::bad(
            Status::Note,
            name,
            format!("cannot read {text:?}"),
            format!("look at /proc/sys/{path} yourself"),
        );
    };
    let (from, to) = (ports.start(), ports.end());
    if *to < first || last < *from {
        return Check::ok(name, format!("{from}-{to}, away from {first}-{last} of local sockets"));
    }
    Check::bad(
        Status::Warning,
        name,
        format!(
            "{from}-{to} are also taken by local sockets ({first}-{last}): replies to these may go to clients"
        ),
        "lb run --masquerade-ports FIRST-LAST, or sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"",
    )
}

fn forwarding(machine: &Machine, name: &str, path: &str) -> Check {
    match machine.sysctl(name, path) {
        Err(check) => check,
        Ok(value) if value == "0" => Check::bad(
            Status::Warning,
            name,
            "off: the host drops what is not for itself",
            format!("sysctl -w {}=1", path.replace('/', ".")),
        ),
        Ok(_) => Check::ok(name, "on"),
    }
}

/// Values of rp_filter.
const STRICT: u8 = 1;
const LOOSE: u8 = 2;

/// The kernel takes the higher of `all` and the interface's own value (Documentation/networking/ip-sysctl.rst).
fn rp_filter(machine: &Machine) -> Check {
    let name = "rp_filter";
    let folder = machine.proc.join("sys/net/ipv4/conf");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            return Check::bad(
                Status::Note,
                name,
                format!("could not see: {error}"),
                "look at net.ipv4.conf.*.rp_filter yourself",
            );
        }
    };
    let value = |interface: &str| -> Option<u8> {
        let path = format!("sys/net/ipv4/conf/{interface}/rp_filter");
        machine.proc(path).ok().flatten()?.parse().ok()
    };
    let all = value("all").unwrap_or(0);
    let mut interfaces: Vec<(String, u8)> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|interface| interface != "all" && interface != "lo")
        .filter_map(|interface| value(&interface).map(|own| (interface, own.max(all))))
        .collect();
    interfaces.sort();
    let with = |wanted: u8| -> Vec<&str> {
        interfaces
            .iter()
            .filter(|(_, value)| *value == wanted)
            .map(|(interface, _)| interface.as_str())
            .collect()
    };
    let (strict, loose) = (with(STRICT), with(LOOSE));
    if !strict.is_empty() {
        return Check::bad(
            Status::Warning,
            name,
            format!(
                "strict on {}: replies, whose source becomes the Service's address, are dropped there when routing is \
                 left to the host",
                list(&strict)
            ),
            advice(all, &strict),
        );
    }
    if !loose.is_empty() {
        return Check::bad(
            Status::Note,
            name,
            format!("loose on {}: replies are still dropped on interfaces without an address", list(&loose)),
            advice(all, &loose),
        );
    }
    Check::ok(name, "off everywhere")
}

/// Without it IPv4 does not forward what has an address of this host as its source: replies of node ports, and packets
/// that are masqueraded, have one once they are translated. `all` counts for each interface (ip-sysctl.rst).
fn accept_local(machine: &Machine) -> Check {
    let (name, path) = ("accept_local", "net/ipv4/conf/all/accept_local");
    match machine.sysctl(name, path) {
        Err(check) => check,
        Ok(value) if value == "0" => Check::bad(
            Status::Note,
            name,
            "off: clients outside get no answer from node ports and where they are masqueraded, when routing is left to \
             the host",
            format!("sysctl -w {}=1", path.replace('/', ".")),
        ),
        Ok(_) => Check::ok(name, "on"),
    }
}

/// What to set, to the point.
fn advice(all: u8, interfaces: &[&str]) -> String {
    let mut settings: Vec<String> = Vec::new();
    if all != 0 {
        settings.push("net.ipv4.conf.all.rp_filter=0".to_owned());
    }
    // `default` only matters to interfaces to come, which is where pods come from.
    settings.extend(
        interfaces.iter().take(LISTED).map(|interface| format!("net.ipv4.conf.{interface}.rp_filter=0")),
    );
    format!("sysctl -w {}", settings.join(" "))
}

/// How many names are spelled out.
const LISTED: usize = 4;

fn list(names: &[&str]) -> String {
    let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::fixture::{machine, outcome};
    use super::*;

    fn filter(values: &[(&str, &str)]) -> Check {
        let files: Vec<(String, &str)> = values
            .iter()
            .map(|(interface, value)| (format!("proc/sys/net/ipv4/conf/{interface}/rp_filter"), *value))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, value)| (path.as_str(), *value)).collect();
        let (_folder, machine) = machine(&files);
        rp_filter(&machine)
    }

    #[test]
    fn the_higher_of_all_and_own_counts() {
        for (values, status) in [
            (&[("all", "0\n"), ("default", "0\n"), ("eth0", "0\n")][..], Status::Ok),
            (&[("all", "1"), ("eth0", "0")][..], Status::Warning),
            (&[("all", "0"), ("eth0", "0"), ("veth1", "1")][..], Status::Warning),
            (&[("all", "2"), ("eth0", "1")][..], Status::Note),
            (&[("all", "0"), ("default", "1")][..], Status::Warning),
            (&[("all", "0"), ("lo", "1")][..], Status::Ok),
        ] {
            let check = filter(values);
            assert_eq!(check.status, status, "{values:?}: {}", check.found);
        }
    }

    #[test]
    fn the_advice_names_what_to_set() {
        let check = filter(&[("all", "0"), ("eth0", "0"), ("veth1", "1")]);
        let advice = check.advice.expect("advice");
        assert!(advice.contains("net.ipv4.conf.veth1.rp_filter=0"), "{advice}");
        assert!(!advice.contains("all.rp_filter") && !advice.contains("eth0"), "{advice}");
    }

    #[test]
    fn forwarding_is_looked_at_for_each_family() {
        let (_folder, machine) = machine(&[
            ("proc/sys/net/ipv4/ip_forward", "1\n"),
            ("proc/sys/net/ipv6/conf/all/forwarding", "0\n"),
            ("proc/sys/net/ipv4/conf/all/accept_local", "0\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ]);
        let checks = checks(&machine);
        assert_eq!(
            outcome(&checks),
            [
                ("IPv4 forwarding", Status::Ok),
                ("IPv6 forwarding", Status::Warning),
                ("rp_filter", Status::Ok),
                ("accept_local", Status::Note),
                ("masquerade ports", Status::Ok)
            ]
        );
        assert_eq!(checks[1].advice.as_deref(), Some("sysctl -w net.ipv6.conf.all.forwarding=1"));
        assert_eq!(checks[3].advice.as_deref(), Some("sysctl -w net.ipv4.conf.all.accept_local=1"));
    }

    #[test]
    fn ports_of_local_sockets_are_not_for_masquerade() {
        let (_folder, machine) = machine(&[("proc/sys/net/ipv4/ip_local_port_range", "1024\t61000\n")]);
        let status = |ports| masquerade_ports(&machine, &ports).status;
        assert_eq!(status(61_001..=65_535), Status::Ok);
        assert_eq!(status(1..=1023), Status::Ok);
        assert_eq!(status(61_000..=65_535), Status::Warning);
        assert_eq!(status(1000..=1024), Status::Warning);
        assert_eq!(status(2000..=3000), Status::Warning);
    }
}
