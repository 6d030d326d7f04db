//! Closing other processes' sockets (`NETLINK_SOCK_DIAG` and `SOCK_DESTROY`, sock_diag(7); kernel 4.9 with
//! `CONFIG_INET_DIAG_DESTROY`).

use std::collections::BTreeSet;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Message types (linux/netlink.h, linux/sock_diag.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// Flags: `NLM_F_REQUEST` with `NLM_F_DUMP`, or with `NLM_F_ACK`.
const DUMP: u16 = 0x301;
const ACKNOWLEDGED: u16 = 0x5;
/// A set of states that holds `TCP_ESTABLISHED`, also the state of connected UDP sockets.
const CONNECTED: u32 = 1 << 1;
/// Room for the kernel's answers, which are at most 32 KiB.
const ROOM: usize = 65_536;

/// `struct nlmsghdr`
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`; ports and addresses in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SocketId {
    ports: [u16; 2],
    addresses: [[u32; 4]; 2],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`, with its header.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SocketId,
}

/// The beginning of `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Found {
    family: u8,
    state: u8,
    timer: u8,
    retransmissions: u8,
    id: SocketId,
}

/// Closes the connected UDP sockets with these cookies in the calling thread's network namespace: a receiver gets
/// ECONNABORTED, a sender EDESTADDRREQ, for the socket is not connected any more. Gives their number; those that are gone already do not count.
///
/// # Errors
/// The kernel's; EOPNOTSUPP without `CONFIG_INET_DIAG_DESTROY`.
pub(super) fn close_udp(cookies: &BTreeSet<u64>) -> io::Result<usize> {
    let diag = Diag::open()?;
    let mut closed = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for found in diag.list(family as u8)? {
            if cookies.contains(&bytemuck::cast::<_, u64>(found.id.cookie)) && diag.destroy(&found)? {
                closed += 1;
            }
        }
    }
    Ok(closed)
}

/// A socket to the kernel's lists of sockets.
struct Diag(OwnedFd);

impl Diag {
    fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        // The kernel answers within the call; nobody is to wait for ever if it does not.
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(10, 0))?;
        Ok(Self(fd))
    }

    fn ask(&self, kind: u16, flags: u16, family: u8, id: SocketId) -> io::Result<()> {
        let header = Header { length: size_of::<Request>() as u32, kind, flags, sequence: 1, port: 0 };
        let (protocol, states) = (libc::IPPROTO_UDP as u8, CONNECTED);
        let request = Request { header, family, protocol, extensions: 0, pad: 0, states, id };
        send(self.0.as_raw_fd(), bytemuck::bytes_of(&request), MsgFlags::empty())?;
        Ok(())
    }

    /// Connected UDP sockets.
    fn list(&self, family: u8) -> io::Result<Vec<Found>> {
        self.ask(BY_FAMILY, DUMP, family, SocketId::zeroed())?;
        let mut found = Vec::new();
        let mut room = vec![0; ROOM];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut room, MsgFlags::empty())?;
            for (kind, body) in messages(&room[..length]) {
                match kind {
                    BY_FAMILY => found.extend(beginning::<Found>(body)),
                    DONE => return Ok(found),
                    ERROR => return outcome(body).map(|()| found),
                    _ => {}
                }
            }
        }
    }

    /// Whether it was still there.
    fn destroy(&self, found: &Found) -> io::Result<bool> {
        self.ask(DESTROY, ACKNOWLEDGED, found.family, found.id)?;
        let mut room = vec![0; ROOM];
        let length = recv(self.0.as_raw_fd(), &mut room, MsgFlags::empty())?;
        let (_, body) = messages(&room[..length])
            .find(|(kind, _)| *kind == ERROR)
            .ok_or_else(|| io::Error::other("an answer of another kind"))?;
        match outcome(body) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Kinds and bodies of the messages in a datagram.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: Header = beginning(datagram)?;
        let length = header.length as usize;
        let body = datagram.get(size_of::<Header>()..length)?;
        // Each begins at a multiple of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header.kind, body))
    })
}

fn beginning<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytes.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// What an error message says: a negative error number, or zero.
fn outcome(body: &[u8]) -> io::Result<()> {
    match beginning::<i32>(body) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number.wrapping_neg())),
        None => Err(io::Error::other("an answer that is too short")),
    }
}

const _: () = {
    assert!(size_of::<Header>() == 16 && size_of::<SocketId>() == 48);
    assert!(size_of::<Request>() == 72 && offset_of!(Found, id) == 4);
};

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn broken_answers_are_no_messages() {
        let header = Header { length: 20, kind: ERROR, flags: 0, sequence: 1, port: 0 };
        let mut bytes = bytemuck::bytes_of(&header).to_vec();
        assert_eq!(messages(&bytes).count(), 0, "shorter than it says");
        bytes.extend([0; 4]);
        assert_eq!(messages(&bytes).count(), 1);
        bytes[0] = 3;
        assert_eq!(messages(&bytes).count(), 0, "shorter than its header");
        assert!(outcome(&[1, 2]).is_err());
    }

    /// Needs root.
    #[test]
    fn only_the_sockets_meant_are_closed() {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            // Without an interface there is no route; a bound socket connects to itself through none.
            std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            let connected = |address: &str| {
                let socket = UdpSocket::bind((address, 0)).unwrap();
                socket.connect((address, 9)).unwrap();
                socket
            };
            let sockets: Vec<_> = ["127.0.0.1", "::1", "127.0.0.1"].map(connected).into();
            let cookie = |socket: &UdpSocket| {
                let diag = Diag::open().unwrap();
                let port = socket.local_addr().unwrap().port();
                let family =
                    if socket.local_addr().unwrap().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
                let all = diag.list(family as u8).unwrap();
                let found = all.iter().find(|found| found.id.ports[0] == port.to_be()).unwrap();
                bytemuck::cast::<_, u64>(found.id.cookie)
            };
            let meant = BTreeSet::from([cookie(&sockets[0]), cookie(&sockets[1])]);
            assert_eq!(close_udp(&meant).unwrap(), 2);
            assert_eq!(close_udp(&meant).unwrap(), 0, "they are not connected any more");
            for socket in &sockets[..2] {
                let mut room = [0; 8];
                assert_eq!(socket.recv(&mut room).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
                assert_eq!(socket.send(b"x").unwrap_err().raw_os_error(), Some(libc::EDESTADDRREQ));
            }
            assert!(sockets[2].peer_addr().is_ok());
        };
        std::thread::spawn(run).join().unwrap();
    }
}
