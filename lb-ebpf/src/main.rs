//! The kernel programs: each entry point turns the engine's reason into what its hook has to do.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod answer;
mod call;
mod forward;
mod frame;
mod maps;
mod routes;
mod sockets;
mod steps;
mod tables;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_common::abi::iface_flag;
use lb_common::engine::packet::Packet;
use lb_common::engine::{Position, process};
use lb_common::reason::{Class, Reason};

use crate::forward::Forwarded;
use crate::frame::{Frame, Skb, Xdp};
use crate::steps::Cut;
use crate::tables::{KernelTables, count, iface};

/// Runs the engine on a packet of an interface with this counter slot and these flags, and counts it.
#[inline(always)]
fn decide<C: Cut>(frame: &mut Frame<C>, (slot, flags): (u16, u16), egress: bool) -> Reason {
    let position = Position { egress, external: flags & iface_flag::EXTERNAL != 0 };
    let bytes = frame.len();
    let reason = process(frame, &KernelTables, position);
    if !egress || reason.class() == Class::Forwarded {
        count(slot, reason, bytes);
    }
    reason
}

#[inline(always)]
fn at_xdp<const FRAGS: bool>(ctx: &XdpContext) -> u32
where
    Xdp<FRAGS>: Cut + Forwarded,
{
    let at = iface(ctx.ingress_ifindex() as u32);
    let reason = decide(&mut Frame(Xdp::<FRAGS>(ctx.ctx)), at, false);
    match reason.class() {
        Class::Forwarded if at.1 & iface_flag::DIRECT != 0 => forward::send_xdp(&Xdp::<FRAGS>(ctx.ctx)),
        Class::Forwarded | Class::Passed => xdp_action::XDP_PASS,
        // Left as it is, with a note to `lb_tc_answer`.
        Class::Answered if answer::leave_note(&Xdp::<FRAGS>(ctx.ctx), reason) => xdp_action::XDP_PASS,
        Class::Answered | Class::Dropped => xdp_action::XDP_DROP,
    }
}

/// Balances at XDP, native or generic.
#[xdp]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    at_xdp::<false>(&ctx)
}

/// Balances at XDP on devices whose packets may be spread over several buffers (kernel 5.18).
#[xdp(frags)]
pub fn lb_xdp_frags(ctx: XdpContext) -> u32 {
    at_xdp::<true>(&ctx)
}

/// Balances at tc, on the way in.
#[classifier]
pub fn lb_tc_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.as_ptr().cast());
    let at = iface(skb.ifindex());
    let reason = decide(&mut Frame(skb), at, false);
    match reason.class() {
        Class::Forwarded if at.1 & iface_flag::DIRECT != 0 => forward::send(&Skb(ctx.as_ptr().cast())),
        // Other programs at this hook may follow.
        Class::Forwarded | Class::Passed => TC_ACT_UNSPEC,
        Class::Answered => answer::send(&Skb(ctx.as_ptr().cast()), reason as u32),
        Class::Dropped => TC_ACT_SHOT as i32,
    }
}

/// Answers what the XDP program of the same interface has left to be answered. (XDP_TX would need an XDP program at a
/// veth's peer, and could not finish checksums.)
#[classifier]
pub fn lb_tc_answer(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.as_ptr().cast());
    match answer::from_note(&skb) {
        Some(reason) => answer::send(&skb, reason),
        None => TC_ACT_UNSPEC,
    }
}

/// Translates replies of the host's own sockets, which no ingress hook sees. Used beside every other hook.
#[classifier]
pub fn lb_tc_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.as_ptr().cast());
    // Forwarded packets have been seen where they came in.
    if !skb.is_forwarded() {
        let at = iface(skb.ifindex());
        decide(&mut Frame(skb), at, true);
    }
    TC_ACT_UNSPEC
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
