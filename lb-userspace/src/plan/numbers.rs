//! Numbers: ids and runs of slots, given out so that what is in the maps keeps its numbers, and what was just freed rests
//! before it is used again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Gives out runs of numbers below a limit. An id is a run of one.
///
/// A number that is given back goes through three stages: *released* (the plan says so), *resting* (the plan is in the
/// maps, but a packet may still hold the old entry), *free*.
#[derive(Clone, Debug)]
pub struct Allocator {
    /// First number of each free run, and its length. Runs never touch.
    free: BTreeMap<u32, u32>,
    /// The same, by length, for best fit.
    by_length: BTreeSet<(u32, u32)>,
    released: Vec<(u32, u32)>,
    resting: VecDeque<(Duration, u32, u32)>,
}

impl Allocator {
    /// All numbers from `first` up to, not including, `end` are free.
    pub fn new(first: u32, end: u32) -> Self {
        let mut allocator = Self {
            free: BTreeMap::new(),
            by_length: BTreeSet::new(),
            released: Vec::new(),
            resting: VecDeque::new(),
        };
        allocator.add_free(first, end.saturating_sub(first));
        allocator
    }

    /// A run of `length` numbers, from the shortest free run that has room; `None` when there is none.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        let &(run, base) = self.by_length.range((length.max(1), 0)..).next()?;
        self.remove_free(base, run);
        self.add_free(base + length, run - length);
        Some(base)
    }

    /// Takes a certain run out of the free ones; false when part of it is not free (then nothing happens).
    pub fn take_at(&mut self, base: u32, length: u32) -> bool {
        let Some((&first, &run)) = self.free.range(..=base).next_back() else {
            return false;
        };
        let (Some(end), Some(run_end)) = (base.checked_add(length), first.checked_add(run)) else {
            return false;
        };
        if end > run_end || length == 0 {
            return false;
        }
        self.remove_free(first, run);
        self.add_free(first, base - first);
        self.add_free(end, run_end - end);
        true
    }

    /// Gives back a run that was never written to a map: free at once.
    pub fn put_back(&mut self, base: u32, length: u32) {
        self.merge_free(base, length);
    }

    /// Gives back a run that maps refer to until the plan is applied.
    pub fn release(&mut self, base: u32, length: u32) {
        self.released.push((base, length));
    }

    /// The plan is in the maps: what it released begins to rest.
    pub fn settle(&mut self, now: Duration) {
        self.resting.extend(self.released.drain(..).map(|(base, length)| (now, base, length)));
    }

    /// Frees what has rested long enough.
    pub fn wake(&mut self, now: Duration, rest: Duration) {
        while let Some(&(since, base, length)) = self.resting.front() {
            if now.saturating_sub(since) < rest {
                break;
            }
            self.resting.pop_front();
            self.merge_free(base, length);
        }
    }

    /// Whether numbers will become free as time goes by.
    pub fn expects(&self) -> bool {
        !self.resting.is_empty() || !self.released.is_empty()
    }

    fn merge_free(&mut self, mut base: u32, mut length: u32) {
        if let Some((&first, &run)) = self.free.range(..base).next_back()
            && first + run == base
        {
            self.remove_free(first, run);
            (base, length) = (first, run + length);
        }
        if let Some(&run) = self.free.get(&(base + length)) {
            self.remove_free(base + length, run);
            length += run;
        }
        self.add_free(base, length);
    }

    fn add_free(&mut self, base: u32, length: u32) {
        if length > 0 {
            self.free.insert(base, length);
            self.by_length.insert((length, base));
        }
    }

    fn remove_free(&mut self, base: u32, length: u32) {
        self.free.remove(&base);
        self.by_length.remove(&(length, base));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn best_fit() {
        let mut slots = Allocator::new(0, 100);
        assert!(slots.take_at(10, 10));
        assert!(slots.take_at(25, 75));
        // Free: 0..10 and 20..25.
        assert_eq!(slots.take(5), Some(20));
        assert_eq!(slots.take(5), Some(0));
        assert_eq!(slots.take(6), None);
        assert_eq!(slots.take(5), Some(5));
        assert_eq!(slots.take(1), None);
    }

    #[test]
    fn what_was_freed_rests() {
        let mut slots = Allocator::new(0, 3);
        assert_eq!(slots.take(3), Some(0));
        slots.release(0, 3);
        slots.wake(ms(1000), REST);
        assert_eq!(slots.take(1), None, "the plan that released it is not applied yet");
        slots.settle(ms(1000));
        slots.wake(ms(1099), REST);
        assert_eq!(slots.take(1), None);
        slots.wake(ms(1100), REST);
        assert_eq!(slots.take(3), Some(0));
    }

    #[test]
    fn neighbours_grow_together() {
        let mut slots = Allocator::new(0, 9);
        assert_eq!((slots.take(3), slots.take(3), slots.take(3)), (Some(0), Some(3), Some(6)));
        slots.put_back(0, 3);
        slots.put_back(6, 3);
        assert_eq!(slots.take(4), None);
        slots.put_back(3, 3);
        assert_eq!(slots.take(9), Some(0));
    }

    #[test]
    fn take_at_refuses_what_is_taken() {
        let mut ids = Allocator::new(1, 10);
        assert!(!ids.take_at(0, 1), "below the first");
        assert!(!ids.take_at(9, 2), "past the end");
        assert!(ids.take_at(4, 2));
        assert!(!ids.take_at(5, 1));
        assert!(!ids.take_at(3, 2));
        assert!(!ids.take_at(u32::MAX, 2));
    }
}
