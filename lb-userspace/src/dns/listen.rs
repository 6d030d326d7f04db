//! Sockets to listen on.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};

use super::DnsError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Bytes of queries that may wait: a pause of the process of 0.2 s at 20,000 queries a second, with what the kernel adds.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Opens the UDP and the TCP socket of an address. The address may be one that this machine does not have yet.
///
/// # Errors
/// [`DnsError::Listen`], [`DnsError::Unspecified`].
pub(super) fn listen(address: SocketAddr) -> Result<(UdpSocket, TcpListener), DnsError> {
    if address.ip().is_unspecified() {
        return Err(DnsError::Unspecified(address));
    }
    let error = |protocol| {
        move |errno: nix::Error| DnsError::Listen { address, protocol, source: io::Error::from(errno) }
    };
    let udp = udp(address).map_err(error("UDP"))?;
    let tcp = tcp(address).map_err(error("TCP"))?;
    Ok((UdpSocket::from(udp), TcpListener::from(tcp)))
}

fn udp(address: SocketAddr) -> nix::Result<OwnedFd> {
    let socket = open(address, SockType::Datagram)?;
    // As much as this process may have.
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket.as_fd(), sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    bind(&socket, address)?;
    Ok(socket)
}

fn tcp(address: SocketAddr) -> nix::Result<OwnedFd> {
    let socket = open(address, SockType::Stream)?;
    setsockopt(&socket.as_fd(), sockopt::ReuseAddr, &true)?;
    bind(&socket, address)?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

fn open(address: SocketAddr, kind: SockType) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, kind, flags, None)?;
    // An address that comes later, as those of interfaces at boot do.
    setsockopt(&socket.as_fd(), sockopt::IpFreebind, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket.as_fd(), sockopt::Ipv6V6Only, &true)?;
    }
    Ok(socket)
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> nix::Result<()> {
    use std::os::fd::AsRawFd;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
}
