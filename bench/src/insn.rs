//! Instructions of BPF, as far as the measurements need them (Documentation/bpf/standardization/instruction-set.rst in the
//! kernel's source).

use std::os::fd::AsFd;

use crate::bpf::{self, Insn};

// Registers.
pub(crate) const R0: u8 = 0;
pub(crate) const R1: u8 = 1;
pub(crate) const R2: u8 = 2;
pub(crate) const R3: u8 = 3;
pub(crate) const R4: u8 = 4;
pub(crate) const STACK: u8 = 10;

// Helpers.
pub(crate) const MAP_LOOKUP_ELEM: i32 = 1;
pub(crate) const MAP_UPDATE_ELEM: i32 = 2;
pub(crate) const TAIL_CALL: i32 = 12;

fn insn(code: u8, dst: u8, src: u8, offset: i16, constant: i32) -> Insn {
    Insn { code, registers: src << 4 | dst, offset, constant }
}

/// Leaves the program.
pub(crate) const EXIT: Insn = Insn { code: 0x95, registers: 0, offset: 0, constant: 0 };

/// `dst = constant`.
pub(crate) fn move_constant(dst: u8, constant: i32) -> Insn {
    insn(0xb7, dst, 0, 0, constant)
}

/// `dst = src`.
pub(crate) fn copy(dst: u8, src: u8) -> Insn {
    insn(0xbf, dst, src, 0, 0)
}

/// `dst += constant`.
pub(crate) fn add(dst: u8, constant: i32) -> Insn {
    insn(0x07, dst, 0, 0, constant)
}

/// `dst = *(u32 *)(src + offset)`.
pub(crate) fn load_word(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x61, dst, src, offset, 0)
}

/// `dst = *(u64 *)(src + offset)`.
pub(crate) fn load_double(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x79, dst, src, offset, 0)
}

/// `*(u16 *)(dst + offset) = src`.
pub(crate) fn store_half(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x6b, dst, src, offset, 0)
}

/// `*(u32 *)(dst + offset) = src`.
pub(crate) fn store_word(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x63, dst, src, offset, 0)
}

/// `*(u64 *)(dst + offset) = src`.
pub(crate) fn store_double(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x7b, dst, src, offset, 0)
}

/// Calls a helper.
pub(crate) fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, 0, helper)
}

/// `dst &= constant`.
pub(crate) fn and(dst: u8, constant: i32) -> Insn {
    insn(0x57, dst, 0, 0, constant)
}

/// `dst >>= bits`.
pub(crate) fn shift_right(dst: u8, bits: i32) -> Insn {
    insn(0x77, dst, 0, 0, bits)
}

/// Jumps if `dst == constant`; where to, is to be filled in.
pub(crate) fn jump_if(dst: u8, constant: i32) -> Insn {
    insn(0x15, dst, 0, 0, constant)
}

/// Jumps if `dst != constant`; where to, is to be filled in.
pub(crate) fn jump_unless(dst: u8, constant: i32) -> Insn {
    insn(0x55, dst, 0, 0, constant)
}

/// Jumps if `dst > src`; where to, is to be filled in.
pub(crate) fn jump_if_above(dst: u8, src: u8) -> Insn {
    insn(0x2d, dst, src, 0, 0)
}

/// `dst` = a map (`BPF_PSEUDO_MAP_FD`).
pub(crate) fn map(dst: u8, map: &impl AsFd) -> [Insn; 2] {
    wide(dst, 1, bpf::number(map))
}

/// `dst` = the address of a map's only value (`BPF_PSEUDO_MAP_VALUE`).
pub(crate) fn value(dst: u8, map: &impl AsFd) -> [Insn; 2] {
    wide(dst, 2, bpf::number(map))
}

/// A 64-bit constant takes two instructions.
fn wide(dst: u8, pseudo: u8, constant: i32) -> [Insn; 2] {
    [insn(0x18, dst, pseudo, 0, constant), insn(0, 0, 0, 0, 0)]
}
