//! A small program around the one that is timed: it puts the next headers of a list into the packet, then jumps to it.
//!
//! A test run repeats a program on one packet and puts nothing back in between, so that a rewritten packet would be
//! another case the second time. The driver's own cost is measured with a target that does nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lb_common::tables::Kind as MapKind;
use lb_userspace::maps::KernelMap;

use super::hook::Hook;
use crate::bpf::{self, Insn, Ran};

/// Where headers begin: behind the Ethernet header, which nobody changes.
const NETWORK: usize = 14;
/// What the driver returns when it could not jump.
const NOT_RUN: i32 = 99;

// Registers.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const CONTEXT: u8 = 6;
const DATA: u8 = 7;
const END: u8 = 8;
const COUNT: u8 = 9;
const STACK: u8 = 10;

// Helpers.
const MAP_LOOKUP_ELEM: i32 = 1;
const TAIL_CALL: i32 = 12;

/// Bits of a header that make a flow new, by their offsets in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fresh {
    /// Two bytes: the source port.
    pub(crate) port: usize,
    /// Two bytes: the lower half of the source address.
    pub(crate) address: usize,
}

/// A list of headers in the kernel, and how far it has been gone through.
#[derive(Debug)]
pub(crate) struct Headers {
    map: KernelMap,
    counter: KernelMap,
    entries: u32,
    words: usize,
    fresh: Option<Fresh>,
    /// One of the frames, for its link header and its length.
    frame: Vec<u8>,
}

impl Headers {
    /// The headers of these frames, a power of two of them, all of one length.
    ///
    /// `headers` is how many bytes from the network header on are put back; the frames are at least as long, rounded up to 8.
    /// With `fresh`, the packets are numbered there, over all who share the list.
    pub(crate) fn new(frames: &[Vec<u8>], headers: usize, fresh: Option<Fresh>) -> io::Result<Self> {
        let (words, entries) = (headers.div_ceil(8), frames.len() as u32);
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let frame = frames.first().ok_or_else(invalid)?.clone();
        let behind = NETWORK + words * 8;
        if !frames.len().is_power_of_two() || frames.iter().any(|other| other.len() != frame.len()) {
            return Err(invalid());
        }
        let mut values = Vec::with_capacity(frames.len() * words * 8);
        for frame in frames {
            values.extend_from_slice(frame.get(NETWORK..behind).ok_or_else(invalid)?);
        }
        let map = KernelMap::create("bench_headers", MapKind::Array, 4, words as u32 * 8, entries)?;
        let keys: Vec<u8> = (0..entries).flat_map(u32::to_ne_bytes).collect();
        map.update_batch(&keys, &values, frames.len()).map_err(|(_, error)| error)?;
        let counter = KernelMap::create("bench_counter", MapKind::Array, 4, 8, 1)?;
        Ok(Self { map, counter, entries, words, fresh, frame })
    }

    /// How many packets it takes to have seen each once.
    pub(crate) fn len(&self) -> u32 {
        self.entries
    }
}

/// The driver with one target.
#[derive(Debug)]
pub(crate) struct Driver {
    program: OwnedFd,
    frame: Vec<u8>,
    target_result: u32,
    // The kernel empties an array of programs when its last descriptor is closed.
    _target: KernelMap,
}

impl Driver {
    /// A driver for `target`, which belongs to `hook` and returns `target_result` for these packets.
    pub(crate) fn new(
        hook: Hook,
        headers: &Headers,
        target: BorrowedFd<'_>,
        target_result: u32,
    ) -> io::Result<Self> {
        let array = bpf::program_array(target)?;
        let program = bpf::load("bench_driver", hook.kind(), &instructions(hook, headers, &array))?;
        Ok(Self { program, frame: headers.frame.clone(), target_result, _target: array })
    }

    /// Sends so many packets.
    pub(crate) fn run(&self, packets: u32) -> io::Result<()> {
        run(self.program.as_fd(), &self.frame, packets, self.target_result)
    }
}

/// Runs a program and checks what it returns.
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8], packets: u32, expected: u32) -> io::Result<()> {
    let Ran { result, .. } = bpf::test_run(program, frame, packets)?;
    if result == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("the program returned {result}, not {expected}")))
}

/// A program that does nothing but return.
pub(crate) fn noop(hook: Hook) -> io::Result<OwnedFd> {
    bpf::load("bench_noop", hook.kind(), &[move_constant(R0, hook.pass() as i32), EXIT])
}

fn insn(code: u8, dst: u8, src: u8, offset: i16, constant: i32) -> Insn {
    Insn { code, registers: src << 4 | dst, offset, constant }
}

const EXIT: Insn = Insn { code: 0x95, registers: 0, offset: 0, constant: 0 };

fn move_constant(dst: u8, constant: i32) -> Insn {
    insn(0xb7, dst, 0, 0, constant)
}

fn copy(dst: u8, src: u8) -> Insn {
    insn(0xbf, dst, src, 0, 0)
}

fn add(dst: u8, constant: i32) -> Insn {
    insn(0x07, dst, 0, 0, constant)
}

fn load_word(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x61, dst, src, offset, 0)
}

fn load_double(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x79, dst, src, offset, 0)
}

fn store_half(dst: u8, src: u8, offset: usize) -> Insn {
    insn(0x6b, dst, src, offset as i16, 0)
}

fn store_word(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x63, dst, src, offset, 0)
}

fn store_double(dst: u8, src: u8, offset: usize) -> Insn {
    insn(0x7b, dst, src, offset as i16, 0)
}

fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, 0, helper)
}

/// A 64-bit constant of two instructions: a map (`BPF_PSEUDO_MAP_FD`), or the address of its only value
/// (`BPF_PSEUDO_MAP_VALUE`).
fn map(dst: u8, pseudo: u8, fd: i32) -> [Insn; 2] {
    [insn(0x18, dst, pseudo, 0, fd), insn(0, 0, 0, 0, 0)]
}

/// The driver's instructions.
fn instructions(hook: Hook, headers: &Headers, target: &KernelMap) -> Vec<Insn> {
    const MAP: u8 = 1;
    const VALUE: u8 = 2;
    let (data, data_end) = hook.pointers();
    let mut code = vec![
        copy(CONTEXT, R1),
        load_word(DATA, CONTEXT, data),
        load_word(END, CONTEXT, data_end),
        copy(R2, DATA),
        add(R2, (NETWORK + headers.words * 8) as i32),
    ];
    let mut leave = vec![code.len()];
    code.push(insn(0x2d, R2, END, 0, 0)); // if r2 > end
    code.extend(map(R1, VALUE, bpf::number(&headers.counter)));
    code.push(load_double(COUNT, R1, 0));
    code.push(copy(R3, COUNT));
    code.push(add(R3, 1));
    code.push(store_double(R1, R3, 0));
    code.push(copy(R2, COUNT));
    code.push(insn(0x57, R2, 0, 0, (headers.entries - 1) as i32)); // r2 &= …
    code.push(store_word(STACK, R2, -4));
    code.push(copy(R2, STACK));
    code.push(add(R2, -4));
    code.extend(map(R1, MAP, bpf::number(&headers.map)));
    code.push(call(MAP_LOOKUP_ELEM));
    leave.push(code.len());
    code.push(insn(0x15, R0, 0, 0, 0)); // if r0 == 0
    for word in 0..headers.words {
        code.push(load_double(R1, R0, word as i16 * 8));
        code.push(store_double(DATA, R1, NETWORK + word * 8));
    }
    if let Some(fresh) = headers.fresh {
        code.push(store_half(DATA, COUNT, fresh.port));
        code.push(insn(0x77, COUNT, 0, 0, 16)); // r9 >>= 16
        code.push(store_half(DATA, COUNT, fresh.address));
    }
    code.push(copy(R1, CONTEXT));
    code.extend(map(R2, MAP, bpf::number(target)));
    code.push(move_constant(R3, 0));
    code.push(call(TAIL_CALL));
    let end = code.len();
    code.push(move_constant(R0, NOT_RUN));
    code.push(EXIT);
    for at in leave {
        code[at].offset = (end - at - 1) as i16;
    }
    code
}
