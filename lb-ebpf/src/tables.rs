//! The engine's tables on BPF maps.

use core::arch::asm;
use core::ptr;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::maps::lpm_trie::Key;
use lb_common::abi::{
    AffinityEntry, AffinityKey, BackendEntry, BackendStats, Config, Counter, FlowEntry, FlowKey,
    FragmentEntry, FragmentKey, FrontendEntry, FrontendKey, IfaceEntry, Settings,
};
use lb_common::engine::tables::{Added, FlowCell, Tables};
use lb_common::family::{Address, V4Addr, V6Addr};
use lb_common::reason::{REASON_SLOTS, Reason};

use crate::maps;

/// `-EEXIST`, from `BPF_NOEXIST`.
const EEXIST: i32 = -17;

/// Constants, set by the loader in the object's read-only data.
#[unsafe(no_mangle)]
static CONFIG: Config = Config::with_ticks_per_second(100);

/// The maps of this object.
pub struct KernelTables;

/// A flow entry in its map.
pub struct KernelFlow<A>(*mut FlowEntry<A>);

impl<A: Copy> FlowCell<A> for KernelFlow<A> {
    #[inline(always)]
    fn get(&self) -> FlowEntry<A> {
        // SAFETY: points to a map value. A racing writer changes state and time only, each in one store.
        unsafe { ptr::read(self.0) }
    }

    #[inline(always)]
    fn set_last_seen(&self, ticks: u32) {
        // SAFETY: as above.
        unsafe { (*self.0).last_seen = ticks };
    }

    #[inline(always)]
    fn set_state(&self, state: u8) {
        // SAFETY: as above.
        unsafe { (*self.0).state = state };
    }
}

/// The same value under a type that is the same for this family.
///
/// # Safety
/// `From` and `To` have the same layout.
#[inline(always)]
unsafe fn same<From, To>(value: &From) -> &To {
    // SAFETY: the caller's promise.
    unsafe { &*ptr::from_ref(value).cast() }
}

#[inline(always)]
fn put_flow<A>(
    map: &LruHashMap<FlowKey<A>, FlowEntry<A>>,
    key: &FlowKey<A>,
    entry: &FlowEntry<A>,
    flags: u32,
) -> Added {
    match map.insert(key, entry, u64::from(flags)) {
        Ok(()) => Added::Yes,
        Err(EEXIST) => Added::Exists,
        Err(_) => Added::Full,
    }
}

#[inline(always)]
fn insert_flow<A: Address>(key: &FlowKey<A>, entry: &FlowEntry<A>, flags: u32) -> Added {
    if A::WORDS == 1 {
        // SAFETY: A is V4Addr.
        unsafe { put_flow::<V4Addr>(&maps::FLOWS_V4, same(key), same(entry), flags) }
    } else {
        // SAFETY: A is V6Addr.
        unsafe { put_flow::<V6Addr>(&maps::FLOWS_V6, same(key), same(entry), flags) }
    }
}

/// Adds to a shared counter and returns what it was. Compare `core::sync::atomic`, which has no such call for BPF yet.
#[inline(always)]
fn fetch_add(counter: *mut u64, change: u64) -> u64 {
    let mut value = change;
    // SAFETY: `counter` points to a map value of eight bytes. Kernel 5.12 or later (BPF_FETCH).
    unsafe { asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) value, in(reg) counter) };
    value
}

impl Tables for KernelTables {
    type Flow<A: Address> = KernelFlow<A>;

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
    fn config(&self) -> Config {
        // SAFETY: read-only data of this object; volatile, because the loader changes what the compiler sees.
        unsafe { ptr::read_volatile(&raw const CONFIG) }
    }

    #[inline(always)]
    fn settings(&self) -> Option<Settings> {
        maps::SETTINGS.get(0).copied()
    }

    #[inline(always)]
    fn frontend<A: Address>(&self, key: &FrontendKey<A>) -> Option<FrontendEntry> {
        // SAFETY: same types by family; the entry is copied at once, and replaced as a whole by its writer.
        unsafe {
            if A::WORDS == 1 {
                maps::FRONTENDS_V4.get(same::<_, FrontendKey<V4Addr>>(key)).copied()
            } else {
                maps::FRONTENDS_V6.get(same::<_, FrontendKey<V6Addr>>(key)).copied()
            }
        }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        maps::SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<BackendEntry> {
        maps::BACKENDS.get(id).copied()
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
    fn flow<A: Address>(&self, key: &FlowKey<A>) -> Option<KernelFlow<A>> {
        // SAFETY: same types by family.
        let entry = unsafe {
            if A::WORDS == 1 {
                maps::FLOWS_V4.get_ptr_mut(same::<_, FlowKey<V4Addr>>(key))?.cast()
            } else {
                maps::FLOWS_V6.get_ptr_mut(same::<_, FlowKey<V6Addr>>(key))?.cast()
            }
        };
        Some(KernelFlow(entry))
    }

    #[inline(always)]
    fn add_flow<A: Address>(&self, key: &FlowKey<A>, entry: &FlowEntry<A>) -> Added {
        insert_flow(key, entry, BPF_NOEXIST)
    }

    #[inline(always)]
    fn put_flow<A: Address>(&self, key: &FlowKey<A>, entry: &FlowEntry<A>) -> Added {
        insert_flow(key, entry, BPF_ANY)
    }

    #[inline(always)]
    fn remove_flow<A: Address>(&self, key: &FlowKey<A>) {
        // SAFETY: same types by family.
        let _gone = unsafe {
            if A::WORDS == 1 {
                maps::FLOWS_V4.remove(same::<_, FlowKey<V4Addr>>(key))
            } else {
                maps::FLOWS_V6.remove(same::<_, FlowKey<V6Addr>>(key))
            }
        };
    }

    #[inline(always)]
    fn count_backend(&self, id: u32, change: impl FnOnce(&mut BackendStats)) {
        if let Some(stats) = maps::BACKEND_STATS.get_ptr_mut(id) {
            // SAFETY: this CPU's own value; programs of one CPU do not interrupt each other at these hooks.
            change(unsafe { &mut *stats });
        }
    }
}

/// What is known of an interface.
#[inline(always)]
pub fn iface(ifindex: u32) -> IfaceEntry {
    maps::IFACES.get(ifindex).copied().unwrap_or(IfaceEntry { slot: 0, flags: 0, name: [0; 16] })
}

/// Counts a packet of an interface under its reason.
#[inline(always)]
pub fn count(iface: IfaceEntry, reason: Reason, bytes: usize) {
    let index = u32::from(iface.slot) * REASON_SLOTS + reason as u32;
    if let Some(counter) = maps::IFACE_STATS.get_ptr_mut(index) {
        // SAFETY: this CPU's own value.
        let counter: &mut Counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += bytes as u64;
    }
}
