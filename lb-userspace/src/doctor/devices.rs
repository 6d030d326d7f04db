//! Interfaces: driver, native XDP, offloads.

use std::io;

use super::check::{Check, Machine, Status};
use crate::ethtool::{Ethtool, Flag};

/// Common drivers with native XDP, by the names that ethtool prints. Some want a certain kernel, number of queues or MTU:
/// attaching tells. The list need not be complete, it only informs.
const NATIVE_XDP: &[&str] = &[
    "bnxt_en",
    "ena",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "nfp",
    "qede",
    "sfc",
    "tun",
    "veth",
    "virtio_net",
    "vmxnet3",
];

/// All checks here. `interfaces` empty = all but loopback.
pub(super) fn checks(machine: &Machine, interfaces: &[String]) -> Vec<Check> {
    let here = present(&machine.proc("thread-self/net/dev").ok().flatten().unwrap_or_default());
    let wanted = if interfaces.is_empty() {
        here.iter().filter(|name| *name != "lo").cloned().collect()
    } else {
        interfaces.to_vec()
    };
    let ethtool = match Ethtool::open() {
        Ok(ethtool) => ethtool,
        Err(error) => {
            return vec![Check::bad(
                Status::Note,
                "interfaces",
                format!("could not see: no socket: {error}"),
                "look with ethtool -k",
            )];
        }
    };
    wanted
        .iter()
        .map(|name| {
            if !here.contains(name) {
                let found = "no such interface in this network namespace";
                return Check::bad(Status::Problem, title(name), found, "ip link shows those that are here");
            }
            judge(
                name,
                &Device {
                    driver: ethtool.driver(name),
                    tx_checksum: ethtool.flag(name, Flag::TxChecksum),
                    tso: ethtool.flag(name, Flag::Tso),
                    gro: ethtool.flag(name, Flag::Gro),
                },
            )
        })
        .collect()
}

fn title(interface: &str) -> String {
    format!("interface {interface}")
}

/// The names in /proc/net/dev.
fn present(dev: &str) -> Vec<String> {
    dev.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

/// What is known of one interface.
struct Device {
    driver: io::Result<String>,
    tx_checksum: io::Result<bool>,
    tso: io::Result<bool>,
    gro: io::Result<bool>,
}

fn judge(interface: &str, device: &Device) -> Check {
    let Ok(driver) = &device.driver else {
        let found = "its driver does not answer: offloads unknown, no native XDP";
        return Check::bad(Status::Note, title(interface), found, "--hook auto takes tc here");
    };
    let native = NATIVE_XDP.contains(&driver.as_str());
    let word = |flag: &io::Result<bool>| match flag {
        Ok(true) => "on",
        Ok(false) => "off",
        Err(_) => "unknown",
    };
    let found = format!(
        "driver {driver}, native XDP {}, GRO {}, TSO {}, tx checksums {}",
        if native { "yes" } else { "not known" },
        word(&device.gro),
        word(&device.tso),
        word(&device.tx_checksum)
    );
    if matches!(device.tso, Ok(false)) && driver != "veth" {
        let advice = format!("streams cost more CPU without: ethtool -K {interface} tso on");
        return Check::bad(Status::Note, title(interface), found, advice);
    }
    Check::ok(title(interface), found)
}

#[cfg(test)]
mod tests {
    use super::super::check::fixture::machine;
    use super::*;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop\n    lo:  100 1 0 0\nveth-a:  0 0 0 0\n";

    #[test]
    fn names_are_read_from_the_kernels_table() {
        assert_eq!(present(DEV), ["lo", "veth-a"]);
    }

    #[test]
    fn an_interface_that_is_not_here_is_a_problem() {
        let (_folder, machine) = machine(&[("proc/thread-self/net/dev", DEV)]);
        let checks = checks(&machine, &["eth7".to_owned()]);
        assert_eq!(checks.len(), 1);
        assert_eq!((checks[0].name.as_str(), checks[0].status), ("interface eth7", Status::Problem));
    }

    #[test]
    fn drivers_and_offloads_are_judged() {
        let device = |driver: &str, tso, gro| Device {
            driver: Ok(driver.to_owned()),
            tx_checksum: Ok(true),
            tso: Ok(tso),
            gro: Ok(gro),
        };
        for (device, status, text) in [
            (device("ice", true, true), Status::Ok, "native XDP yes"),
            (device("e1000", true, true), Status::Ok, "native XDP not known"),
            (device("veth", false, false), Status::Ok, "GRO off, TSO off"),
            (device("ice", false, true), Status::Note, "TSO off"),
        ] {
            let check = judge("x", &device);
            assert_eq!(check.status, status, "{}", check.found);
            assert!(check.found.contains(text), "{}", check.found);
        }
        let silent = Device {
            driver: Err(io::Error::other("no")),
            tx_checksum: Ok(true),
            tso: Ok(true),
            gro: Ok(true),
        };
        assert_eq!(judge("x", &silent).status, Status::Note);
    }
}
