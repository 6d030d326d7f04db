//! Closing other processes' sockets (`NETLINK_SOCK_DIAG` and `SOCK_DESTROY`, sock_diag(7); kernel 4.9 with
//! `CONFIG_INET_DIAG_DESTROY`).

use std::collections::BTreeSet;
use std::io;
use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use nix::sys::socket::SockProtocol;

use crate::netlink::{ALL, ONE, ask};

/// Message types (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// A set of states that holds `TCP_ESTABLISHED`, also the state of connected UDP sockets.
const CONNECTED: u32 = 1 << 1;

/// `struct inet_diag_sockid`; ports and addresses in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SocketId {
    ports: [u16; 2],
    addresses: [[u32; 4]; 2],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Request {
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
    let mut closed = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for found in list(family as u8)? {
            if cookies.contains(&bytemuck::cast::<_, u64>(found.id.cookie)) && destroy(&found)? {
                closed += 1;
            }
        }
    }
    Ok(closed)
}

impl Request {
    fn of(family: u8, id: SocketId) -> Self {
        let protocol = libc::IPPROTO_UDP as u8;
        Self { family, protocol, extensions: 0, pad: 0, states: CONNECTED, id }
    }
}

/// Connected UDP sockets.
fn list(family: u8) -> io::Result<Vec<Found>> {
    let request = Request::of(family, SocketId::zeroed());
    let mut found = Vec::new();
    ask(SockProtocol::NetlinkSockDiag, (BY_FAMILY, ALL), bytemuck::bytes_of(&request), &mut |kind, body| {
        if kind == BY_FAMILY {
            found.extend(body.get(..size_of::<Found>()).map(bytemuck::pod_read_unaligned::<Found>));
        }
    })?;
    Ok(found)
}

/// Whether it was still there.
fn destroy(found: &Found) -> io::Result<bool> {
    let request = Request::of(found.family, found.id);
    match ask(SockProtocol::NetlinkSockDiag, (DESTROY, ONE), bytemuck::bytes_of(&request), &mut |_, _| {}) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

const _: () = {
    assert!(size_of::<SocketId>() == 48);
    assert!(size_of::<Request>() == 56 && offset_of!(Found, id) == 4);
};

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

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
                let port = socket.local_addr().unwrap().port();
                let family =
                    if socket.local_addr().unwrap().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
                let all = list(family as u8).unwrap();
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
