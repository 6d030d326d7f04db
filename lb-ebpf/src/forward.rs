//! Direct forwarding: a translated packet goes to its next hop from here, past the host's stack.
//!
//! Routes are looked up in the kernel's own tables, which follow links, routes and neighbours by themselves, whether an
//! agent runs or not. What they do not answer at once is left to the host's stack.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_REDIRECT, TC_ACT_UNSPEC, bpf_redir_neigh, xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{bpf_redirect_neigh, bpf_redirect_peer};
use lb_common::abi::iface_flag;
use lb_common::engine::forward::{Forward, destination, hop, is_v6};
use lb_common::engine::parse::{V4, V6};

use crate::frame::{Frame, Skb, Xdp};
use crate::maps::DEVICES;
use crate::routes::{self, macs};
use crate::tables::{iface, iface_entry, note_finished};

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
    let way = routes::way(context.cast(), ifindex, &wanted)?;
    let [a, b, c, _] = way.next;
    let redirected = if way.family == 0 {
        hop::<F, _>(&mut frame, Some([a, b, c]))?;
        // SAFETY: no pointers; kernel 5.10 or later.
        unsafe { bpf_redirect_peer(way.ifindex, 0) }
    } else {
        hop::<F, _>(&mut frame, None)?;
        // SAFETY: addresses of either family have the same place, the longer one fills it; kernel 5.10 or later.
        unsafe {
            let mut next = bpf_redir_neigh { nh_family: way.family, ..core::mem::zeroed() };
            next.__bindgen_anon_1.ipv6_nh = way.next;
            bpf_redirect_neigh(way.ifindex, &raw mut next, size_of::<bpf_redir_neigh>() as i32, 0)
        }
    };
    (redirected == i64::from(TC_ACT_REDIRECT)).then_some(())
}

/// Sends a translated packet on: the verdict for XDP.
#[inline(always)]
pub fn send_xdp<X: Forwarded>(xdp: &X) -> u32 {
    xdp.forward()
}

/// An XDP packet that has a function of its own for being forwarded.
pub trait Forwarded {
    /// The verdict.
    fn forward(&self) -> u32;
}

macro_rules! forwarded {
    ($($name:ident $frags:literal;)*) => {$(
        impl Forwarded for Xdp<$frags> {
            #[inline(always)]
            fn forward(&self) -> u32 {
                $name(self.0)
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(context: *mut xdp_md) -> u32 {
            let sent = match is_v6(&Frame(Xdp::<$frags>(context))) {
                Some(false) => via_xdp::<V4, $frags>(Xdp(context)),
                Some(true) => via_xdp::<V6, $frags>(Xdp(context)),
                None => None,
            };
            sent.unwrap_or(xdp_action::XDP_PASS)
        }
    )*};
}

forwarded! {
    lb_xdp_forward false;
    lb_frags_forward true;
}

/// Looks the next hop up and has the packet sent there; `None` = left to the host, unchanged.
#[inline(always)]
fn via_xdp<F: Forward, const FRAGS: bool>(xdp: Xdp<FRAGS>) -> Option<u32> {
    let (context, ifindex, has_more) = (xdp.0, xdp.ifindex(), xdp.has_more());
    let mut frame = Frame(xdp);
    let at = iface_entry(ifindex)?;
    // Others on the link are none of this host's business, or other devices' here.
    if destination(&frame)? != at.mac {
        return None;
    }
    let wanted = F::lookup(&mut frame, 0)?;
    if at.flags & iface_flag::CARD == 0 {
        // From here on nobody would finish it.
        if !F::is_complete(&frame, &wanted)? {
            return None;
        }
        if at.finished == 0 {
            note_finished(ifindex);
        }
    }
    let mut room = MaybeUninit::uninit();
    let route = routes::ask(context.cast(), &mut room, ifindex, &wanted)?;
    if has_more && iface(route.ifindex).1 & iface_flag::BUFFERS == 0 {
        return None;
    }
    // Back by the way it came. A veth may drop that, and not say so: there it is a redirect like others.
    let action = if route.ifindex == ifindex && at.flags & iface_flag::CARD != 0 {
        xdp_action::XDP_TX
    } else {
        redirect(route.ifindex)?
    };
    hop::<F, _>(&mut frame, Some(macs(route)))?;
    Some(action)
}

/// Has the packet put into a device, if that is one which takes packets; nothing happens to the packet here.
#[inline(always)]
fn redirect(ifindex: u32) -> Option<u32> {
    // On a miss it gives back the flags.
    let action = DEVICES.redirect(ifindex, u64::from(xdp_action::XDP_PASS)).ok()?;
    (action == xdp_action::XDP_REDIRECT).then_some(action)
}
