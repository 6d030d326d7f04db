//! Which devices take packets that are redirected to them at XDP. Others drop them, so it must be known.
//!
//! The kernel tells for each device what its driver does (generic netlink family `netdev`, kernel 6.3, `linux/netdev.h`), and
//! when that changes. A veth takes such packets while its other end has an XDP program or merges packets (GRO): only
//! then is there a queue at that end which they can be put into (`veth_xdp_xmit`, `veth_set_xdp_features`).

use std::collections::BTreeMap;
use std::io;

use nix::sys::socket::SockProtocol;
use rtnetlink::sys::protocols::NETLINK_GENERIC;

use crate::netlink::{self, ALL, ONE, ask, attribute, attributes, find, half, text, word};

/// The family that knows the others (`linux/genetlink.h`).
const CONTROL: u16 = 0x10;
/// Bytes of `struct genlmsghdr`: command, version, two of nothing.
const GENERIC: usize = 4;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`, `NETDEV_XDP_ACT_NDO_XMIT_SG`.
const XMIT: u64 = 1 << 2;
const XMIT_SG: u64 = 1 << 6;

/// What a device's driver does at XDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// These bits of the kernel's.
    #[must_use]
    pub const fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// It takes redirected packets.
    #[must_use]
    pub const fn takes_redirects(self) -> bool {
        self.0 & XMIT != 0
    }

    /// Also packets that lie in several buffers.
    #[must_use]
    pub const fn takes_buffers(self) -> bool {
        self.takes_redirects() && self.0 & XMIT_SG != 0
    }
}

/// The kernel as far as it knows what devices do at XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    family: u16,
    /// Multicast group of changes.
    changes: u32,
}

impl Devices {
    /// Finds out how to ask. `None`: this kernel does not tell.
    ///
    /// # Errors
    /// The kernel's reason, other than that.
    pub fn find() -> io::Result<Option<Self>> {
        let mut found = None;
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
        let body = [&[CTRL_CMD_GETFAMILY, 1, 0, 0][..], &name].concat();
        let answer = ask(SockProtocol::NetlinkGeneric, (CONTROL, ONE), &body, &mut |_, message| {
            found = found.or(family(message));
        });
        match answer {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EPROTONOSUPPORT)) => {
                Err(error)
            }
            _ => Ok(found),
        }
    }

    /// What the devices of the current network namespace do, by their indexes.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn features(&self) -> io::Result<BTreeMap<u32, Features>> {
        let mut devices = BTreeMap::new();
        let body = [NETDEV_CMD_DEV_GET, 1, 0, 0];
        ask(SockProtocol::NetlinkGeneric, (self.family, ALL), &body, &mut |_, message| {
            devices.extend(device(message));
        })?;
        Ok(devices)
    }

    /// Begins to listen to changes; to be called inside a runtime.
    pub(crate) fn watch(&self) -> io::Result<netlink::Watcher> {
        netlink::Watcher::new(NETLINK_GENERIC, self.changes)
    }
}

fn family(message: &[u8]) -> Option<Devices> {
    let message = message.get(GENERIC..)?;
    let number = find(message, CTRL_ATTR_FAMILY_ID)?;
    let changes = attributes(find(message, CTRL_ATTR_MCAST_GROUPS)?).find_map(|(_, group)| {
        let is_changes = text(find(group, CTRL_ATTR_MCAST_GRP_NAME)?) == "mgmt";
        is_changes.then(|| word(find(group, CTRL_ATTR_MCAST_GRP_ID)?, 0))?
    })?;
    Some(Devices { family: half(number, 0)?, changes })
}

fn device(message: &[u8]) -> Option<(u32, Features)> {
    let message = message.get(GENERIC..)?;
    let ifindex = find(message, NETDEV_A_DEV_IFINDEX)?;
    let features = find(message, NETDEV_A_DEV_XDP_FEATURES)?;
    Some((word(ifindex, 0)?, Features(u64::from_ne_bytes(features.try_into().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_found_with_its_group_of_changes() {
        let group = |name: &[u8], id: u32| {
            let parts = [
                attribute(CTRL_ATTR_MCAST_GRP_NAME, name),
                attribute(CTRL_ATTR_MCAST_GRP_ID, &id.to_ne_bytes()),
            ];
            attribute(1, &parts.concat())
        };
        let groups = [group(b"page-pool\0", 7), group(b"mgmt\0", 6)].concat();
        let message = [
            vec![1, 2, 0, 0],
            attribute(CTRL_ATTR_FAMILY_ID, &33_u16.to_ne_bytes()),
            attribute(CTRL_ATTR_MCAST_GROUPS, &groups),
        ];
        let message = message.concat();
        assert_eq!(family(&message), Some(Devices { family: 33, changes: 6 }));
        for end in 0..message.len() {
            assert_eq!(family(&message[..end]), None);
        }
    }

    #[test]
    fn what_a_device_does_is_read() {
        let message = |features: u64| {
            let parts = [
                vec![1, 1, 0, 0],
                attribute(NETDEV_A_DEV_IFINDEX, &5_u32.to_ne_bytes()),
                attribute(NETDEV_A_DEV_XDP_FEATURES, &features.to_ne_bytes()),
            ];
            parts.concat()
        };
        for (bits, redirects, buffers) in
            [(0b11, false, false), (0b111, true, false), (0b110_0111, true, true), (0b110_0011, false, false)]
        {
            let (ifindex, features) = device(&message(bits)).unwrap();
            assert_eq!(
                (ifindex, features.takes_redirects(), features.takes_buffers()),
                (5, redirects, buffers)
            );
        }
    }

    /// On kernels from 6.3 on the answer is read; loopback sends nothing on.
    #[test]
    fn the_kernel_answers() {
        if let Some(devices) = Devices::find().unwrap() {
            let features = devices.features().unwrap();
            assert!(!features[&1].takes_redirects(), "{features:?}");
        } else {
            assert!(!crate::dataplane::kernel_at_least(6, 3));
        }
    }
}
