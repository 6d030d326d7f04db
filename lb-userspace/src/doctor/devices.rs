//! Interfaces: driver, native XDP, offloads.

use std::io;

use super::check::{Check, Machine, Status};
use crate::ethtool::{Ethtool, Flag, Queues};
use crate::maps::possible_cpus;

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
                    queues: ethtool.queues(name),
                    cpus: possible_cpus().and_then(|cpus| u32::try_from(cpus).map_err(io::Error::other)),
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
    queues: io::Result<Queues>,
    /// Of the machine, those that may yet be plugged in too.
    cpus: io::Result<u32>,
}

/// The driver whose need of queues is known: one to send by for each CPU, beside those in use. Without them it sends under a
/// lock (`virtnet_xdp_set`); early kernels refuse, and attaching tells.
const VIRTIO: &str = "virtio_net";

impl Device {
    /// What to do where a virtio device has too few queues for native XDP.
    fn too_few_queues(&self, interface: &str) -> Option<(String, String)> {
        let (Ok(driver), Ok(Queues { used, all }), Ok(cpus)) = (&self.driver, &self.queues, &self.cpus)
        else {
            return None;
        };
        if driver != VIRTIO || used + cpus <= *all {
            return None;
        }
        let found = format!("{used} of {all} queue pairs in use, {cpus} CPUs: native XDP sends under a lock");
        let advice = match all.checked_sub(*cpus) {
            Some(rest @ 1..) => format!("ethtool -L {interface} combined {rest} leaves one for each CPU"),
            _ => format!("give the device {} queue pairs where the machine is defined", cpus + 1),
        };
        Some((found, advice))
    }
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
    if let Some((queues, advice)) = device.too_few_queues(interface) {
        return Check::bad(Status::Note, title(interface), format!("{found}, {queues}"), advice);
    }
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
            queues: Ok(Queues { used: 2, all: 4 }),
            cpus: Ok(4),
        };
        for (device, status, text) in [
            (device("ice", true, true), Status::Ok, "native XDP yes"),
            (device("e1000", true, true), Status::Ok, "native XDP not known"),
            (device("veth", false, false), Status::Ok, "GRO off, TSO off"),
            (device("ice", false, true), Status::Note, "TSO off"),
            (device("virtio_net", true, true), Status::Note, "2 of 4 queue pairs in use, 4 CPUs"),
            (Device { cpus: Ok(2), ..device("virtio_net", true, true) }, Status::Ok, "native XDP yes"),
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
            queues: Err(io::Error::other("no")),
            cpus: Ok(1),
        };
        assert_eq!(judge("x", &silent).status, Status::Note);
    }

    #[test]
    fn queues_are_spared_where_there_are_enough() {
        let advice = |used, all, cpus| {
            let device = Device {
                driver: Ok(VIRTIO.to_owned()),
                tx_checksum: Ok(true),
                tso: Ok(true),
                gro: Ok(true),
                queues: Ok(Queues { used, all }),
                cpus: Ok(cpus),
            };
            device.too_few_queues("eth0").map(|(_, advice)| advice)
        };
        assert_eq!(advice(2, 4, 2), None);
        assert_eq!(advice(4, 4, 2).unwrap(), "ethtool -L eth0 combined 2 leaves one for each CPU");
        for (used, all, cpus) in [(1, 1, 1), (1, 2, 2)] {
            let wanted = format!("give the device {} queue pairs where the machine is defined", cpus + 1);
            assert_eq!(advice(used, all, cpus).unwrap(), wanted);
        }
    }
}
