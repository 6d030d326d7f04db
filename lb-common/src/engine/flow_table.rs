//! The flow table: sets of [`WAYS`] entries, each entry in cache lines of its own, in one array.
//!
//! A key's hash names two sets: the first is taken unless it is nearly full (Azar, Broder, Karlin, Upfal: Balanced Allocations, 1994).
//! So nearly every search is one array lookup. A set's first way tells what is in the others ([`super::flow_tags`]): a search
//! touches that one and the way it is after, one that fails no other. When both sets are full, the entry of theirs that has
//! been idle longest makes way: a flow with traffic stays while an idle one shares its sets (C5).
//!
//! Several CPUs: whoever writes under a key holds the lock of the key's first set, a word in its first way, for some tens of
//! nanoseconds, and that of the second set too if it writes there. Readers take no lock: a way's version is odd
//! while it is written, and a reader that finds it odd or changed has found nothing. That is enough where stores are
//! seen in order (x86-64).
//!
//! The same lines run in the kernel and on the host. All of it works on raw pointers: in the kernel they point into map
//! values that other CPUs change.

use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr::{self, NonNull, addr_of, addr_of_mut};

use super::flow_tags::Tags;
use crate::abi::{FlowEntry, FlowKey, FlowSet, FlowWay, WAYS, flow_state};
use crate::family::Address;

/// Times a set's lock is tried before the table counts as full. Whoever holds it needs some tens of nanoseconds and is
/// never interrupted by another program of its CPU.
const LOCK_TRIES: u32 = 64;

/// What a free way offers: more than any time.
const FREE: u64 = 1 << 33;

/// Ticks that a flow counts as idle before its client has answered its backend's answer. The clock may be as coarse as 10 ms, and a flood
/// fills a small table in a few ticks: within so many, the flood's flows make way before proven ones do.
const UNPROVEN_TICKS: u64 = 2;

/// Finalizer constants of SplitMix64 (S. Vigna, public domain).
const MIX: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

/// A key made ready for comparing: its bytes as words, as they lie in memory, and its hash.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    words: [u64; 5],
    hash: u64,
}

#[inline(always)]
const fn words<A: Address>() -> usize {
    size_of::<FlowKey<A>>() / 8
}

impl Query {
    /// `seed` is a secret of this table, so that nobody outside can fill one set on purpose.
    #[inline(always)]
    pub fn new<A: Address>(key: &FlowKey<A>, seed: u32) -> Self {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let ports = u32::from(key.sport_be) | u32::from(key.dport_be) << 16;
        let mut query = [0; 5];
        if A::WORDS == 1 {
            query[0] = pair(key.src.word(0), key.dst.word(0));
        } else {
            query[0] = pair(key.src.word(0), key.src.word(1));
            query[1] = pair(key.src.word(2), key.src.word(3));
            query[2] = pair(key.dst.word(0), key.dst.word(1));
            query[3] = pair(key.dst.word(2), key.dst.word(3));
        }
        query[words::<A>() - 1] = pair(ports, u32::from(key.protocol));
        let mut hash = u64::from(seed);
        let mut i = 0;
        while i < words::<A>() {
            hash = (hash ^ query[i]).wrapping_mul(MIX[i & 1]);
            hash ^= hash >> 29;
            i += 1;
        }
        Self { words: query, hash: hash ^ (hash >> 32) }
    }

    /// The set to look in first, in a table of `mask + 1` sets.
    #[inline(always)]
    const fn first(&self, mask: u32) -> u32 {
        self.hash as u32 & mask
    }

    /// The set to look in when it is not in the first; another one.
    #[inline(always)]
    const fn second(&self, mask: u32) -> u32 {
        let second = (self.hash >> 24) as u32 & mask;
        // Branches cost more here.
        second ^ (second == self.first(mask)) as u32
    }

    /// What the key is known by in the tags of a set.
    #[inline(always)]
    const fn tag(&self) -> u32 {
        Tags::tag(self.hash)
    }
}

/// Where the sets are.
///
/// # Safety
/// What [`set`](Self::set) returns is valid for reads and writes as long as `self` is borrowed, aligned, and changed by
/// nobody but the functions of this module (on any CPU).
pub unsafe trait FlowSets {
    /// A set; `None` beyond the last one.
    fn set<A: Address>(&self, index: u32) -> Option<NonNull<FlowSet<A>>>;

    /// Number of sets less one; their number is a power of two, and not 1.
    fn mask<A: Address>(&self) -> u32;

    /// See [`Query::new`].
    fn seed(&self) -> u32;

    /// Puts `value` into the word and returns what was there; orders memory around it.
    ///
    /// # Safety
    /// `word` is valid, aligned, and changed in no other way.
    unsafe fn exchange(word: *mut u32, value: u32) -> u32;

    /// Puts 0 back where [`exchange`](Self::exchange) has put 1; what was written before is seen by whoever comes upon the 0.
    ///
    /// # Safety
    /// As for [`exchange`](Self::exchange).
    unsafe fn release(word: *mut u32);

    /// Keeps reads and writes of memory on their side.
    fn order();

    /// The same number, of which the verifier no longer knows anything: it need not follow each way on its own.
    /// `unknown` is something that it does not know.
    fn hidden(number: usize, unknown: u32) -> usize;
}

/// What a write came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// A free way, or the key's own.
    Free,
    /// Another flow's way; that entry is gone.
    Evicted,
    /// The key's entry, which stays as it is.
    Exists,
    /// The lock could not be had.
    Busy,
}

/// A way on its own.
///
/// # Safety
/// `set` is valid; `i` is below [`WAYS`].
#[inline(always)]
unsafe fn way<A>(set: *mut FlowSet<A>, i: usize) -> *mut FlowWay<A> {
    // SAFETY: the caller's promise.
    unsafe { addr_of_mut!((*set).ways).cast::<FlowWay<A>>().add(i) }
}

/// Whether a way holds the key.
///
/// # Safety
/// `way` is valid.
#[inline(always)]
unsafe fn holds<A: Address>(way: *mut FlowWay<A>, query: &Query) -> bool {
    // SAFETY: the key is as long as its words.
    let key: *const u64 = unsafe { addr_of!((*way).key) }.cast();
    let mut difference = 0;
    let mut i = 0;
    while i < words::<A>() {
        // SAFETY: as above; ways are aligned to cache lines.
        difference |= unsafe { key.add(i).read_volatile() } ^ query.words[i];
        i += 1;
    }
    difference == 0
}

/// The tags of a set.
///
/// # Safety
/// `set` is valid.
#[inline(always)]
unsafe fn tags<A>(set: *mut FlowSet<A>) -> Tags {
    // SAFETY: the caller's promise.
    Tags(unsafe { addr_of!((*way(set, 0)).tags).read_volatile() })
}

/// # Safety
/// `set` is valid and its lock is held.
#[inline(always)]
unsafe fn set_tags<A>(set: *mut FlowSet<A>, tags: Tags) {
    // SAFETY: the caller's promise.
    unsafe { addr_of_mut!((*way(set, 0)).tags).write_volatile(tags.0) };
}

/// A way that holds a key, its number, and the version it had before it was looked at.
struct Found<A> {
    way: *mut FlowWay<A>,
    i: usize,
    version: u32,
}

impl<A: Address> Found<A> {
    /// Copies the entry; whether it has not changed meanwhile.
    ///
    /// # Safety
    /// The set is still valid.
    #[inline(always)]
    unsafe fn copy<T: FlowSets>(&self, entry: &mut FlowEntry<A>) -> bool {
        // SAFETY: the caller's promise. What was torn by a writer is not used.
        unsafe {
            T::order();
            ptr::copy_nonoverlapping(addr_of!((*self.way).entry), entry, 1);
            T::order();
            let version = addr_of!((*self.way).version).read_volatile();
            version == self.version && version & 1 == 0
        }
    }
}

/// Looks for a key.
///
/// # Safety
/// `set` is valid for reads and writes.
#[inline(always)]
unsafe fn find<A: Address>(set: *mut FlowSet<A>, query: &Query) -> Option<Found<A>> {
    // SAFETY: ways have numbers below `WAYS`.
    unsafe {
        let mut ways = tags(set).with(query.tag());
        // No more than there are: the verifier cannot tell.
        let mut tries = 0;
        while tries < WAYS && !ways.none() {
            let i = ways.first();
            let way = way(set, i);
            let version = addr_of!((*way).version).read_volatile();
            if holds(way, query) {
                return Some(Found { way, i, version });
            }
            ways = ways.but_first();
            tries += 1;
        }
    }
    None
}

/// # Safety
/// As [`find`].
#[inline(always)]
unsafe fn lock<A, T: FlowSets>(set: *mut FlowSet<A>) -> bool {
    let mut tries = 0;
    while tries < LOCK_TRIES {
        // SAFETY: the caller's promise.
        if unsafe { T::exchange(addr_of_mut!((*way(set, 0)).lock), 1) } == 0 {
            return true;
        }
        tries += 1;
    }
    false
}

/// # Safety
/// As [`find`]; the lock is held.
#[inline(always)]
unsafe fn unlock<A, T: FlowSets>(set: *mut FlowSet<A>) {
    // SAFETY: the caller's promise.
    unsafe { T::release(addr_of_mut!((*way(set, 0)).lock)) };
}

/// Changes a way so that readers notice: a key's words, and an entry unless it is to be free.
///
/// # Safety
/// `way` is valid and its set's lock is held.
#[inline(always)]
unsafe fn write<A: Address, T: FlowSets>(
    way: *mut FlowWay<A>,
    key_words: &[u64; 5],
    entry: Option<&FlowEntry<A>>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let version = addr_of_mut!((*way).version);
        let before = version.read_volatile();
        version.write_volatile(before | 1);
        T::order();
        let key: *mut u64 = addr_of_mut!((*way).key).cast();
        let mut i = 0;
        while i < words::<A>() {
            key.add(i).write_volatile(key_words[i]);
            i += 1;
        }
        if let Some(entry) = entry {
            ptr::copy_nonoverlapping(entry, addr_of_mut!((*way).entry), 1);
        }
        T::order();
        version.write_volatile((before | 1).wrapping_add(1));
    }
}

/// How long a way has been of no use, in ticks; a free way for longer than any other, a new flow a little longer than it was.
///
/// # Safety
/// As [`find`].
#[inline(always)]
unsafe fn idle<A: Address>(way: *mut FlowWay<A>, now: u32) -> u64 {
    // SAFETY: the caller's promise.
    let (protocol, last_seen, state) = unsafe {
        let entry = addr_of!((*way).entry);
        (addr_of!((*way).key.protocol).read(), (*entry).last_seen, (*entry).state)
    };
    // Without branches, each of which the verifier would follow for each way.
    let free = u64::from(protocol).wrapping_sub(1) >> 63;
    let unproven = u64::from(state & flow_state::CONFIRMED).wrapping_sub(1) >> 63;
    // As `state::elapsed`: a time ahead of now is no time.
    let ticks = now.wrapping_sub(last_seen);
    let idle = u64::from(ticks) & u64::from(ticks >> 31).wrapping_sub(1);
    free * FREE + idle + unproven * UNPROVEN_TICKS
}

/// The way of a set that has been of no use for longest, and for how long.
///
/// # Safety
/// As [`find`].
#[inline(always)]
unsafe fn idlest<A: Address>(set: *mut FlowSet<A>, now: u32) -> (usize, u64) {
    let (mut at, mut most) = (0, 0);
    let mut i = 0;
    while i < WAYS {
        // SAFETY: `i` is below `WAYS`.
        let idle = unsafe { idle(way(set, i), now) };
        if idle > most {
            (at, most) = (i, idle);
        }
        i += 1;
    }
    (at, most)
}

/// Whether an entry goes to its first set: while that has two free ways, or no less to offer than the second. So nearly all
/// are found at once, and hardly any set is full while others have room.
///
/// # Safety
/// As [`find`].
#[inline(always)]
unsafe fn keeps_first<A: Address>(first: *mut FlowSet<A>, second: *mut FlowSet<A>, now: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let room = tags(first).free();
        if room.several() {
            return true;
        }
        let other = tags(second).free();
        if room.none() && other.none() {
            return idlest(first, now).1 >= idlest(second, now).1;
        }
        !other.several() && !room.none()
    }
}

/// Writes an entry into a set: over the one that has the key, else over the one of least use.
///
/// # Safety
/// As [`find`]; the lock is held.
#[inline(always)]
unsafe fn settle<A: Address, T: FlowSets>(
    set: *mut FlowSet<A>,
    query: &Query,
    entry: &FlowEntry<A>,
    evicted: &mut (FlowKey<A>, FlowEntry<A>),
) -> Wrote {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(found) = find(set, query) {
            write::<A, T>(found.way, &query.words, Some(entry));
            return Wrote::Free;
        }
        let room = tags(set).free();
        let (i, idle) = if room.none() { idlest(set, entry.last_seen) } else { (room.first(), FREE) };
        let i = T::hidden(i, entry.last_seen) & (WAYS - 1);
        let way = way(set, i);
        let taken = idle < FREE;
        if taken {
            // Not by way of the stack, which is short in the kernel.
            ptr::copy_nonoverlapping(addr_of!((*way).key), &raw mut evicted.0, 1);
            ptr::copy_nonoverlapping(addr_of!((*way).entry), &raw mut evicted.1, 1);
        }
        write::<A, T>(way, &query.words, Some(entry));
        set_tags(set, tags(set).set(i, query.tag()));
        if taken { Wrote::Evicted } else { Wrote::Free }
    }
}

/// The place of a flow entry.
pub struct Flow<'a, A> {
    found: Found<A>,
    table: PhantomData<&'a ()>,
}

impl<A: Address> Flow<'_, A> {
    /// Writes the time of the last packet. Should the place be another flow's by now, that one looks as fresh.
    #[inline(always)]
    pub fn set_last_seen(&self, ticks: u32) {
        // SAFETY: the table is borrowed; one store.
        unsafe { addr_of_mut!((*self.found.way).entry.last_seen).write_volatile(ticks) };
    }
}

/// Copies the entry of a key into `entry`. After `None`, what is there means nothing.
#[inline(always)]
pub fn get<'a, A: Address, T: FlowSets>(
    table: &'a T,
    key: &FlowKey<A>,
    entry: &mut FlowEntry<A>,
) -> Option<Flow<'a, A>> {
    let query = Query::new(key, table.seed());
    let mask = table.mask::<A>();
    let first = table.set::<A>(query.first(mask))?.as_ptr();
    // SAFETY: as `FlowSets` promises.
    unsafe {
        let mut found = find(first, &query);
        if found.is_none() && tags(first).elsewhere() {
            found = find(table.set::<A>(query.second(mask))?.as_ptr(), &query);
        }
        let found = found?;
        found.copy::<T>(entry).then_some(Flow { found, table: PhantomData })
    }
}

/// Both sets of a key.
///
/// # Safety
/// As [`FlowSets`] promises.
#[inline(always)]
fn both<A: Address, T: FlowSets>(table: &T, query: &Query) -> Option<[*mut FlowSet<A>; 2]> {
    let mask = table.mask::<A>();
    Some([table.set(query.first(mask))?.as_ptr(), table.set(query.second(mask))?.as_ptr()])
}

/// Writes an entry, into the place of the one idle longest when its sets are full; that one's key and entry are left in
/// `evicted`. An entry that has the key is overwritten if `replace` says so.
#[inline(always)]
pub fn insert<A: Address, T: FlowSets>(
    table: &T,
    key: &FlowKey<A>,
    entry: &FlowEntry<A>,
    replace: impl Fn(&FlowEntry<A>) -> bool,
    evicted: &mut (FlowKey<A>, FlowEntry<A>),
) -> Wrote {
    let query = Query::new(key, table.seed());
    let Some([first, second]) = both::<A, T>(table, &query) else {
        return Wrote::Busy;
    };
    // SAFETY: as `FlowSets` promises; locks are held from `lock` to `unlock`.
    unsafe {
        if !lock::<A, T>(first) {
            return Wrote::Busy;
        }
        let mut found = find(first, &query);
        let in_first = found.is_some();
        if !in_first && tags(first).elsewhere() {
            found = find(second, &query);
        }
        let in_second = !in_first && found.is_some();
        let wrote = if found.is_some_and(|found| !replace(&(*found.way).entry)) {
            Wrote::Exists
        } else if !in_second && (in_first || keeps_first(first, second, entry.last_seen)) {
            settle::<A, T>(first, &query, entry, evicted)
        } else if lock::<A, T>(second) {
            let wrote = settle::<A, T>(second, &query, entry, evicted);
            if !in_second {
                set_tags(first, tags(first).one_more());
            }
            unlock::<A, T>(second);
            wrote
        } else {
            Wrote::Busy
        };
        unlock::<A, T>(first);
        wrote
    }
}

/// Where a key was found, locked.
struct Place<A> {
    found: Found<A>,
    /// Its first set.
    first: *mut FlowSet<A>,
    /// The set it is in, if that is the second.
    second: Option<*mut FlowSet<A>>,
}

/// Does something to the place of a key while no other CPU changes it; `None` when there is none, or a lock cannot be had.
#[inline(always)]
fn at_place<A: Address, T: FlowSets, R>(
    table: &T,
    key: &FlowKey<A>,
    body: impl FnOnce(&Place<A>) -> R,
) -> Option<R> {
    let query = Query::new(key, table.seed());
    let [first, second] = both::<A, T>(table, &query)?;
    // SAFETY: as in `insert`.
    unsafe {
        if !lock::<A, T>(first) {
            return None;
        }
        let mut found = find(first, &query);
        let mut both_locked = false;
        if found.is_none() && tags(first).elsewhere() && find(second, &query).is_some() {
            both_locked = lock::<A, T>(second);
            if both_locked {
                found = find(second, &query);
            }
        }
        let second = both_locked.then_some(second);
        let result = found.map(|found| body(&Place { found, first, second }));
        if let Some(second) = second {
            unlock::<A, T>(second);
        }
        unlock::<A, T>(first);
        result
    }
}

/// Shows the entry of a key to `change`, which may change it, while no other CPU changes it; `None` when there is none, or a
/// lock cannot be had.
#[inline(always)]
pub fn change<A: Address, T: FlowSets, R>(
    table: &T,
    key: &FlowKey<A>,
    change: impl FnOnce(&mut FlowEntry<A>) -> R,
) -> Option<R> {
    // SAFETY: `at_place` gives valid ways.
    at_place(table, key, |place| change(unsafe { &mut (*place.found.way).entry }))
}

/// Removes the entry of a key if `whether` says so.
#[inline(always)]
pub fn remove_if<A: Address, T: FlowSets>(
    table: &T,
    key: &FlowKey<A>,
    whether: impl FnOnce(&FlowEntry<A>) -> bool,
) {
    at_place(table, key, |place| {
        let Found { way, i, .. } = place.found;
        // SAFETY: `at_place` gives valid ways and sets, with their locks held.
        unsafe {
            if whether(&(*way).entry) {
                write::<A, T>(way, &[0; 5], None);
                let set = place.second.unwrap_or(place.first);
                set_tags(set, tags(set).set(i, 0));
                if place.second.is_some() {
                    set_tags(place.first, tags(place.first).one_less());
                }
            }
        }
    });
}
