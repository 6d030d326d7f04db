//! System calls that the agent never makes, and that nobody who took it over is to make either.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use anyhow::Context;
use nix::errno::Errno;
use seccompiler::{BpfProgram, Error, SeccompAction, SeccompFilter};
use tracing::warn;

/// Refused with `EPERM`.
const FORBIDDEN: [libc::c_long; 33] = [
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_userfaultfd,
    // Code of the kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    // File systems: the one for pins is there by now.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The machine as a whole.
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Large and often in the news.
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Forbids them to this thread and those that it starts, for good. Needs `no_new_privs`. A kernel built without seccomp (which
/// is 3.17 or later) is a warning only: capabilities are given up in any case.
///
/// # Errors
/// When the filter cannot be made for this processor.
pub(super) fn close() -> anyhow::Result<()> {
    let filter = filter().context("cannot make a filter of system calls")?;
    match seccompiler::apply_filter(&filter) {
        Err(Error::Seccomp(error) | Error::Prctl(error))
            if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EINVAL | Errno::ENOSYS)) =>
        {
            warn!("this kernel filters no system calls ({error}): goes on without");
            Ok(())
        }
        result => result.context("cannot filter system calls"),
    }
}

fn filter() -> anyhow::Result<BpfProgram> {
    let rules: BTreeMap<i64, Vec<_>> = FORBIDDEN.into_iter().map(|call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(Errno::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Command;
    use std::thread;

    use nix::sys::prctl;

    use super::*;

    #[test]
    fn no_program_can_be_started_behind_the_fence() {
        let start = || Command::new("true").status();
        assert!(start().unwrap().success());
        let behind = thread::spawn(move || {
            prctl::set_no_new_privs().unwrap();
            close().unwrap();
            thread::spawn(start).join().unwrap().map_err(|error| error.kind())
        });
        assert_eq!(behind.join().unwrap(), Err(ErrorKind::PermissionDenied));
        assert!(start().unwrap().success(), "on other threads");
    }
}
