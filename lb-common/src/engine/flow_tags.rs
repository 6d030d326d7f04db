//! What a set of the flow table tells of its ways in one word, which lies in its first way: seven bits of the hash of each way's
//! key, and how many entries have this as their first set but lie in their second one.
//!
//! So a search touches the first way, the way it is after and hardly another, and a second set is looked at only when something may
//! be there. The word is changed under the set's lock, and read without.
//!
//! An entry that had to make way for another stays counted: to find out where its first set is would cost more than it saves.
//! Where the table has been full, second sets are looked at for nothing.

use crate::abi::WAYS;

/// Bits of a way's tag.
const TAG_BITS: u32 = 7;
/// Bit 0 of each tag.
const LOWS: u32 = 1 | 1 << TAG_BITS | 1 << (2 * TAG_BITS) | 1 << (3 * TAG_BITS);
/// The highest bit of each tag.
const HIGHS: u32 = LOWS << (TAG_BITS - 1);
/// All other bits of tags.
const RESTS: u32 = HIGHS - LOWS;
/// One entry that lies elsewhere.
const ELSEWHERE: u32 = 1 << (WAYS as u32 * TAG_BITS);
/// So many that they are no longer counted.
const UNCOUNTED: u32 = 0xf << (WAYS as u32 * TAG_BITS);

/// The tags of a set, and how many entries lie elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags(pub u32);

impl Tags {
    /// The tag of a hash: never 0, which is that of a free way.
    #[inline(always)]
    pub const fn tag(hash: u64) -> u32 {
        let tag = (hash >> (u64::BITS - TAG_BITS)) as u32;
        tag + (tag.wrapping_sub(1) >> 31)
    }

    /// The ways with this tag.
    #[inline(always)]
    pub const fn with(self, tag: u32) -> Ways {
        let difference = self.0 ^ tag.wrapping_mul(LOWS);
        // A tag's highest bit ends as 1 where the difference is 0. No sum is carried into the next tag.
        Ways(!(((difference & RESTS) + RESTS) | difference) & HIGHS)
    }

    /// The free ways.
    #[inline(always)]
    pub const fn free(self) -> Ways {
        self.with(0)
    }

    /// With another tag for way `i`; 0 = free.
    #[inline(always)]
    pub const fn set(self, i: usize, tag: u32) -> Self {
        let shift = i as u32 * TAG_BITS;
        Self(self.0 & !(((1 << TAG_BITS) - 1) << shift) | tag << shift)
    }

    /// Whether an entry may lie in its second set.
    #[inline(always)]
    pub const fn elsewhere(self) -> bool {
        self.0 >= ELSEWHERE
    }

    /// With one more that lies elsewhere.
    #[inline(always)]
    pub const fn one_more(self) -> Self {
        if self.0 >= UNCOUNTED { self } else { Self(self.0 + ELSEWHERE) }
    }

    /// With one less. Once there were too many to be counted, some are taken to be there for ever.
    #[inline(always)]
    pub const fn one_less(self) -> Self {
        if self.0 >= UNCOUNTED || self.0 < ELSEWHERE { self } else { Self(self.0 - ELSEWHERE) }
    }
}

/// Some ways of a set: the highest bit of each one's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways(u32);

impl Ways {
    /// Whether there is none.
    #[inline(always)]
    pub const fn none(self) -> bool {
        self.0 == 0
    }

    /// Whether there is more than one.
    #[inline(always)]
    pub const fn several(self) -> bool {
        !self.but_first().none()
    }

    /// Without the first one.
    #[inline(always)]
    pub const fn but_first(self) -> Self {
        Self(self.0 & self.0.wrapping_sub(1))
    }

    /// The number of the first one; of no meaning when there is none.
    #[inline(always)]
    pub const fn first(self) -> usize {
        /// Moved up by a way's tag, it has the way's number in the highest tag's place. BPF has no instruction for this.
        const NUMBERS: u32 = 3 | 2 << TAG_BITS | 1 << (2 * TAG_BITS);
        let lowest = (self.0 & self.0.wrapping_neg()) >> (TAG_BITS - 1);
        (lowest.wrapping_mul(NUMBERS) >> (3 * TAG_BITS)) as usize & (WAYS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ways, one after the other.
    fn numbers(mut ways: Ways) -> Vec<usize> {
        let mut numbers = Vec::new();
        while !ways.none() {
            numbers.push(ways.first());
            ways = ways.but_first();
        }
        numbers
    }

    #[test]
    fn every_way_is_found_by_its_tag_and_no_other() {
        let all = [0, 1, 2, 63, 64, 65, 126, 127];
        for a in all {
            for b in all {
                for c in all {
                    for d in all {
                        let ways = [a, b, c, d];
                        let tags =
                            ways.iter().enumerate().fold(Tags(u32::MAX), |tags, (i, t)| tags.set(i, *t));
                        for tag in all {
                            let expected: Vec<usize> = (0..WAYS).filter(|i| ways[*i] == tag).collect();
                            assert_eq!(numbers(tags.with(tag)), expected, "{tag} in {ways:?}");
                            assert_eq!(tags.with(tag).several(), expected.len() > 1);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_hash_has_the_tag_of_free_ways() {
        for top in 0..128_u64 {
            let tag = Tags::tag(top << 57 | 0x1234);
            assert!((1..128).contains(&tag), "{top} has {tag}");
        }
    }

    #[test]
    fn entries_elsewhere_are_counted_until_there_are_too_many() {
        let mut tags = Tags(0).set(3, 127);
        assert!(!tags.elsewhere() && tags.one_less() == tags);
        for _ in 0..14 {
            tags = tags.one_more();
            assert!(tags.elsewhere());
        }
        let mut back = tags;
        for _ in 0..14 {
            assert!(back.elsewhere());
            back = back.one_less();
        }
        assert_eq!(back, Tags(0).set(3, 127));
        let many = tags.one_more();
        assert_eq!((many.one_more(), many.one_less()), (many, many));
    }
}
