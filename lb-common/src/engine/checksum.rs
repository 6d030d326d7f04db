//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! One's-complement sums do not depend on byte order as long as all parts are loaded alike, so everything here works on
//! halves and words as they lie in the packet.

use super::packet::TransportFix;
use crate::family::Address;

/// Folds a sum of 16- or 32-bit parts to 16 bits.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // Up to here at most 0x1_fffe, so one more carry at the most.
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A difference of sums: zero has one form only, so that "no change" changes nothing.
#[inline(always)]
fn normal(delta: u16) -> u16 {
    if delta == 0xffff { 0 } else { delta }
}

/// What to add to a sum when the address pair `old` becomes `new`.
#[inline(always)]
pub fn addr_delta<A: Address>(old: [A; 2], new: [A; 2]) -> u16 {
    let mut sum = 0;
    for i in 0..A::WORDS {
        sum += u64::from(!old[0].word(i)) + u64::from(new[0].word(i));
        sum += u64::from(!old[1].word(i)) + u64::from(new[1].word(i));
    }
    normal(fold(sum))
}

/// What to add to a sum when the halves `old` become `new`.
#[inline(always)]
pub fn half_delta(old: [u16; 2], new: [u16; 2]) -> u16 {
    normal(fold(u64::from(!old[0]) + u64::from(new[0]) + u64::from(!old[1]) + u64::from(new[1])))
}

/// The delta that takes back `delta`.
#[inline(always)]
pub fn negate(delta: u16) -> u16 {
    normal(!delta)
}

/// Sum of two deltas.
#[inline(always)]
pub fn add(a: u16, b: u16) -> u16 {
    normal(fold(u64::from(a) + u64::from(b)))
}

/// A complete checksum field after its data changed by `delta` (RFC 1624, equation 3).
#[inline(always)]
pub fn update(field: u16, delta: u16) -> u16 {
    !fold(u64::from(!field) + u64::from(delta))
}

/// Folded sum of a pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
///
/// `length` is the length of transport header and data in bytes.
#[inline(always)]
pub fn pseudo_header<A: Address>(src: A, dst: A, protocol: u8, length: u32) -> u16 {
    let mut sum = u64::from(length.to_be()) + u64::from(u32::from(protocol).to_be());
    for i in 0..A::WORDS {
        sum += u64::from(src.word(i)) + u64::from(dst.word(i));
    }
    fold(sum)
}

/// Corrects a transport checksum where nothing says whether it is complete: a field that equals the pseudo header's sum
/// is one that a device is still to complete, and stays of that kind. One complete checksum in 65,536 looks the same;
/// interfaces that never see the other kind are better served by [`fix_complete`].
#[inline(always)]
pub fn fix_keeping_kind(field: u16, fix: &TransportFix) -> u16 {
    if field == fix.pseudo_header {
        fold(u64::from(field) + u64::from(fix.addr_delta))
    } else {
        fix_complete(field, fix)
    }
}

/// Corrects a complete transport checksum.
#[inline(always)]
pub fn fix_complete(field: u16, fix: &TransportFix) -> u16 {
    if fix.udp && field == 0 {
        return 0;
    }
    let new = !fold(u64::from(!field) + u64::from(fix.addr_delta) + u64::from(fix.port_delta));
    if fix.udp && new == 0 { 0xffff } else { new }
}
