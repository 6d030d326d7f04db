//! The kernel's routes, at tc asked for once a tick for all packets that ask alike.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_jiffies64};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use lb_common::abi::iface_flag;
use lb_common::engine::forward::{Lookup, MacPair};
use lb_common::engine::route::{KEPT, Known, Way, place};
use lb_common::family::{Address, V4Addr, V6Addr};

use crate::tables::iface;

/// Address families as the kernel numbers them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[map]
static ROUTES_V4: PerCpuArray<Known<V4Addr>> = PerCpuArray::with_max_entries(KEPT, 0);
#[map]
static ROUTES_V6: PerCpuArray<Known<V6Addr>> = PerCpuArray::with_max_entries(KEPT, 0);

/// This CPU's place for the answer to a question.
#[inline(always)]
fn known<A: Address>(wanted: &Lookup<A>) -> Option<&'static mut Known<A>> {
    let at = place(wanted);
    let known: *mut Known<A> =
        if A::WORDS == 1 { ROUTES_V4.get_ptr_mut(at)?.cast() } else { ROUTES_V6.get_ptr_mut(at)?.cast() };
    // SAFETY: this CPU's own value, and the type is that of the family. A program at these hooks runs to its end
    // before the next one begins on this CPU.
    Some(unsafe { &mut *known })
}

/// The way of a packet that came in over the interface `from`, as it was when the last of them asked within this tick.
/// `None` as in [`ask`].
#[inline(always)]
pub fn way<A: Address>(context: *mut c_void, from: u32, wanted: &Lookup<A>) -> Option<&'static Way> {
    // SAFETY: no arguments; kernel 5.5 or later.
    let tick = unsafe { bpf_jiffies64() };
    let known = known(wanted)?;
    if !known.answers(wanted, from, tick) {
        let mut room = MaybeUninit::uninit();
        let route = ask(context, &mut room, from, wanted)?;
        answer(route, known.keep(wanted, from, tick));
    }
    Some(&known.way)
}

/// Asks the kernel, with `room` for the question. `None`: no route, no neighbour yet, too long for the path, of this
/// host. The host knows what to say.
#[inline(always)]
pub fn ask<'a, A: Address>(
    context: *mut c_void,
    room: &'a mut MaybeUninit<bpf_fib_lookup>,
    from: u32,
    wanted: &Lookup<A>,
) -> Option<&'a bpf_fib_lookup> {
    let route = question(room, from, wanted);
    // SAFETY: the kernel's context, and a structure of the size given.
    let found = unsafe { fib_lookup(context, route, size_of::<bpf_fib_lookup>() as i32, 0) };
    if found == i64::from(BPF_FIB_LKUP_RET_SUCCESS) { Some(route) } else { None }
}

/// The question, in `room`: of this size it is not moved about, the stack is short.
#[inline(always)]
fn question<'a, A: Address>(
    room: &'a mut MaybeUninit<bpf_fib_lookup>,
    from: u32,
    wanted: &Lookup<A>,
) -> &'a mut bpf_fib_lookup {
    let words: *mut u32 = room.as_mut_ptr().cast();
    // SAFETY: as many words as it has; plain integers, for which zero is a value. Word by word: zeroing at once is a call
    // on BPF, of a loop over bytes.
    let route = unsafe {
        let mut i = 0;
        while i < size_of::<bpf_fib_lookup>() / 4 {
            words.add(i).write_volatile(0);
            i += 1;
        }
        room.assume_init_mut()
    };
    let ports = u32::from_be(wanted.ports);
    route.l4_protocol = wanted.protocol;
    route.sport = ((ports >> 16) as u16).to_be();
    route.dport = (ports as u16).to_be();
    route.__bindgen_anon_1.tot_len = wanted.len;
    route.ifindex = from;
    if A::WORDS == 1 {
        route.family = AF_INET;
        route.__bindgen_anon_2.tos = wanted.class as u8;
        route.__bindgen_anon_3.ipv4_src = wanted.src.word(0);
        route.__bindgen_anon_4.ipv4_dst = wanted.dst.word(0);
    } else {
        let word = |address: &A, i| address.word(i);
        let words = |address: &A| [word(address, 0), word(address, 1), word(address, 2), word(address, 3)];
        route.family = AF_INET6;
        route.__bindgen_anon_2.flowinfo = wanted.class;
        route.__bindgen_anon_3.ipv6_src = words(&wanted.src);
        route.__bindgen_anon_4.ipv6_dst = words(&wanted.dst);
    }
    route
}

#[inline(always)]
fn answer(route: &bpf_fib_lookup, way: &mut Way) {
    way.ifindex = route.ifindex;
    let (_, flags) = iface(route.ifindex);
    if flags & iface_flag::PEER != 0 {
        let [a, b, c] = macs(route);
        (way.family, way.next) = (0, [a, b, c, 0]);
    } else {
        // SAFETY: addresses of either family have the same place, the longer one fills it.
        (way.family, way.next) = (u32::from(route.family), unsafe { route.__bindgen_anon_4.ipv6_dst });
    }
}

/// The hardware addresses of the next hop, as they go in front of the packet.
#[inline(always)]
pub fn macs(route: &bpf_fib_lookup) -> MacPair {
    let (d, s) = (&route.dmac, &route.smac);
    [
        u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
        u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
        u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
    ]
}
