//! Why a device takes no XDP program, in its driver's own words.
//!
//! Making a link gives an error's number only. Asked by netlink (`IFLA_XDP`), the kernel hands on what the driver says
//! (`NETLINK_EXT_ACK`, kernel 4.12): that queues are missing, which offload is in the way, how long a packet may be.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::SockProtocol;

use crate::netlink::{Answer, ONE, ask_for_words, attribute};

const RTM_SETLINK: u16 = 19;
/// Bytes of `struct ifinfomsg`, and where the index of the interface is.
const INFO: usize = 16;
const INDEX: usize = 4;
const IFLA_XDP: u16 = 43;
const NESTED: u16 = 1 << 15;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
/// `XDP_FLAGS_UPDATE_IF_NOEXIST`, `XDP_FLAGS_DRV_MODE`.
const ONLY_NEW: u32 = 1;
const NATIVE: u32 = 1 << 2;
/// In place of a program: none.
const NONE: i32 = -1;

/// Tries once more to attach natively, and gives back what the driver says about it, if it says anything. Should it work now,
/// it is undone: it is a link that is wanted.
pub(super) fn of(ifindex: u32, program: BorrowedFd<'_>) -> Option<String> {
    match set(ifindex, program.as_raw_fd(), ONLY_NEW | NATIVE) {
        Ok(Answer::Refused(words)) => words,
        Ok(Answer::Done) => {
            // Nobody else can have put one there: the first would have been refused.
            let _undone = set(ifindex, NONE, NATIVE);
            None
        }
        Err(error) => {
            tracing::debug!("cannot ask the driver of interface {ifindex}: {error}");
            None
        }
    }
}

fn set(ifindex: u32, program: i32, flags: u32) -> io::Result<Answer> {
    ask_for_words(SockProtocol::NetlinkRoute, (RTM_SETLINK, ONE), &request(ifindex, program, flags))
}

fn request(ifindex: u32, program: i32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; INFO];
    body[INDEX..INDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    let parts =
        [attribute(IFLA_XDP_FD, &program.to_ne_bytes()), attribute(IFLA_XDP_FLAGS, &flags.to_ne_bytes())];
    body.extend(attribute(IFLA_XDP | NESTED, &parts.concat()));
    body
}

/// The reason of an error, and with it what the driver says.
pub(super) fn with_words(error: &io::Error, words: Option<String>) -> String {
    match words {
        Some(words) => format!("{error}: {words:?}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{find, word};

    #[test]
    fn a_request_names_interface_program_and_mode() {
        let body = request(7, 5, ONLY_NEW | NATIVE);
        assert_eq!(word(&body, INDEX), Some(7));
        let xdp = find(&body[INFO..], IFLA_XDP).unwrap();
        assert_eq!(find(xdp, IFLA_XDP_FD).and_then(|value| word(value, 0)), Some(5));
        assert_eq!(find(xdp, IFLA_XDP_FLAGS).and_then(|value| word(value, 0)), Some(5));
    }

    #[test]
    fn words_follow_the_reason() {
        let error = || io::Error::from_raw_os_error(libc::ENOMEM);
        let words = "Too few free TX rings available".to_owned();
        assert_eq!(
            with_words(&error(), Some(words)),
            "Cannot allocate memory (os error 12): \"Too few free TX rings available\""
        );
        assert_eq!(with_words(&error(), None), "Cannot allocate memory (os error 12)");
    }
}
