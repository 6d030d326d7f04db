//! Programs on a cgroup: attaching, taking over, letting go. Their links are pinned under `sockets/HOOK`.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program, ProgramError};

use super::attach::{drop_link, errno_of, pin_error};
use super::{Attacher, DataplaneError, PinDir};
use crate::maps::{CgroupLinkInfo, cgroup_link_info, update_link};

/// A hook for calls of sockets. In the order of attaching: sockets see frontends before the first of them dials a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketHook {
    /// `close`
    Release,
    /// `getpeername`, IPv4
    GetPeerName4,
    /// `getpeername`, IPv6
    GetPeerName6,
    /// `recvmsg` and its like, IPv4
    RecvMsg4,
    /// `recvmsg` and its like, IPv6
    RecvMsg6,
    /// `sendmsg` and its like, IPv4
    SendMsg4,
    /// `sendmsg` and its like, IPv6
    SendMsg6,
    /// `connect`, IPv4
    Connect4,
    /// `connect`, IPv6
    Connect6,
}

impl SocketHook {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Release,
        Self::GetPeerName4,
        Self::GetPeerName6,
        Self::RecvMsg4,
        Self::RecvMsg6,
        Self::SendMsg4,
        Self::SendMsg6,
        Self::Connect4,
        Self::Connect6,
    ];

    /// Its name, also in the pin directory.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Release => "sock_release",
            Self::GetPeerName4 => "getpeername4",
            Self::GetPeerName6 => "getpeername6",
            Self::RecvMsg4 => "recvmsg4",
            Self::RecvMsg6 => "recvmsg6",
            Self::SendMsg4 => "sendmsg4",
            Self::SendMsg6 => "sendmsg6",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
        }
    }

    /// Its program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Release => "lb_sock_release",
            Self::GetPeerName4 => "lb_getpeername4",
            Self::GetPeerName6 => "lb_getpeername6",
            Self::RecvMsg4 => "lb_recvmsg4",
            Self::RecvMsg6 => "lb_recvmsg6",
            Self::SendMsg4 => "lb_sendmsg4",
            Self::SendMsg6 => "lb_sendmsg6",
            Self::Connect4 => "lb_connect4",
            Self::Connect6 => "lb_connect6",
        }
    }
}

/// A program on a cgroup, as pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketLink {
    /// Where.
    pub hook: SocketHook,
    /// What the kernel says about it.
    pub info: CgroupLinkInfo,
}

impl Attacher {
    /// Attaches all programs to a cgroup, or puts this agent's programs into the links that are there. Gives the number of
    /// those taken over.
    ///
    /// # Errors
    /// [`DataplaneError::Attach`] names cgroup, hook, the kernel's reason and what to do; then none is attached that was
    /// not before.
    pub fn attach_sockets(&mut self, cgroup: &Path) -> Result<usize, DataplaneError> {
        let mut adopted = 0;
        let mut made = Vec::new();
        for hook in SocketHook::ALL {
            match self.attach_socket(cgroup, hook) {
                Ok(true) => adopted += 1,
                Ok(false) => made.push(hook),
                Err(error) => {
                    for hook in made.into_iter().rev() {
                        drop_link(&self.pins.socket(hook))?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(adopted)
    }

    /// Whether its link was there before.
    fn attach_socket(&mut self, cgroup: &Path, hook: SocketHook) -> Result<bool, DataplaneError> {
        let pin = self.pins.socket(hook);
        let program = self.programs.socket(hook)?;
        let failed = |error: ProgramError| attach_error(cgroup, hook, &error);
        let directory = File::open(cgroup).map_err(|error| failed(ProgramError::IOError(error)))?;
        let number = directory.metadata().map_err(|error| failed(ProgramError::IOError(error)))?.ino();
        if cgroup_link_info(&pin).is_ok_and(|info| info.cgroup == number) {
            let fd = match program {
                Program::CgroupSockAddr(program) => program.fd(),
                Program::CgroupSock(program) => program.fd(),
                _ => Err(ProgramError::UnexpectedProgramType),
            };
            update_link(&pin, fd.map_err(failed)?.as_fd())
                .map_err(|error| attach_error(cgroup, hook, &ProgramError::IOError(error)))?;
            return Ok(true);
        }
        drop_link(&pin)?;
        let link = match program {
            // The mode is for kernels without links: with them, other programs may be there as well.
            Program::CgroupSockAddr(program) => program
                .attach(&directory, CgroupAttachMode::Single)
                .and_then(|id| program.take_link(id))
                .and_then(|link| FdLink::try_from(link).map_err(|_| ProgramError::NotAttached)),
            Program::CgroupSock(program) => program
                .attach(&directory, CgroupAttachMode::Single)
                .and_then(|id| program.take_link(id))
                .and_then(|link| FdLink::try_from(link).map_err(|_| ProgramError::NotAttached)),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        link.map_err(failed)?.pin(&pin).map_err(|error| pin_error(&pin, &error))?;
        Ok(false)
    }
}

/// The pinned links of programs on a cgroup.
///
/// # Errors
/// [`DataplaneError::PinDir`].
pub fn socket_links(pins: &PinDir) -> Result<Vec<SocketLink>, DataplaneError> {
    let mut links = Vec::new();
    for hook in SocketHook::ALL {
        let path = pins.socket(hook);
        match cgroup_link_info(&path) {
            Ok(info) => links.push(SocketLink { hook, info }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(DataplaneError::PinDir { path, source }),
        }
    }
    Ok(links)
}

/// Takes all programs off their cgroup; whether there were any.
///
/// # Errors
/// [`DataplaneError::PinDir`].
pub fn detach_sockets(pins: &PinDir) -> Result<bool, DataplaneError> {
    let mut any = false;
    // In reverse: the last backend is dialled before the first one is seen under its own name.
    for hook in SocketHook::ALL.into_iter().rev() {
        let pin = pins.socket(hook);
        any |= fs::exists(&pin).unwrap_or(false);
        drop_link(&pin)?;
    }
    Ok(any)
}

/// The kernel's reason and what to do about it.
fn attach_error(cgroup: &Path, hook: SocketHook, error: &ProgramError) -> DataplaneError {
    let errno = errno_of(error);
    let advice = match errno {
        Some(libc::ENOENT | libc::ENOTDIR) => Some("--cgroup must name a directory of a mounted cgroup2"),
        Some(libc::EBADF | libc::EBADFD) => Some("it is no directory of a cgroup2: see --cgroup"),
        Some(libc::EPERM | libc::EACCES) => {
            Some("run as root; or a program that tolerates no other is there (`bpftool cgroup show`)")
        }
        Some(libc::EINVAL) => Some("the kernel may be too old (5.15 and later will do): use --socket-lb off"),
        _ => None,
    };
    let reason =
        errno.map_or_else(|| error.to_string(), |errno| io::Error::from_raw_os_error(errno).to_string());
    DataplaneError::Attach { iface: cgroup.display().to_string(), hook: hook.name(), reason, advice }
}
