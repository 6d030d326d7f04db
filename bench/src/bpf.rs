//! bpf(2) for programs made of instructions: loading, test runs, arrays of programs. The only file with `unsafe` code.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use lb_userspace::maps::KernelMap;

// Commands of bpf(2), `enum bpf_cmd` in linux/bpf.h.
const MAP_CREATE: u32 = 0;
const PROG_LOAD: u32 = 5;
const PROG_TEST_RUN: u32 = 10;

/// `BPF_MAP_TYPE_PROG_ARRAY`.
const PROG_ARRAY: u32 = 3;
/// As the kernel programs' own.
const LICENSE: &CStr = c"Dual MIT/GPL";
/// Room for what the verifier says.
const LOG_BYTES: usize = 64 * 1024;
/// Room behind a frame in the buffer for what comes out.
const GROWTH: usize = 256;

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    /// Operation.
    pub(crate) code: u8,
    /// Destination register in the lower half, source register in the upper one.
    pub(crate) registers: u8,
    /// Offset.
    pub(crate) offset: i16,
    /// Constant.
    pub(crate) constant: i32,
}

/// A type of program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// `BPF_PROG_TYPE_*`.
    pub(crate) program_type: u32,
    /// `BPF_XDP` for XDP programs, else 0: the kernel lets a program call others of the same only.
    pub(crate) attach_type: u32,
    /// `BPF_F_XDP_HAS_FRAGS`, or 0.
    pub(crate) flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadAttr {
    program_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct RunAttr {
    fd: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_sizes: [u32; 2],
    contexts: [u64; 2],
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct CreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// # Safety
/// `attr` is what `command` wants, and every address in it is of memory that is live and as large as `attr` says.
unsafe fn bpf<T>(command: u32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the kernel takes what is behind the attribute's end as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn descriptor(number: i32) -> OwnedFd {
    // SAFETY: a new descriptor that nobody else has.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Loads a program.
///
/// # Errors
/// The kernel's, with what its verifier says.
pub(crate) fn load(name: &str, kind: Kind, insns: &[Insn]) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut attr = LoadAttr {
        program_type: kind.program_type,
        insn_count: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: kind.flags,
        name: [0; 16],
        ifindex: 0,
        attach_type: kind.attach_type,
    };
    for (to, from) in attr.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: instructions, licence and log live on and have the lengths given.
    match unsafe { bpf(PROG_LOAD, &mut attr) } {
        Ok(fd) => Ok(descriptor(fd)),
        Err(error) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            Err(io::Error::new(error.kind(), format!("{error}; the verifier says: {}", log.trim_end())))
        }
    }
}

/// An array of programs that holds `program` at 0.
///
/// # Errors
/// The kernel's.
pub(crate) fn program_array(program: BorrowedFd<'_>) -> io::Result<KernelMap> {
    let mut attr = CreateAttr { kind: PROG_ARRAY, key_size: 4, value_size: 4, max_entries: 1, flags: 0 };
    // SAFETY: no addresses in it.
    let map = KernelMap::from_fd(descriptor(unsafe { bpf(MAP_CREATE, &mut attr)? }))?;
    map.update(&[0; 4], &raw(program).to_ne_bytes())?;
    Ok(map)
}

/// What a test run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// What the program returned, the last time.
    pub(crate) result: u32,
    /// The packet afterwards.
    pub(crate) frame: Vec<u8>,
}

/// Runs a program `repeat` times on a packet that is not put back in between.
///
/// # Errors
/// The kernel's.
pub(crate) fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<Ran> {
    let mut out = vec![0_u8; frame.len() + GROWTH];
    let mut attr = RunAttr {
        fd: raw(program),
        size_in: frame.len() as u32,
        size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ..RunAttr::default()
    };
    // SAFETY: both buffers live on and have the lengths given.
    unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
    out.truncate(attr.size_out as usize);
    Ok(Ran { result: attr.result, frame: out })
}

/// The number by which instructions name a descriptor.
pub(crate) fn number(fd: &impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}
