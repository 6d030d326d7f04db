//! Netlink (RFC 3549) as far as no crate of ours speaks it: requests, answers and changes in plain bytes, in the network
//! namespace of the caller.

use std::io;
use std::os::fd::AsRawFd;

use futures_util::FutureExt;
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};

/// `NLM_F_REQUEST` with `NLM_F_ACK`: one answer, and the end of it.
pub(crate) const ONE: u16 = 0x5;
/// `NLM_F_REQUEST` with `NLM_F_DUMP`: all that there are.
pub(crate) const ALL: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Flags of an error: only the request's header is in it; attributes follow.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// The kernel's datagrams of a dump are no longer than this (`NLMSG_GOODSIZE` is at most a page or 8 KiB).
const BUFFER: usize = 64 * 1024;
/// Room for a message about a change, of which nothing is read.
const CHANGE: usize = 8 * 1024;
/// The kernel answers at once; this is for what should not happen.
const PATIENCE_S: i64 = 5;
/// Bits of an attribute's type that are none of its number: nested, in network byte order.
const FLAGS: u16 = 0xc000;

/// Asks the kernel; `each` gets type and body of every message of the answer.
///
/// # Errors
/// The kernel's, also those that it answers with.
pub(crate) fn ask(
    protocol: SockProtocol,
    (kind, flags): (u16, u16),
    body: &[u8],
    each: &mut dyn FnMut(u16, &[u8]),
) -> io::Result<()> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
    send(socket.as_raw_fd(), &request(kind, flags, body), MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if take(&buffer[..len], each)? {
            return Ok(());
        }
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// It is not, and what the kernel says about it, if anything.
    Refused(Option<String>),
}

/// Asks the kernel to do something, and for its words when it does not (`NETLINK_EXT_ACK`).
///
/// # Errors
/// The kernel cannot be asked.
pub(crate) fn ask_for_words(
    protocol: SockProtocol,
    (kind, flags): (u16, u16),
    body: &[u8],
) -> io::Result<Answer> {
    let socket = Socket::new(protocol as isize)?;
    socket.set_ext_ack(true)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
    socket.send(&request(kind, flags, body), 0)?;
    let mut answer = Vec::with_capacity(BUFFER);
    socket.recv(&mut answer, 0)?;
    Ok(match take(&answer, &mut |_, _| {}) {
        Ok(_) => Answer::Done,
        Err(_) => Answer::Refused(words(&answer)),
    })
}

/// The text behind an error (`NLMSGERR_ATTR_MSG`), which follows what the error is about.
fn words(answer: &[u8]) -> Option<String> {
    let flags = half(answer, 6)?;
    let about = answer.get(HEADER + 4..)?;
    // The whole request, or its header.
    let len = if flags & NLM_F_CAPPED == 0 { word(about, 0)? as usize } else { HEADER };
    let more = about.get(len.next_multiple_of(4)..).filter(|_| flags & NLM_F_ACK_TLVS != 0)?;
    Some(text(find(more, NLMSGERR_ATTR_MSG)?)).filter(|words| !words.is_empty())
}

fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence and port number: one request on its socket.
    request.extend([0; 8]);
    request.extend(body);
    request
}

/// Takes the messages of a datagram apart; whether it was the last one.
///
/// # Errors
/// The one that the kernel answers with, or that a message is cut short.
pub(crate) fn take(mut datagram: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<bool> {
    while datagram.len() >= HEADER {
        let len = word(datagram, 0).unwrap_or(0) as usize;
        let Some(message) = datagram.get(HEADER..len) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is cut short"));
        };
        match half(datagram, 4).unwrap_or_default() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                return match word(message, 0).map(u32::cast_signed) {
                    Some(0) => Ok(true),
                    Some(number) => Err(Errno::from_raw(number.wrapping_neg()).into()),
                    None => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer is too short")),
                };
            }
            kind => each(kind, message),
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Type and value of each attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)? & !FLAGS;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The bytes of an attribute.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Two bytes as a number.
pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Four bytes as a number.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Text up to the zero at its end.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Tells when something changes that a multicast group is about.
pub(crate) struct Watcher(TokioSocket);

impl Watcher {
    /// Begins to listen; to be called inside a runtime.
    ///
    /// # Errors
    /// The kernel does not know this group, or refuses.
    pub(crate) fn new(protocol: isize, group: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(group)?;
        Ok(Self(socket))
    }

    /// Waits until something has changed: what, is not told.
    pub(crate) async fn changed(&mut self) {
        let mut buffer = Vec::with_capacity(CHANGE);
        // An overflow is a change too. Other errors would come back at once, over and over.
        if let Err(error) = self.0.recv(&mut buffer).await
            && error.raw_os_error() != Some(libc::ENOBUFS)
        {
            std::future::pending::<()>().await;
        }
        // The rest of a burst.
        loop {
            buffer.clear();
            if !matches!(self.0.recv(&mut buffer).now_or_never(), Some(Ok(()))) {
                break;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The bytes of a message.
    pub(crate) fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    /// The end of a dump.
    pub(crate) fn done() -> Vec<u8> {
        message(NLMSG_DONE, &[0; 4])
    }

    #[test]
    fn errors_are_told_from_the_end() {
        let error = |errno: i32| take(&message(NLMSG_ERROR, &(-errno).to_ne_bytes()), &mut |_, _| {});
        assert!(error(0).unwrap());
        assert_eq!(error(libc::EPERM).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(take(&done(), &mut |_, _| {}).unwrap());
        assert!(!take(&message(99, &[]), &mut |_, _| {}).unwrap());
    }

    #[test]
    fn what_the_kernel_says_of_an_error_is_read() {
        let error = |flags: u16, about: &[u8]| {
            let body =
                [&(-libc::ENOMEM).to_ne_bytes()[..], about, &attribute(NLMSGERR_ATTR_MSG, b"too few\0")];
            let mut bytes = message(NLMSG_ERROR, &body.concat());
            bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
            bytes
        };
        let request = request(19, ONE, &[7; 6]);
        let whole = [&request[..], &[0; 2]].concat();
        let said = Some("too few".to_owned());
        assert_eq!(words(&error(NLM_F_ACK_TLVS, &whole)), said);
        assert_eq!(words(&error(NLM_F_ACK_TLVS | NLM_F_CAPPED, &request[..HEADER])), said);
        assert_eq!(words(&error(0, &whole)), None, "no attributes");
        let bytes = error(NLM_F_ACK_TLVS, &whole);
        for end in 0..bytes.len() - 1 {
            assert_eq!(words(&bytes[..end]), None);
        }
    }

    #[test]
    fn broken_answers_are_no_messages() {
        let count = |bytes: &[u8]| {
            let mut count = 0;
            let result = take(bytes, &mut |_, _| count += 1);
            (count, result.is_ok())
        };
        let mut bytes = message(99, &[0; 4]);
        assert_eq!(count(&bytes[..HEADER]), (0, false), "shorter than it says");
        assert_eq!(count(&bytes), (1, true));
        bytes[0] = 3;
        assert_eq!(count(&bytes), (0, false), "shorter than its header");
        assert_eq!(count(&message(NLMSG_ERROR, &[1, 2])), (0, false));
    }
}
