//! Direct forwarding: a translated packet goes to its next hop from here, past the host's stack.
//!
//! The route is looked up for each packet in the kernel's own tables, which follow links, routes and neighbours by
//! themselves, whether an agent runs or not. What they do not answer at once is left to the host's stack.

use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_REDIRECT, TC_ACT_UNSPEC, bpf_fib_lookup, bpf_redir_neigh,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect_neigh, bpf_redirect_peer};
use lb_common::abi::iface_flag;
use lb_common::engine::forward::{Forward, Lookup, MacPair, hop, is_v6};
use lb_common::engine::parse::{V4, V6};
use lb_common::family::Address;

use crate::frame::{Frame, Skb};
use crate::tables::iface;

/// Address families as the kernel numbers them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Packets that are to this host's hardware address (`include/uapi/linux/if_packet.h`).
const PACKET_HOST: u32 = 0;

/// Sends a translated packet on: the verdict for tc.
#[inline(always)]
pub fn send(skb: &Skb) -> i32 {
    lb_forward(skb.0) as i32
}

/// A function of its own to the verifier, like those in `steps`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_forward(context: *mut __sk_buff) -> u32 {
    let skb = Skb(context);
    // Tags are the host's to take off and put on; marks may choose another route.
    if skb.pkt_type() != PACKET_HOST || skb.has_tag() || skb.mark() != 0 {
        return TC_ACT_UNSPEC as u32;
    }
    let sent = match is_v6(&Frame(Skb(context))) {
        Some(false) => via::<V4>(skb),
        Some(true) => via::<V6>(skb),
        None => None,
    };
    sent.map_or(TC_ACT_UNSPEC, |()| TC_ACT_REDIRECT as i32) as u32
}

/// Looks the next hop up and has the packet redirected there; `None` = left to the host, unchanged.
#[inline(always)]
fn via<F: Forward>(skb: Skb) -> Option<()> {
    let (context, segment, ifindex) = (skb.0, skb.segment(), skb.ifindex());
    let mut frame = Frame(skb);
    let wanted = F::lookup(&mut frame, segment)?;
    let mut route = question(F::IS_V6, ifindex, &wanted);
    // SAFETY: the kernel's context, and a structure of the size given.
    let found = unsafe { fib_lookup(context.cast(), &raw mut route, size_of_val(&route) as i32, 0) };
    // No route, no neighbour yet, too long for the path, of this host: the host knows what to say.
    if found != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
        return None;
    }
    let (_, flags) = iface(route.ifindex);
    let redirected = if flags & iface_flag::PEER != 0 {
        hop::<F, _>(&mut frame, Some(macs(&route)))?;
        // SAFETY: no pointers; kernel 5.10 or later.
        unsafe { bpf_redirect_peer(route.ifindex, 0) }
    } else {
        hop::<F, _>(&mut frame, None)?;
        // SAFETY: addresses of either family have the same place, the longer one fills it; kernel 5.10 or later.
        unsafe {
            let mut next = bpf_redir_neigh { nh_family: u32::from(route.family), ..core::mem::zeroed() };
            next.__bindgen_anon_1.ipv6_nh = route.__bindgen_anon_4.ipv6_dst;
            bpf_redirect_neigh(route.ifindex, &raw mut next, size_of::<bpf_redir_neigh>() as i32, 0)
        }
    };
    (redirected == i64::from(TC_ACT_REDIRECT)).then_some(())
}

#[inline(always)]
fn question<A: Address>(v6: bool, ifindex: u32, wanted: &Lookup<A>) -> bpf_fib_lookup {
    // SAFETY: plain integers, for which zero is a value.
    let mut route: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    let ports = u32::from_be(wanted.ports);
    route.family = if v6 { AF_INET6 } else { AF_INET };
    route.l4_protocol = wanted.protocol;
    route.sport = ((ports >> 16) as u16).to_be();
    route.dport = (ports as u16).to_be();
    route.__bindgen_anon_1.tot_len = wanted.len;
    route.ifindex = ifindex;
    if v6 {
        route.__bindgen_anon_2.flowinfo = wanted.class;
        let word = |address: &A, i| address.word(i);
        let words = |address: &A| [word(address, 0), word(address, 1), word(address, 2), word(address, 3)];
        route.__bindgen_anon_3.ipv6_src = words(&wanted.src);
        route.__bindgen_anon_4.ipv6_dst = words(&wanted.dst);
    } else {
        route.__bindgen_anon_2.tos = wanted.class as u8;
        route.__bindgen_anon_3.ipv4_src = wanted.src.word(0);
        route.__bindgen_anon_4.ipv4_dst = wanted.dst.word(0);
    }
    route
}

/// The hardware addresses of the next hop, as they go in front of the packet.
#[inline(always)]
fn macs(route: &bpf_fib_lookup) -> MacPair {
    let (d, s) = (&route.dmac, &route.smac);
    [
        u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
        u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
        u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
    ]
}
