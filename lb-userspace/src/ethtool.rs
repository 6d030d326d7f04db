//! What a device driver says of itself, and its offloads, by the ethtool ioctl. It asks the network namespace of the
//! caller.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Offloads, as the commands of linux/ethtool.h that read them. The next command sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Flag {
    /// Transmit checksums are left to the device.
    TxChecksum = 0x16,
    /// TCP segmentation is left to the device.
    Tso = 0x1e,
    /// Received packets are merged.
    Gro = 0x2b,
}

const GET_DRIVER: u32 = 0x03;
const GET_CHANNELS: u32 = 0x3c;

/// struct ethtool_value.
#[repr(C)]
struct Number {
    command: u32,
    data: u32,
}

/// struct ethtool_drvinfo.
#[repr(C)]
struct Driver {
    command: u32,
    driver: [u8; 32],
    /// Version, firmware, bus, ROM, reserved, and five counts: 32 × 4 + 12 + 5 × 4 bytes.
    rest: [u8; 160],
}

/// struct ethtool_channels: how many queues there may be of each kind, then how many there are. Those of the last kind receive
/// and send.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Pairs of queues, one to receive and one to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queues {
    /// So many are in use.
    pub(crate) used: u32,
    /// So many there are.
    pub(crate) all: u32,
}

/// A socket to ask through.
pub(crate) struct Ethtool(OwnedFd);

impl Ethtool {
    /// Opens it.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?))
    }

    /// The name of the driver.
    pub(crate) fn driver(&self, interface: &str) -> io::Result<String> {
        let mut answer = Driver { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
        self.ask(interface, &mut answer)?;
        let name = answer.driver.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Its pairs of queues.
    pub(crate) fn queues(&self, interface: &str) -> io::Result<Queues> {
        let mut answer = Channels { command: GET_CHANNELS, ..Channels::default() };
        self.ask(interface, &mut answer)?;
        Ok(Queues { used: answer.combined, all: answer.max_combined })
    }

    /// Whether an offload is on.
    pub(crate) fn flag(&self, interface: &str, flag: Flag) -> io::Result<bool> {
        let mut answer = Number { command: flag as u32, data: 0 };
        self.ask(interface, &mut answer)?;
        Ok(answer.data != 0)
    }

    /// Switches an offload.
    pub(crate) fn set_flag(&self, interface: &str, flag: Flag, on: bool) -> io::Result<()> {
        self.ask(interface, &mut Number { command: flag as u32 + 1, data: on.into() })
    }

    /// `answer` is one of this module's structures, which begin with their command.
    fn ask<T>(&self, interface: &str, answer: &mut T) -> io::Result<()> {
        let mut name = [0 as libc::c_char; libc::IFNAMSIZ];
        if interface.len() >= name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "name too long for an interface"));
        }
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let data: *mut T = answer;
        let mut request =
            libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data.cast() } };
        // SAFETY: the descriptor is open, `request` is a whole ifreq with a name that ends in zero, and its data points
        // to a live structure of the size that the command at its beginning stands for.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Driver>(), 196);
        assert_eq!(size_of::<Number>(), 8);
        assert_eq!(size_of::<Channels>(), 36);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let ethtool = Ethtool::open().expect("a socket");
        assert!(ethtool.driver("a-name-of-sixteen").is_err());
        assert!(ethtool.flag("no-such-if", Flag::Gro).is_err());
    }
}
