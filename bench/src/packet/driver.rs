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
use crate::insn::{
    EXIT, MAP_LOOKUP_ELEM, R0, R1, R2, R3, STACK, TAIL_CALL, add, and, call, copy, jump_if, jump_if_above,
    load_double, load_word, map, move_constant, shift_right, store_double, store_half, store_word, value,
};

/// Where headers begin: behind the Ethernet header, which nobody changes.
pub(crate) const NETWORK: usize = 14;
/// What the driver returns when it could not jump.
pub(crate) const NOT_RUN: i32 = 99;

const CONTEXT: u8 = 6;
const DATA: u8 = 7;
const END: u8 = 8;
const COUNT: u8 = 9;

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

/// The driver's instructions.
fn instructions(hook: Hook, headers: &Headers, target: &KernelMap) -> Vec<Insn> {
    let (data, data_end) = hook.pointers();
    let mut code = vec![
        copy(CONTEXT, R1),
        load_word(DATA, CONTEXT, data),
        load_word(END, CONTEXT, data_end),
        copy(R2, DATA),
        add(R2, (NETWORK + headers.words * 8) as i32),
    ];
    let mut leave = vec![code.len()];
    code.push(jump_if_above(R2, END));
    code.extend(value(R1, &headers.counter));
    code.push(load_double(COUNT, R1, 0));
    code.push(copy(R3, COUNT));
    code.push(add(R3, 1));
    code.push(store_double(R1, R3, 0));
    code.push(copy(R2, COUNT));
    code.push(and(R2, (headers.entries - 1) as i32));
    code.push(store_word(STACK, R2, -4));
    code.push(copy(R2, STACK));
    code.push(add(R2, -4));
    code.extend(map(R1, &headers.map));
    code.push(call(MAP_LOOKUP_ELEM));
    leave.push(code.len());
    code.push(jump_if(R0, 0));
    for word in 0..headers.words {
        code.push(load_double(R1, R0, word as i16 * 8));
        code.push(store_double(DATA, R1, (NETWORK + word * 8) as i16));
    }
    if let Some(fresh) = headers.fresh {
        code.push(store_half(DATA, COUNT, fresh.port as i16));
        code.push(shift_right(COUNT, 16));
        code.push(store_half(DATA, COUNT, fresh.address as i16));
    }
    code.push(copy(R1, CONTEXT));
    code.extend(map(R2, target));
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
