//! The flow table: sets of [`WAYS`] entries, each entry in cache lines of its own, in one array.
//!
//! A key's hash names two sets: the first is taken unless it is nearly full (Azar, Broder, Karlin, Upfal: Balanced Allocations, 1994).
//! So nearly every search is one array lookup, and one cache line when the first way is the right one. When both are
//! full, the entry of theirs that has been idle longest makes way: a flow with traffic stays while an idle one
//! shares its sets (C5).
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

use crate::abi::{FlowEntry, FlowKey, FlowSet, FlowWay, WAYS, flow_state};
use crate::family::Address;

/// Times a set's lock is tried before the table counts as full. Whoever holds it needs some tens of nanoseconds and is
/// never interrupted by another program of its CPU.
const LOCK_TRIES: u32 = 64;

/// What a free way offers: more than any time.
const FREE: u64 = 1 << 33;

/// Whether an entry goes to its first set: while that has two free ways, or no less to offer than the second. So nearly all
/// are found at once, and hardly any set is full while others have room.
#[inline(always)]
const fn keeps_first(first: u64, second: u64) -> bool {
    first >= 2 * FREE || first >= second
}

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

/// A way that holds a key, and the version it had before it was looked at.
struct Found<A> {
    way: *mut FlowWay<A>,
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
unsafe fn find<A: Address, T: FlowSets>(set: *mut FlowSet<A>, query: &Query) -> Option<Found<A>> {
    let mut i = 0;
    let mut version = 0;
    // SAFETY: `i` is below `WAYS`.
    unsafe {
        while i < WAYS {
            version = addr_of!((*way(set, i)).version).read_volatile();
            if holds(way(set, i), query) {
                break;
            }
            i += 1;
        }
        if i == WAYS {
            return None;
        }
        let i = T::hidden(i, version) & (WAYS - 1);
        Some(Found { way: way(set, i), version })
    }
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
    unsafe { T::exchange(addr_of_mut!((*way(set, 0)).lock), 0) };
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

/// What a set has to offer: more for each free way, else for how long a way has been of no use.
///
/// # Safety
/// As [`find`].
#[inline(always)]
unsafe fn offer<A: Address>(set: *mut FlowSet<A>, now: u32) -> u64 {
    let (mut free, mut most) = (0, 0);
    let mut i = 0;
    while i < WAYS {
        // SAFETY: `i` is below `WAYS`.
        let idle = unsafe { idle(way(set, i), now) };
        free += idle & FREE;
        if idle > most {
            most = idle;
        }
        i += 1;
    }
    // Free ways are in front of all times.
    free | (most & u64::from(u32::MAX))
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
        if let Some(found) = find::<A, T>(set, query) {
            write::<A, T>(found.way, &query.words, Some(entry));
            return Wrote::Free;
        }
        let (i, idle) = idlest(set, entry.last_seen);
        let way = way(set, T::hidden(i, entry.last_seen) & (WAYS - 1));
        let taken = idle < FREE;
        if taken {
            // Not by way of the stack, which is short in the kernel.
            ptr::copy_nonoverlapping(addr_of!((*way).key), &raw mut evicted.0, 1);
            ptr::copy_nonoverlapping(addr_of!((*way).entry), &raw mut evicted.1, 1);
        }
        write::<A, T>(way, &query.words, Some(entry));
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
    for index in [query.first(mask), query.second(mask)] {
        let set = table.set::<A>(index)?.as_ptr();
        // SAFETY: as `FlowSets` promises.
        unsafe {
            if let Some(found) = find::<A, T>(set, &query) {
                return found.copy::<T>(entry).then_some(Flow { found, table: PhantomData });
            }
        }
    }
    None
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
        let mut found = find::<A, T>(first, &query);
        let in_first = found.is_some();
        if !in_first {
            found = find::<A, T>(second, &query);
        }
        let in_second = !in_first && found.is_some();
        let now = entry.last_seen;
        let wrote = if found.is_some_and(|found| !replace(&(*found.way).entry)) {
            Wrote::Exists
        } else if !in_second && (in_first || keeps_first(offer(first, now), offer(second, now))) {
            settle::<A, T>(first, &query, entry, evicted)
        } else if lock::<A, T>(second) {
            let wrote = settle::<A, T>(second, &query, entry, evicted);
            unlock::<A, T>(second);
            wrote
        } else {
            Wrote::Busy
        };
        unlock::<A, T>(first);
        wrote
    }
}

/// Does something to the way of a key while no other CPU changes it; `None` when there is none, or a lock cannot be had.
#[inline(always)]
fn at_way<A: Address, T: FlowSets, R>(
    table: &T,
    key: &FlowKey<A>,
    body: impl FnOnce(*mut FlowWay<A>) -> R,
) -> Option<R> {
    let query = Query::new(key, table.seed());
    let [first, second] = both::<A, T>(table, &query)?;
    // SAFETY: as in `insert`.
    unsafe {
        if !lock::<A, T>(first) {
            return None;
        }
        let mut found = find::<A, T>(first, &query);
        let mut both_locked = false;
        if found.is_none() && find::<A, T>(second, &query).is_some() {
            both_locked = lock::<A, T>(second);
            if both_locked {
                found = find::<A, T>(second, &query);
            }
        }
        let result = found.map(|found| body(found.way));
        if both_locked {
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
    // SAFETY: `at_way` gives valid ways.
    at_way(table, key, |way| change(unsafe { &mut (*way).entry }))
}

/// Removes the entry of a key if `whether` says so.
#[inline(always)]
pub fn remove_if<A: Address, T: FlowSets>(
    table: &T,
    key: &FlowKey<A>,
    whether: impl FnOnce(&FlowEntry<A>) -> bool,
) {
    at_way(table, key, |way| {
        // SAFETY: `at_way` gives valid ways, with the lock held.
        unsafe {
            if whether(&(*way).entry) {
                write::<A, T>(way, &[0; 5], None);
            }
        }
    });
}
