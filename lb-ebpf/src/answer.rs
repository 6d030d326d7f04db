//! Answers: made at tc, where a packet's length can change. XDP leaves them to the tc program of the same interface.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::{
    bpf_redirect, bpf_skb_change_head, bpf_skb_change_tail, bpf_xdp_adjust_meta,
};
use lb_common::engine::answer::{Resize, answer_ip};
use lb_common::engine::parse::{self, V4, V6};
use lb_common::reason::Reason;

use crate::frame::{Frame, Note, Skb, Xdp};

impl Resize for Frame<Skb> {
    /// Also makes the whole packet reachable, and one packet of what was to be segmented (GSO).
    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Option<()> {
        // SAFETY: the kernel's context. Only a packet whose header is shorter than where its checksum goes fails.
        let failed = unsafe { bpf_skb_change_tail(self.0.0, len as u32, 0) };
        (failed == 0).then_some(())
    }

    #[inline(always)]
    fn push_front(&mut self, n: usize) -> Option<()> {
        // SAFETY: the kernel's context. (bpf_skb_adjust_room refuses frames with two tags.)
        let failed = unsafe { bpf_skb_change_head(self.0.0, n as u32, 0) };
        (failed == 0).then_some(())
    }
}

/// Answers a packet and sends the answer back over the interface it came in: the verdict for tc.
#[inline(always)]
pub fn send(skb: &Skb, reason: u32) -> i32 {
    if lb_answer(skb.0, u32::from(reason == Reason::Ping as u32)) == 0 {
        return TC_ACT_SHOT as i32;
    }
    // SAFETY: no pointers.
    unsafe { bpf_redirect(skb.ifindex(), 0) as i32 }
}

/// Leaves an XDP packet to [`from_note`] at tc; false when the driver knows no metadata.
#[inline(always)]
pub fn leave_note<const FRAGS: bool>(xdp: &Xdp<FRAGS>, reason: Reason) -> bool {
    // SAFETY: the kernel's context.
    let failed = unsafe { bpf_xdp_adjust_meta(xdp.0, -(size_of::<Note>() as i32)) };
    failed == 0 && xdp.write_note(reason as u32)
}

/// What XDP has left to tc: the number of the reason to answer for.
#[inline(always)]
pub fn from_note(skb: &Skb) -> Option<u32> {
    skb.take_note()
}

/// Makes the answer; 0 = none. A function of its own to the verifier, like those in `steps`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_answer(context: *mut __sk_buff, ping: u32) -> u32 {
    match parse::link(&mut Frame(Skb(context))) {
        Some((parse::ETHERTYPE_IPV4, offset)) => lb_answer_v4(context, ping, offset as u32),
        Some((parse::ETHERTYPE_IPV6, offset)) => lb_answer_v6(context, ping, offset as u32),
        _ => 0,
    }
}

macro_rules! families {
    ($($name:ident $wire:ty;)*) => {$(
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(context: *mut __sk_buff, ping: u32, offset: u32) -> u32 {
            // The verifier knows nothing of a function's arguments.
            let offset = (offset as usize).min(parse::MAX_LINK_LEN);
            u32::from(answer_ip::<$wire, _>(&mut Frame(Skb(context)), offset, ping != 0).is_some())
        }
    )*};
}

families! {
    lb_answer_v4 V4;
    lb_answer_v6 V6;
}
