//! The engine's tables on BPF maps.

use core::arch::asm;
use core::ptr::{self, NonNull};

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::maps::lpm_trie::Key;
use lb_common::abi::{
    AffinityEntry, AffinityKey, BackendEntry, BackendStats, Config, Counter, FlowSet, FragmentEntry,
    FragmentKey, FrontendEntry, FrontendKey, IfaceEntry, Settings, config_flag,
};
use lb_common::engine::flow_table::FlowSets;
use lb_common::engine::steps::{Direction, Work};
use lb_common::engine::tables::{Added, Tables};
use lb_common::family::{Address, V4Addr, V6Addr};
use lb_common::reason::{REASON_SLOTS, Reason};

use crate::{frame, maps, steps};

/// Constants, set by the loader in the object's read-only data.
#[unsafe(no_mangle)]
static CONFIG: Config = Config::with_ticks_per_second(100);

/// The maps of this object.
pub struct KernelTables;

/// The same value under a type that is the same for this family.
///
/// # Safety
/// `From` and `To` have the same layout.
#[inline(always)]
unsafe fn same<From, To>(value: &From) -> &To {
    // SAFETY: the caller's promise.
    unsafe { &*ptr::from_ref(value).cast() }
}

// SAFETY: elements of maps, which are never freed while a program runs. The loader sets the masks to the maps' sizes.
unsafe impl FlowSets for KernelTables {
    #[inline(always)]
    fn set<A: Address>(&self, index: u32) -> Option<NonNull<FlowSet<A>>> {
        let set: *mut FlowSet<A> = if A::WORDS == 1 {
            maps::FLOWS_V4.get_ptr_mut(index)?.cast()
        } else {
            maps::FLOWS_V6.get_ptr_mut(index)?.cast()
        };
        NonNull::new(set)
    }

    #[inline(always)]
    fn mask<A: Address>(&self) -> u32 {
        if A::WORDS == 1 { self.config().flow_mask_v4 } else { self.config().flow_mask_v6 }
    }

    #[inline(always)]
    fn seed(&self) -> u32 {
        self.config().flow_seed
    }

    #[inline(always)]
    unsafe fn exchange(word: *mut u32, value: u32) -> u32 {
        if no_fetch() {
            return exchange_by_map(word, value);
        }
        let mut value = value;
        // SAFETY: the caller's promise. Kernel 5.12 or later (BPF_XCHG); the loader takes it out for others.
        unsafe { asm!("{0} = xchg32_32({1} + 0, {0})", inout(wreg) value, in(reg) word) };
        value
    }

    #[inline(always)]
    unsafe fn release(word: *mut u32) {
        if no_fetch() {
            exchange_by_map(word, 0);
            return;
        }
        Self::order();
        // SAFETY: the caller's promise. Stores are seen in order, see `lb_common::engine::flow_table`.
        unsafe { word.write_volatile(0) };
    }

    #[inline(always)]
    fn order() {
        // SAFETY: does nothing; the compiler takes it for something that may read and write all memory.
        unsafe { asm!("") };
    }

    #[inline(always)]
    fn hidden(number: usize, unknown: u32) -> usize {
        frame::hidden(number, unknown as usize)
    }
}

/// Whether atomic instructions return nothing (kernels before 5.12). Constant to the verifier, which removes what is not taken.
#[inline(always)]
fn no_fetch() -> bool {
    KernelTables.config().flags & config_flag::NO_FETCH != 0
}

/// This CPU's room for a key of `LOCKS`: not on the stack, which is short.
#[map]
static LOCK_KEY: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// As [`FlowSets::exchange`], for words that are 0 or 1: the map's own lock makes sure that of several CPUs that insert one
/// key one succeeds.
#[inline(always)]
fn exchange_by_map(word: *mut u32, value: u32) -> u32 {
    let Some(key) = LOCK_KEY.get_ptr_mut(0) else {
        return 1;
    };
    // SAFETY: copies half of a register. (The compiler would mask, which the verifier forbids for pointers.) Two sets that
    // share this half wait for each other, no more. `key` is this CPU's own.
    let key: &u32 = unsafe {
        let half: u32;
        asm!("w3 = w4", out("w3") half, in("r4") word, options(pure, nomem));
        *key = half;
        &*key
    };
    if value == 0 {
        let _absent = maps::LOCKS.remove(key);
        return 0;
    }
    u32::from(maps::LOCKS.insert(key, key, u64::from(BPF_NOEXIST)).is_err())
}

/// Adds to a shared counter and returns what it was. Compare `core::sync::atomic`, which has no such call for BPF yet.
#[inline(always)]
pub fn fetch_add(counter: *mut u64, change: u64) -> u64 {
    if no_fetch() {
        // SAFETY: `counter` points to a map value of eight bytes. Between the two steps another CPU may add: then both
        // have the same number.
        unsafe {
            let before = counter.read_volatile();
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) change);
            return before;
        }
    }
    let mut value = change;
    // SAFETY: `counter` points to a map value of eight bytes. Kernel 5.12 or later (BPF_FETCH); the loader takes it out for others.
    unsafe { asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) value, in(reg) counter) };
    value
}

impl Tables for KernelTables {
    type Ref<V: Copy + 'static> = &'static V;

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: no arguments; kernel 5.5 or later.
        unsafe { bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn config(&self) -> &Config {
        let mut config = &raw const CONFIG;
        // SAFETY: read-only data of this object. The compiler must not know which: the loader changes what it has seen. (Volatile
        // reads would read all of it each time.)
        unsafe {
            asm!("/* {0} */", inout(reg) config, options(pure, nomem));
            &*config
        }
    }

    #[inline(always)]
    fn settings(&self) -> Option<&'static Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn filter(&self, word: u32) -> u64 {
        maps::FILTER.get(word).copied().unwrap_or(u64::MAX)
    }

    #[inline(always)]
    fn frontend<A: Address>(&self, key: &FrontendKey<A>, entry: &mut FrontendEntry) -> bool {
        // SAFETY: same types by family; the entry is copied at once, and replaced as a whole by its writer.
        unsafe {
            let found = if A::WORDS == 1 {
                maps::FRONTENDS_V4.get(same::<_, FrontendKey<V4Addr>>(key))
            } else {
                maps::FRONTENDS_V6.get(same::<_, FrontendKey<V6Addr>>(key))
            };
            let Some(found) = found else {
                return false;
            };
            ptr::copy_nonoverlapping(found, entry, 1);
            true
        }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        maps::SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&'static BackendEntry> {
        maps::BACKENDS.get(id)
    }

    #[inline(always)]
    fn take_turn(&self, index: u32) -> u32 {
        maps::TURNS.get_ptr_mut(index).map_or(0, |counter| fetch_add(counter, 1) as u32)
    }

    #[inline(always)]
    fn open_flows(&self, backend: u32) -> u32 {
        maps::OPEN_FLOWS.get(backend).map_or(0, |open| *open as u32)
    }

    #[inline(always)]
    fn add_open_flows(&self, backend: u32, change: i64) {
        if let Some(open) = maps::OPEN_FLOWS.get_ptr_mut(backend) {
            fetch_add(open, change as u64);
        }
    }

    #[inline(always)]
    fn class<A: Address>(&self, addr: A) -> u32 {
        maps::CLASSES.get(Key::new(128, addr.widen())).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn source_allowed<A: Address>(&self, service_id: u32, addr: A) -> bool {
        let wide = addr.widen();
        let key = Key::new(160, [service_id.to_be(), wide[0], wide[1], wide[2], wide[3]]);
        maps::SOURCE_RANGES.get(key).is_some()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        // SAFETY: copied at once; a torn entry fails the generation check or names a live backend.
        unsafe { maps::AFFINITY.get(key).copied() }
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry) {
        let _full = maps::AFFINITY.insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        // SAFETY: copied at once.
        unsafe { maps::FRAGMENTS.get(key).copied() }
    }

    #[inline(always)]
    fn set_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        let _full = maps::FRAGMENTS.insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn write_flow<A: Address>(&self, work: &Work<A>, direction: Direction, replace: bool) -> Added {
        steps::write_flow(work, direction, replace)
    }

    #[inline(always)]
    fn evict<A: Address>(&self) {
        steps::evict::<A>();
    }

    #[inline(always)]
    fn count_backend(&self, id: u32, change: impl FnOnce(&mut BackendStats)) {
        if let Some(stats) = maps::BACKEND_STATS.get_ptr_mut(id) {
            // SAFETY: this CPU's own value; programs of one CPU do not interrupt each other at these hooks.
            change(unsafe { &mut *stats });
        }
    }
}

/// The entry of an interface.
#[inline(always)]
pub fn iface_entry(ifindex: u32) -> Option<&'static IfaceEntry> {
    maps::IFACES.get(ifindex)
}

/// Slot and flags of an interface.
#[inline(always)]
pub fn iface(ifindex: u32) -> (u16, u16) {
    iface_entry(ifindex).map_or((0, 0), |iface| (iface.slot, iface.flags))
}

/// Remembers that finished checksums come from this interface.
#[inline(always)]
pub fn note_finished(ifindex: u32) {
    if let Some(entry) = maps::IFACES.get_ptr_mut(ifindex) {
        // SAFETY: one store; all who write here write the same.
        unsafe { (&raw mut (*entry).finished).write_volatile(1) };
    }
}

/// Counts a packet of the interface with this slot under its reason.
#[inline(always)]
pub fn count(slot: u16, reason: Reason, bytes: usize) {
    let index = u32::from(slot) * REASON_SLOTS + reason as u32;
    if let Some(counter) = maps::IFACE_STATS.get_ptr_mut(index) {
        // SAFETY: this CPU's own value.
        let counter: &mut Counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += bytes as u64;
    }
}
