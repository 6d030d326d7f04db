//! Conversations with the servers of the scene.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use super::Place;

/// Longest datagram.
const DATAGRAM: usize = 65_536;
/// Nothing takes that long, however busy the machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for an answer that must not come: one that does would take a millisecond on an idle machine. A slow
/// one would be missed here, but then the packet is found among the counters.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who it is: [`Place::name`].
    pub server: String,
    /// Who it thinks is asking.
    pub client: SocketAddr,
}

impl Heard {
    fn parse(line: &str) -> io::Result<Self> {
        let parsed = line.trim_end().split_once(' ').and_then(|(server, client)| {
            Some(Self { server: server.to_owned(), client: client.parse().ok()? })
        });
        parsed.ok_or_else(|| io::Error::other(format!("a server says {line:?}")))
    }
}

/// A TCP connection to a server.
#[derive(Debug)]
pub struct Talk {
    stream: BufReader<TcpStream>,
    /// What the server said first.
    pub heard: Heard,
}

impl Talk {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        Ok(Self { heard: Heard::parse(&line)?, stream })
    }

    /// Its own address.
    ///
    /// # Panics
    /// When the kernel does not know.
    pub fn own(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().expect("an address")
    }

    /// Sends bytes and waits until they come back.
    ///
    /// # Errors
    /// What is wrong with the connection.
    pub fn echo(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.stream.get_ref().try_clone()?;
        let mut back = vec![0; bytes.len()];
        // Both at once: more is sent than fits into buffers.
        thread::scope(|scope| {
            let written = scope.spawn(move || writer.write_all(bytes));
            self.stream.read_exact(&mut back)?;
            written.join().expect("the writer ends")
        })?;
        if back == bytes { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
    }

    /// Resets it.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn abort(self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(self.stream.get_ref(), sockopt::Linger, &at_once).expect("a socket option");
    }

    /// Closes it, and waits until the server has closed it as well.
    ///
    /// # Errors
    /// When it has not.
    pub fn finish(self) -> io::Result<()> {
        crate::scene::close(self.stream.get_ref())
    }
}

/// A connected UDP socket: the kernel hands it only what comes from the address it is connected to.
#[derive(Debug)]
pub struct Datagrams(pub(super) UdpSocket);

impl Datagrams {
    /// Sends a datagram and waits for the answer, which repeats it.
    ///
    /// # Errors
    /// When there is none, or another.
    pub fn ask(&self, payload: &[u8]) -> io::Result<Heard> {
        self.ask_for(payload, PATIENCE)
    }

    /// The same, not waiting for long: for what is asked again and again.
    ///
    /// # Errors
    /// As above.
    pub fn ask_briefly(&self, payload: &[u8]) -> io::Result<Heard> {
        self.ask_for(payload, SILENCE)
    }

    fn ask_for(&self, payload: &[u8], patience: Duration) -> io::Result<Heard> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.send(payload)?;
        let mut answer = vec![0; DATAGRAM];
        let length = self.0.recv(&mut answer)?;
        let end = answer[..length].iter().position(|byte| *byte == b'\n').unwrap_or(length);
        if answer[..length].get(end + 1..) != Some(payload) {
            return Err(io::Error::other("other bytes came back"));
        }
        Heard::parse(&String::from_utf8_lossy(&answer[..end]))
    }
}

pub(super) fn repeat_stream(mut stream: TcpStream, place: Place) {
    let Ok(peer) = stream.peer_addr() else { return };
    if writeln!(stream, "{place:?} {peer}").is_err() {
        return;
    }
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

pub(super) fn repeat_datagrams(socket: &UdpSocket, place: Place) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An ICMP error about an earlier answer ends a call, not the server.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        let mut answer = format!("{place:?} {peer}\n").into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _lost = socket.send_to(&answer, peer);
    }
}

/// A socket with an address of its own, which it may take although a connection that has ended had it. (UDP sockets with
/// that option would share a port.)
pub(super) fn bound(source: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if kind == SockType::Stream {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
    Ok(socket)
}

pub(super) fn connect_socket(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    Ok(connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?)
}
