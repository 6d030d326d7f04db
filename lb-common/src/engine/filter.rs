//! The filter in front of everything: traffic that has nothing to do with Services is told apart by its two addresses.
//!
//! `FILTER` holds two bits for each hash of an address: somebody dials it, somebody answers from it. Together with the
//! service ranges in the settings they say "certainly not ours" or "maybe". Bits are set before anything refers to an
//! address, and cleared only once no flow can need them any more, so "certainly" holds for flows as well.

use super::tables::Tables;
use crate::abi::Settings;
use crate::family::Address;

/// Bits of a cell of `FILTER`.
pub mod cell {
    /// A frontend's address, or a ClusterIP that owns other ports too.
    pub const DIALLED: u64 = 1 << 0;
    /// A backend's address.
    pub const ANSWERS: u64 = 1 << 1;
    /// Both.
    pub const ALL: u64 = DIALLED | ANSWERS;
}

/// Bits of a cell.
const CELL_BITS: u32 = 2;
/// Cells in a word of `FILTER`.
const CELLS_PER_WORD: u32 = 64 / CELL_BITS;
/// Bits of an address's hash.
const HASH_BITS: u32 = 20;
/// Words of `FILTER`: with 100,000 addresses, one foreign address in ten is taken for one of them.
pub const WORDS: u32 = (1 << HASH_BITS) / CELLS_PER_WORD;

/// Where the cell of an address is: word, and bits to the right of it.
#[inline(always)]
pub fn place<A: Address>(addr: A) -> (u32, u32) {
    // Multiplicative hashing (D. Knuth, The Art of Computer Programming, volume 3, section 6.4).
    let mut hash = u64::from(addr.word(0));
    let mut i = 1;
    while i < A::WORDS {
        hash = (hash ^ u64::from(addr.word(i))).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
        i += 1;
    }
    let index = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS)) as u32;
    (index / CELLS_PER_WORD, index % CELLS_PER_WORD * CELL_BITS)
}

/// What a packet may have to do with Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    NotOurs,
    /// It may be a reply, and nothing else.
    MaybeReply,
    /// Anything.
    Maybe,
}

/// Looks at the addresses of a packet. Also says whether the destination may be a backend, dialled by its own address.
#[inline(always)]
pub fn look<A: Address, T: Tables>(tables: &T, src: A, dst: A) -> (Seen, bool) {
    let in_service_range = match tables.settings() {
        Some(settings) => in_service_range(&settings, dst),
        None => true,
    };
    let (word, shift) = place(dst);
    let dst_cell = tables.filter(word) >> shift;
    let to_backend = dst_cell & cell::ANSWERS != 0;
    if in_service_range || dst_cell & cell::DIALLED != 0 {
        return (Seen::Maybe, to_backend);
    }
    let (word, shift) = place(src);
    let answers = tables.filter(word) >> shift & cell::ANSWERS != 0;
    (if answers { Seen::MaybeReply } else { Seen::NotOurs }, to_backend)
}

/// Whether an address may be inside a service range. Settings that were never written know nothing: it may.
#[inline(always)]
fn in_service_range<A: Address>(settings: &Settings, addr: A) -> bool {
    // Without branches: verifiers before kernel 6.12 follow each one with all that comes behind it.
    let mut within = 0;
    if A::WORDS == 1 {
        for range in &settings.service_v4 {
            within |= is_zero((addr.word(0) & range.mask) ^ range.addr);
        }
    } else {
        for range in &settings.service_v6 {
            let mut difference = 0;
            let mut i = 0;
            while i < A::WORDS {
                difference |= (addr.word(i) & range.mask[i]) ^ range.addr[i];
                i += 1;
            }
            within |= is_zero(difference);
        }
    }
    within != 0
}

/// 1 for 0, and 0 for everything else.
#[inline(always)]
const fn is_zero(number: u32) -> u64 {
    (number as u64).wrapping_sub(1) >> 63
}
