//! IPv4 and IPv6 as a type parameter, so that neither has code of its own where the rules are the same.

use core::fmt::Debug;

use bytemuck::Pod;

/// An IP address as it lies in the packet: 32-bit words in network byte order.
pub trait Address: Copy + Eq + Pod + Debug {
    /// Number of 32-bit words: 1 for IPv4, 4 for IPv6.
    const WORDS: usize;

    /// The `i`-th word, network byte order. `i` is below [`Self::WORDS`].
    fn word(&self, i: usize) -> u32;

    /// The address as 16 bytes in four words; an IPv4 address takes the mapped form `::ffff:a.b.c.d`.
    fn widen(&self) -> [u32; 4];

    /// The inverse of how backends store addresses: the first [`Self::WORDS`] words of four.
    fn from_words(words: [u32; 4]) -> Self;
}

/// An IPv4 address, network byte order.
pub type V4Addr = u32;
/// An IPv6 address, four words in network byte order.
pub type V6Addr = [u32; 4];

/// `0000ffff` in network byte order: the third word of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
pub const MAPPED_WORD: u32 = 0x0000_ffff_u32.to_be();

impl Address for V4Addr {
    const WORDS: usize = 1;

    #[inline(always)]
    fn word(&self, _i: usize) -> u32 {
        *self
    }

    #[inline(always)]
    fn widen(&self) -> [u32; 4] {
        [0, 0, MAPPED_WORD, *self]
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        words[0]
    }
}

impl Address for V6Addr {
    const WORDS: usize = 4;

    #[inline(always)]
    fn word(&self, i: usize) -> u32 {
        self[i]
    }

    #[inline(always)]
    fn widen(&self) -> [u32; 4] {
        *self
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        words
    }
}
