//! The least that a program can do with a table of flows: TCP over IPv4, key and entry as long as ours.

use std::io;
use std::os::fd::OwnedFd;

use lb_common::abi::{FlowEntry, FlowKey};
use lb_common::family::V4Addr;
use lb_userspace::maps::KernelMap;

use crate::bpf::{self, Insn};
use crate::insn::{
    EXIT, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, R0, R1, R2, R3, R4, STACK, add as plus, call, copy, jump_if,
    jump_if_above, jump_unless, load_double, load_word, map, move_constant, store_double, store_word,
};
use crate::packet::driver::{NETWORK, NOT_RUN};
use crate::packet::hook::Hook;

const DATA: u8 = 7;
const END: u8 = 8;
/// Where in an IPv4 header the addresses begin; the ports follow a header without options.
const ADDRESSES: usize = NETWORK + 12;
const PORTS: usize = NETWORK + 20;
const TCP: i32 = 6;
/// Where the key and the entry lie on the stack.
const KEY: i16 = -(size_of::<FlowKey<V4Addr>>() as i16);
const ENTRY: i16 = KEY - size_of::<FlowEntry<V4Addr>>() as i16;

/// Code, and the jumps of it that lead out.
struct Code {
    code: Vec<Insn>,
    fail: Vec<usize>,
}

impl Code {
    /// Up to the key, of the packet's direction.
    fn new(hook: Hook) -> Self {
        let (data, data_end) = hook.pointers();
        let mut this = Self {
            code: vec![
                load_word(DATA, R1, data),
                load_word(END, R1, data_end),
                copy(R2, DATA),
                plus(R2, PORTS as i32 + 4),
            ],
            fail: Vec::new(),
        };
        this.or_fail(jump_if_above(R2, END));
        this.key([0, 4]);
        this
    }

    /// Puts the key on the stack, its addresses from these places.
    fn key(&mut self, addresses: [usize; 2]) {
        for (to, from) in [0, 4].into_iter().zip(addresses) {
            self.code.push(load_word(R1, DATA, (ADDRESSES + from) as i16));
            self.code.push(store_word(STACK, R1, KEY + to));
        }
        self.code.push(load_word(R1, DATA, PORTS as i16));
        self.code.push(store_word(STACK, R1, KEY + 8));
        self.code.push(move_constant(R1, TCP));
        self.code.push(store_word(STACK, R1, KEY + 12));
    }

    fn or_fail(&mut self, jump: Insn) {
        self.fail.push(self.code.len());
        self.code.push(jump);
    }

    fn on_stack(&mut self, register: u8, offset: i16) {
        self.code.extend([copy(register, STACK), plus(register, i32::from(offset))]);
    }

    fn load(mut self, name: &str, hook: Hook) -> io::Result<OwnedFd> {
        self.code.extend([move_constant(R0, hook.pass() as i32), EXIT]);
        for at in self.fail {
            self.code[at].offset = (self.code.len() - at - 1) as i16;
        }
        self.code.extend([move_constant(R0, NOT_RUN), EXIT]);
        bpf::load(name, hook.kind(), &self.code)
    }
}

/// Searches the table for the packet's flow and changes a word of its entry.
pub(super) fn find(hook: Hook, table: &KernelMap) -> io::Result<OwnedFd> {
    let mut code = Code::new(hook);
    code.on_stack(R2, KEY);
    code.code.extend(map(R1, table));
    code.code.push(call(MAP_LOOKUP_ELEM));
    code.or_fail(jump_if(R0, 0));
    code.code.extend([load_double(R1, R0, 0), plus(R1, 1), store_double(R0, R1, 0)]);
    code.load("bench_find", hook)
}

/// Adds the packet's flow, both directions.
pub(super) fn add(hook: Hook, table: &KernelMap) -> io::Result<OwnedFd> {
    let mut code = Code::new(hook);
    code.code.push(move_constant(R1, 0));
    for offset in (ENTRY..KEY).step_by(4) {
        code.code.push(store_word(STACK, R1, offset));
    }
    for addresses in [[0, 4], [4, 0]] {
        code.key(addresses);
        code.on_stack(R2, KEY);
        code.on_stack(R3, ENTRY);
        code.code.push(move_constant(R4, 0));
        code.code.extend(map(R1, table));
        code.code.push(call(MAP_UPDATE_ELEM));
        code.or_fail(jump_unless(R0, 0));
    }
    code.load("bench_add", hook)
}
