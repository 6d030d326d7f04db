//! Answers of the kernel's routing tables, kept for the rest of a tick: packets that ask alike are answered alike.

use super::forward::Lookup;
use crate::family::Address;

/// Answers kept on each CPU.
pub const KEPT: u32 = 64;

/// The way to the next hop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The device; 0 = there is no answer.
    pub ifindex: u32,
    /// Address family of the next hop; 0 = `next` has hardware addresses, as [`super::forward::MacPair`].
    pub family: u32,
    /// The next hop's address; a short one is followed by zeros.
    pub next: [u32; 4],
}

/// What was asked, and the answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<A> {
    /// When, in the kernel's ticks (`jiffies`).
    tick: u64,
    src: A,
    dst: A,
    ports: u32,
    class: u32,
    /// The interface that the packet came in over.
    from: u32,
    /// Length of the packet.
    len: u16,
    protocol: u8,
    _pad: u8,
    /// The answer.
    pub way: Way,
}

impl<A: Address> Known<A> {
    /// Nothing known.
    pub const fn nothing(zero: A) -> Self {
        let way = Way { ifindex: 0, family: 0, next: [0; 4] };
        Self { tick: 0, src: zero, dst: zero, ports: 0, class: 0, from: 0, len: 0, protocol: 0, _pad: 0, way }
    }

    /// Whether this very question was asked within this tick, for a packet at least as long.
    #[inline(always)]
    pub fn answers(&self, wanted: &Lookup<A>, from: u32, tick: u64) -> bool {
        self.tick == tick
            && self.src == wanted.src
            && self.dst == wanted.dst
            && self.ports == wanted.ports
            && self.class == wanted.class
            && self.from == from
            && self.protocol == wanted.protocol
            && self.len >= wanted.len
            && self.way.ifindex != 0
    }

    /// Keeps a question in the place of the one before; the answer is to be written to what is returned.
    #[inline(always)]
    pub fn keep(&mut self, wanted: &Lookup<A>, from: u32, tick: u64) -> &mut Way {
        self.tick = tick;
        (self.src, self.dst) = (wanted.src, wanted.dst);
        (self.ports, self.class, self.from) = (wanted.ports, wanted.class, from);
        (self.len, self.protocol) = (wanted.len, wanted.protocol);
        &mut self.way
    }
}

/// Where the answer to a question is kept.
#[inline(always)]
pub fn place<A: Address>(wanted: &Lookup<A>) -> u32 {
    // Multiplicative hashing, as in `filter`.
    let key = u64::from(wanted.ports) ^ u64::from(wanted.dst.word(A::WORDS - 1)) << 32;
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 % KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Lookup<u32> = Lookup { src: 1, dst: 2, class: 3, len: 100, protocol: 6, ports: 4 };
    const WAY: Way = Way { ifindex: 7, family: 0, next: [8; 4] };

    fn known() -> Known<u32> {
        let mut known = Known::nothing(0);
        assert!(!known.answers(&Lookup { src: 0, dst: 0, class: 0, len: 0, protocol: 0, ports: 0 }, 0, 0));
        *known.keep(&ASKED, 5, 1_000) = WAY;
        known
    }

    #[test]
    fn the_same_question_is_answered_until_the_tick_is_over() {
        let known = known();
        assert!(known.answers(&ASKED, 5, 1_000));
        assert!(!known.answers(&ASKED, 5, 1_001));
    }

    #[test]
    fn shorter_packets_have_the_answer_of_longer_ones() {
        let known = known();
        assert!(known.answers(&Lookup { len: 99, ..ASKED }, 5, 1_000));
        assert!(!known.answers(&Lookup { len: 101, ..ASKED }, 5, 1_000));
    }

    #[test]
    fn every_part_of_a_question_counts() {
        let known = known();
        for other in [
            Lookup { src: 9, ..ASKED },
            Lookup { dst: 9, ..ASKED },
            Lookup { class: 9, ..ASKED },
            Lookup { protocol: 9, ..ASKED },
            Lookup { ports: 9, ..ASKED },
        ] {
            assert!(!known.answers(&other, 5, 1_000), "{other:?}");
        }
        assert!(!known.answers(&ASKED, 6, 1_000));
    }

    #[test]
    fn places_are_spread() {
        let mut taken = [0; KEPT as usize];
        for port in 1_024..1_024 + 64 * KEPT {
            taken[place(&Lookup { ports: port, ..ASKED }) as usize] += 1;
        }
        assert!(taken.iter().all(|taken| (16..256).contains(taken)), "{taken:?}");
    }
}
