//! The one module that touches packet pointers. It hands out bounds-checked values only.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{bpf_l4_csum_replace, bpf_skb_pull_data, bpf_xdp_get_buff_len};
use lb_common::abi::{config_flag, iface_flag};
use lb_common::engine::answer::NOTE_MAGIC;
use lb_common::engine::checksum::{fix_complete, fix_keeping_kind, fold};
use lb_common::engine::packet::{Packet, TransportFix};
use lb_common::engine::tables::Tables;

use crate::tables::{KernelTables, iface_entry};

/// Offsets are cut to this, so that the verifier knows their bound. `parse::MAX_TRANSPORT_OFFSET` and what ICMP quotes
/// stay below.
const MAX_OFFSET: usize = 1023;

/// Reads a packet pointer from the kernel's context.
///
/// The field is 32 bits wide, but the verifier makes a 64-bit pointer of the load; the compiler must not cut it to 32
/// bits again, which it does once it knows the field's width.
macro_rules! context_pointer {
    ($context:expr, $type:ty, $field:ident) => {{
        let pointer: usize;
        // SAFETY: one load from the context. Helpers that move packets count as writes, so it is repeated after them.
        unsafe {
            asm!(
                "{0} = *(u32 *)({1} + {2})",
                out(reg) pointer,
                in(reg) $context,
                const offset_of!($type, $field),
                options(pure, readonly)
            );
        }
        pointer
    }};
}

/// What differs between XDP and tc.
pub trait Context {
    /// First reachable byte.
    fn data(&self) -> usize;
    /// Behind the last reachable byte.
    fn data_end(&self) -> usize;
    /// Bytes of the packet, reachable or not.
    fn len(&self) -> usize;
    /// Tries to make the first `end` bytes reachable.
    fn pull(&self, end: usize);
    /// Whether the packet's transport checksum is complete, though it looks otherwise.
    fn is_complete(&self, fix: &TransportFix) -> bool;
    /// See [`Packet::fix_transport_checksum`]; `None` = do it by the field's value.
    fn fix_transport_checksum(&self, field: usize, fix: &TransportFix) -> Option<Option<()>>;
}

/// An XDP packet. `FRAGS`: it may be spread over several buffers (programs of kind `xdp.frags`).
pub struct Xdp<const FRAGS: bool>(pub *mut xdp_md);

impl<const FRAGS: bool> Context for Xdp<FRAGS> {
    #[inline(always)]
    fn data(&self) -> usize {
        context_pointer!(self.0, xdp_md, data)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        context_pointer!(self.0, xdp_md, data_end)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        if FRAGS {
            // SAFETY: the kernel's context; kernel 5.18 or later, as `xdp.frags` itself.
            unsafe { bpf_xdp_get_buff_len(self.0) as usize }
        } else {
            self.data_end() - self.data()
        }
    }

    #[inline(always)]
    fn pull(&self, _end: usize) {}

    #[inline(always)]
    fn is_complete(&self, fix: &TransportFix) -> bool {
        let Some(iface) = iface_entry(self.ifindex()) else {
            return false;
        };
        let right = || lb_sum_is_right(self.0, fix.start as u32, fix.end as u32, fix.pseudo_header.into());
        iface.flags & iface_flag::CARD != 0 || (iface.finished != 0 && right() != 0)
    }

    #[inline(always)]
    fn fix_transport_checksum(&self, _field: usize, _fix: &TransportFix) -> Option<Option<()>> {
        None
    }
}

/// Metadata in front of a packet: what XDP has found, for tc. [`NOTE_MAGIC`], then a reason's number.
pub type Note = [u32; 2];

impl<const FRAGS: bool> Xdp<FRAGS> {
    /// The interface the packet is at.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Whether the packet lies in several buffers.
    #[inline(always)]
    pub fn has_more(&self) -> bool {
        FRAGS && self.len() > self.data_end() - self.data()
    }

    /// Fills the metadata that was made room for; whether it is there.
    #[inline(always)]
    pub fn write_note(&self, reason: u32) -> bool {
        let note = context_pointer!(self.0, xdp_md, data_meta);
        if note + size_of::<Note>() > self.data() {
            return false;
        }
        // SAFETY: checked just now.
        unsafe { *(note as *mut Note) = [NOTE_MAGIC, reason] };
        true
    }
}

impl Skb {
    /// Takes the note off the packet: the answer may meet this very program at the other end of a veth pair.
    #[inline(always)]
    pub fn take_note(&self) -> Option<u32> {
        let note = context_pointer!(self.0, __sk_buff, data_meta);
        if note + size_of::<Note>() > self.data() {
            return None;
        }
        let note = note as *mut Note;
        // SAFETY: checked just now.
        let [magic, reason] = unsafe { *note };
        if magic != NOTE_MAGIC {
            return None;
        }
        // SAFETY: as above.
        unsafe { *note = [0; 2] };
        Some(reason)
    }
}

/// A socket buffer at tc.
pub struct Skb(pub *mut __sk_buff);

impl Skb {
    /// The interface the packet is at.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).ifindex }
    }

    /// How the interface took the packet: to whom it is on the link.
    #[inline(always)]
    pub fn pkt_type(&self) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).pkt_type }
    }

    /// Whether a VLAN tag lies beside the packet.
    #[inline(always)]
    pub fn has_tag(&self) -> bool {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).vlan_present != 0 }
    }

    /// What others of this host have marked it with.
    #[inline(always)]
    pub fn mark(&self) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).mark }
    }

    /// Bytes of payload of each packet that a device is to cut this one into, 0 = it is one packet.
    #[inline(always)]
    pub fn segment(&self) -> u32 {
        // SAFETY: the kernel's context; kernel 5.7 or later.
        unsafe { (*self.0).gso_size }
    }

    /// Whether the packet came in over an interface, rather than from a socket of this host.
    #[inline(always)]
    pub fn is_forwarded(&self) -> bool {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).ingress_ifindex != 0 }
    }
}

/// Flags of `bpf_l4_csum_replace` (kernel's `uapi/linux/bpf.h`).
const BPF_F_PSEUDO_HDR: u64 = 1 << 4;
const BPF_F_MARK_MANGLED_0: u64 = 1 << 5;
const BPF_F_IPV6: u64 = 1 << 7;

impl Context for Skb {
    #[inline(always)]
    fn data(&self) -> usize {
        context_pointer!(self.0, __sk_buff, data)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        context_pointer!(self.0, __sk_buff, data_end)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).len as usize }
    }

    #[inline(always)]
    fn pull(&self, end: usize) {
        // SAFETY: the kernel's context; a failure shows as bytes that stay out of reach.
        let _failed = unsafe { bpf_skb_pull_data(self.0, end as u32) };
    }

    #[inline(always)]
    fn is_complete(&self, _fix: &TransportFix) -> bool {
        false
    }

    /// The kernel knows whether the checksum is complete, so its helper does the right thing for both kinds.
    #[inline(always)]
    fn fix_transport_checksum(&self, field: usize, fix: &TransportFix) -> Option<Option<()>> {
        let zero = if fix.udp { BPF_F_MARK_MANGLED_0 } else { 0 };
        let v6 = if fix.ipv6 && KernelTables.config().flags & config_flag::CSUM_IPV6 != 0 {
            BPF_F_IPV6
        } else {
            0
        };
        // SAFETY: the kernel's context; offsets are checked by the helper.
        let failed = unsafe {
            let addresses = u64::from(fix.addr_delta);
            let flags = BPF_F_PSEUDO_HDR | zero | v6;
            bpf_l4_csum_replace(self.0, field as u32, 0, addresses, flags) != 0
                || (fix.port_delta != 0
                    && bpf_l4_csum_replace(self.0, field as u32, 0, u64::from(fix.port_delta), zero) != 0)
        };
        Some((!failed).then_some(()))
    }
}

/// The same number, of which the verifier no longer knows anything. `unknown` is something that it does not know.
#[inline(always)]
pub fn hidden(number: usize, unknown: usize) -> usize {
    let mut number = number;
    // SAFETY: adds zero. The verifier does not know that `x ^ x` is.
    unsafe {
        asm!(
            "{1} = {2}",
            "{1} ^= {2}",
            "{0} += {1}",
            inout(reg) number,
            out(reg) _,
            in(reg) unknown,
            options(pure, nomem)
        );
    }
    number
}

/// A packet for the engine.
pub struct Frame<C>(pub C);

/// Whether the transport checksum is right of what lies between `start` and `end` in a packet, whose pseudo header has this sum.
/// 0 also where that cannot be told: longer than packets usually are, or in several buffers.
///
/// A function of its own to the verifier, like those in `steps`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_sum_is_right(context: *mut xdp_md, start: u32, end: u32, pseudo_header: u32) -> u32 {
    let frame = Frame(Xdp::<false>(context));
    u32::from(frame.sum(start as usize, end as usize, pseudo_header) == Some(0xffff))
}

impl Frame<Xdp<false>> {
    /// Folded sum of the bytes from `start` to `end`, and of `sum`; `None`: not all can be reached.
    #[inline(always)]
    fn sum(&self, start: usize, end: usize, sum: u32) -> Option<u16> {
        const FAR: usize = 0x3fff;
        const BLOCK: usize = 16;
        // As many as the longest usual packet has: the verifier follows each.
        const BLOCKS: usize = 1_536 / BLOCK;
        let (mut sum, mut at) = (u64::from(sum), start);
        let mut i = 0;
        while i < BLOCKS && at + BLOCK <= end {
            // SAFETY: `up_to` has checked.
            let words = unsafe { *(self.up_to::<FAR>(at, BLOCK)? as *const [u32; BLOCK / 4]) };
            sum += u64::from(words[0]) + u64::from(words[1]) + u64::from(words[2]) + u64::from(words[3]);
            at += BLOCK;
            i += 1;
        }
        let mut i = 0;
        while i < BLOCK / 2 && at + 2 <= end {
            // SAFETY: as above.
            sum += u64::from(unsafe { *(self.up_to::<FAR>(at, 2)? as *const u16) });
            at += 2;
            i += 1;
        }
        if at + 1 == end {
            // SAFETY: as above.
            let last = unsafe { *(self.up_to::<FAR>(at, 1)? as *const u8) };
            sum += u64::from(u16::from_ne_bytes([last, 0]));
            at += 1;
        }
        if at == end { Some(fold(sum)) } else { None }
    }
}

impl<C: Context> Frame<C> {
    /// Address of `n` reachable bytes at `offset`.
    ///
    /// The compiler must not take the sum apart: the verifier grants the bytes to the very register that was compared.
    #[inline(always)]
    fn at(&self, offset: usize, n: usize) -> Option<usize> {
        self.up_to::<MAX_OFFSET>(offset, n)
    }

    /// The same with another bound for offsets, one less than a power of two.
    #[inline(always)]
    fn up_to<const MAX: usize>(&self, offset: usize, n: usize) -> Option<usize> {
        let mut bounded = offset;
        // SAFETY: plain arithmetic on one register.
        unsafe { asm!("{0} &= {1}", inout(reg) bounded, const MAX, options(pure, nomem)) };
        let mut address = self.0.data();
        // SAFETY: as above.
        unsafe { asm!("{0} += {1}", inout(reg) address, in(reg) bounded, options(pure, nomem)) };
        if address + n > self.0.data_end() { None } else { Some(address) }
    }
}

impl<C: Context> Packet for Frame<C> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        end <= self.0.data_end() - self.0.data() || end <= self.0.len()
    }

    #[inline(always)]
    fn ensure(&mut self, end: usize) -> bool {
        if end <= self.0.data_end() - self.0.data() {
            return true;
        }
        if end > self.0.len() || end > MAX_OFFSET {
            return false;
        }
        self.0.pull(end);
        end <= self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        hidden(number, self.0.data_end() - self.0.data())
    }

    #[inline(always)]
    fn byte(&self, offset: usize) -> Option<u8> {
        // SAFETY: `at` has checked.
        self.at(offset, 1).map(|address| unsafe { *(address as *const u8) })
    }

    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        // SAFETY: `at` has checked; BPF loads need no alignment on the architectures supported.
        self.at(offset, 2).map(|address| unsafe { *(address as *const u16) })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        // SAFETY: as above; an array of words is read word by word.
        self.at(offset, N * 4).map(|address| unsafe { *(address as *const [u32; N]) })
    }

    #[inline(always)]
    fn set_half(&mut self, offset: usize, value: u16) -> Option<()> {
        // SAFETY: as above.
        self.at(offset, 2).map(|address| unsafe { *(address as *mut u16) = value })
    }

    #[inline(always)]
    fn set_words<const N: usize>(&mut self, offset: usize, value: [u32; N]) -> Option<()> {
        // SAFETY: as above.
        self.at(offset, N * 4).map(|address| unsafe { *(address as *mut [u32; N]) = value })
    }

    #[inline(always)]
    fn fix_transport_checksum(&mut self, field: usize, fix: &TransportFix) -> Option<()> {
        if let Some(done) = self.0.fix_transport_checksum(field, fix) {
            return done;
        }
        let old = self.half(field)?;
        let new = if old == fix.pseudo_header && self.0.is_complete(fix) {
            fix_complete(old, fix)
        } else {
            fix_keeping_kind(old, fix)
        };
        self.set_half(field, new)
    }
}
