//! How the engine reaches packet bytes.
//!
//! Words and halves come as they lie in the packet (network byte order, unswapped), so that copying and comparing cost
//! nothing; whoever needs a number swaps it.

use super::checksum;

/// A packet, from its first link-layer byte on.
///
/// Reads and writes are bounds-checked: outside the reachable bytes they do nothing and return `None`.
#[expect(clippy::len_without_is_empty, reason = "an empty packet is nothing anybody asks about")]
pub trait Packet {
    /// Length of the whole packet in bytes.
    fn len(&self) -> usize;

    /// Whether the packet has at least `end` bytes, reachable or not.
    fn holds(&self, end: usize) -> bool;

    /// Makes the first `end` bytes reachable; false when the packet has fewer.
    fn ensure(&mut self, end: usize) -> bool;

    /// The same number. Where a verifier checks the code path by path, it no longer knows the value afterwards, so that
    /// paths which differ in nothing else are checked once.
    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        number
    }

    /// One byte at `offset`.
    fn byte(&self, offset: usize) -> Option<u8>;

    /// Two bytes at `offset`.
    fn half(&self, offset: usize) -> Option<u16>;

    /// `N` times four bytes at `offset`.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// Writes two bytes at `offset`.
    fn set_half(&mut self, offset: usize, value: u16) -> Option<()>;

    /// Writes `N` times four bytes at `offset`.
    fn set_words<const N: usize>(&mut self, offset: usize, value: [u32; N]) -> Option<()>;

    /// Corrects the transport checksum at `field` for changed addresses and ports.
    fn fix_transport_checksum(&mut self, field: usize, fix: &TransportFix) -> Option<()> {
        let old = self.half(field)?;
        self.set_half(field, checksum::fix_keeping_kind(old, fix))
    }
}

/// What changed under a transport checksum.
#[derive(Clone, Copy, Debug)]
pub struct TransportFix {
    /// Change of the addresses, part of the pseudo header.
    pub addr_delta: u16,
    /// Change of the ports.
    pub port_delta: u16,
    /// Folded sum of the pseudo header before the change: what a checksum field holds while the device is still to
    /// complete it (`CHECKSUM_PARTIAL`).
    pub pseudo_header: u16,
    /// Where the transport header begins.
    pub start: usize,
    /// Where its data end.
    pub end: usize,
    /// UDP: zero means "no checksum", a computed zero is sent as all ones (RFC 768).
    pub udp: bool,
    /// The packet is IPv6.
    pub ipv6: bool,
}
