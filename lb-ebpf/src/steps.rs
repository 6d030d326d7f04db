//! The pieces of the packet path as functions of their own.
//!
//! Each is exported under a C name, which makes it a *global* function to the verifier (kernel 5.6): checked once, for
//! any caller. It gets the context only; what the caller has found lies in the per-CPU [`Work`].

use core::arch::asm;
use core::mem::transmute;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_log_ebpf::info;
use lb_common::abi::{FlowEntry, FlowKey, config_flag};
use lb_common::engine::flow::Other;
use lb_common::engine::parse::{V4, V6, Wire};
use lb_common::engine::steps::{Direction, Steps, Work};
use lb_common::engine::tables::{Added, Tables};
use lb_common::engine::{first_packet, flow, open, without_ports};
use lb_common::family::{Address, V4Addr, V6Addr};
use lb_common::reason::Reason;

use crate::frame::{Context, Frame, Skb, Xdp};
use crate::tables::KernelTables;

#[map]
static WORK_V4: PerCpuArray<Work<V4Addr>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static WORK_V6: PerCpuArray<Work<V6Addr>> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's room for the packet in hand.
#[inline(always)]
fn work<W: Wire>() -> Option<&'static mut Work<W::Addr>> {
    let work: *mut Work<W::Addr> =
        if W::IS_V6 { WORK_V6.get_ptr_mut(0)?.cast() } else { WORK_V4.get_ptr_mut(0)?.cast() };
    // SAFETY: this CPU's own value, and the type is that of the family. A program at these hooks runs to its end
    // before the next one begins on this CPU.
    Some(unsafe { &mut *work })
}

/// Key and entry of a flow.
type Pair<A> = (FlowKey<A>, FlowEntry<A>);

#[map]
static EVICTED_V4: PerCpuArray<Pair<V4Addr>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static EVICTED_V6: PerCpuArray<Pair<V6Addr>> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's room for what has to make way.
#[inline(always)]
fn evicted<A: Address>() -> Option<&'static mut Pair<A>> {
    let evicted: *mut Pair<A> =
        if A::WORDS == 1 { EVICTED_V4.get_ptr_mut(0)?.cast() } else { EVICTED_V6.get_ptr_mut(0)?.cast() };
    // SAFETY: as in `work`.
    Some(unsafe { &mut *evicted })
}

/// [`flow::write`] in a function of its own, checked by the verifier once. Key and entry lie in `work`, where it looks for them:
/// pointers as arguments came with kernel 5.12.
#[inline(always)]
pub fn write_flow<A: Address>(work: &Work<A>, direction: Direction, replace: bool) -> Added {
    // SAFETY: changes nothing; the compiler takes it for something that may read what is written there so far. (The kernel wants
    // an instruction where there is a line.)
    unsafe { asm!("{0} = {0}", inout(reg) work => _) };
    let (direction, replace) = (direction as u32, u32::from(replace));
    let added = if A::WORDS == 1 {
        lb_write_flow_v4(direction, replace)
    } else {
        lb_write_flow_v6(direction, replace)
    };
    match added {
        0 => Added::Yes,
        1 => Added::Evicted,
        2 => Added::Exists,
        _ => Added::Full,
    }
}

/// [`flow::evict`] in a function of its own.
#[inline(always)]
pub fn evict<A: Address>() {
    if A::WORDS == 1 {
        lb_evict_v4()
    } else {
        lb_evict_v6()
    };
}

macro_rules! flow_writers {
    ($($name:ident $evict:ident $wire:ty, $address:ty;)*) => {$(
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(direction: u32, replace: u32) -> u32 {
            let (Some(work), Some(evicted)) = (work::<$wire>(), evicted()) else {
                return 3;
            };
            let (key, entry) = work.side(direction);
            match flow::write(&KernelTables, key, entry, replace != 0, evicted) {
                Added::Yes => 0,
                Added::Evicted => 1,
                Added::Exists => 2,
                Added::Full => 3,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $evict() -> u32 {
            if let Some(evicted) = evicted::<$address>() {
                flow::evict(&KernelTables, evicted);
            }
            0
        }
    )*};
}

flow_writers! {
    lb_write_flow_v4 lb_evict_v4 V4, V4Addr;
    lb_write_flow_v6 lb_evict_v6 V6, V6Addr;
}

/// A context whose packets have functions of their own for the rarer pieces. All return a [`Reason`]'s number.
pub trait Cut: Context {
    /// [`without_ports`], IPv4.
    fn without_ports_v4(&self) -> u32;
    /// [`without_ports`], IPv6.
    fn without_ports_v6(&self) -> u32;
}

/// The number of a reason that one of the functions below returned.
#[inline(always)]
fn reason(number: u32) -> Reason {
    // SAFETY: they return nothing but numbers of reasons.
    unsafe { transmute(number as u8) }
}

impl<C: Cut> Steps<Frame<C>> for KernelTables {
    type Room<A: Address> = &'static mut Work<A>;

    #[inline(always)]
    fn work<W: Wire>(&self) -> Option<&'static mut Work<W::Addr>> {
        work::<W>()
    }

    #[inline(always)]
    fn first_packet<W: Wire>(&self, _work: &mut Work<W::Addr>) -> Reason {
        reason(if W::IS_V6 { lb_first_packet_v6() } else { lb_first_packet_v4() })
    }

    #[inline(always)]
    fn record<W: Wire>(&self, _work: &mut Work<W::Addr>) -> Reason {
        let number = if W::IS_V6 { lb_record_v6() } else { lb_record_v4() };
        // Off in the read-only data, so the verifier removes it, unless the agent was asked to trace.
        if self.config().flags & config_flag::TRACE != 0 {
            if W::IS_V6 {
                lb_trace_v6(number)
            } else {
                lb_trace_v4(number)
            };
        }
        reason(number)
    }

    #[inline(always)]
    fn without_ports<W: Wire>(&self, packet: &mut Frame<C>, _work: &mut Work<W::Addr>) -> Reason {
        reason(if W::IS_V6 { packet.0.without_ports_v6() } else { packet.0.without_ports_v4() })
    }

    #[inline(always)]
    fn refresh<W: Wire>(&self, _work: &mut Work<W::Addr>, learned: u8) {
        // One after the other, not one inside the other: each needs much of the stack.
        let learned = u32::from(learned);
        let other = if W::IS_V6 { lb_refresh_v6(learned) } else { lb_refresh_v4(learned) };
        if other == Other::Evicted as u32 {
            if W::IS_V6 {
                lb_restore_v6()
            } else {
                lb_restore_v4()
            };
        } else if other == Other::Lost as u32 {
            if W::IS_V6 {
                lb_forget_v6()
            } else {
                lb_forget_v4()
            };
        }
    }

    #[inline(always)]
    fn make_way<W: Wire>(&self, _work: &mut Work<W::Addr>) {
        if W::IS_V6 {
            lb_make_way_v6()
        } else {
            lb_make_way_v4()
        };
    }

    #[inline(always)]
    fn forget<W: Wire>(&self, _work: &mut Work<W::Addr>) {
        if W::IS_V6 {
            lb_forget_v6()
        } else {
            lb_forget_v4()
        };
    }
}

macro_rules! cut {
    ($context:ty, $raw:ty, $make:path, $($method:ident $name:ident $piece:ident $wire:ty;)*) => {
        impl Cut for $context {
            $(#[inline(always)]
            fn $method(&self) -> u32 {
                $name(self.0)
            })*
        }

        $(#[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(context: *mut $raw) -> u32 {
            let Some(work) = work::<$wire>() else {
                return Reason::DropTables as u32;
            };
            $piece::<$wire, _, _>(&mut Frame($make(context)), &KernelTables, work) as u32
        })*
    };
}

cut! { Skb, __sk_buff, Skb,
    without_ports_v4 lb_skb_other_v4 without_ports V4;
    without_ports_v6 lb_skb_other_v6 without_ports V6;
}

cut! { Xdp<false>, xdp_md, Xdp::<false>,
    without_ports_v4 lb_xdp_other_v4 without_ports V4;
    without_ports_v6 lb_xdp_other_v6 without_ports V6;
}

cut! { Xdp<true>, xdp_md, Xdp::<true>,
    without_ports_v4 lb_frags_other_v4 without_ports V4;
    without_ports_v6 lb_frags_other_v6 without_ports V6;
}

macro_rules! flow_pieces {
    ($($first:ident $record:ident $refresh:ident $restore:ident $make_way:ident $forget:ident $wire:ty;)*) => {$(
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $first() -> u32 {
            work::<$wire>().map_or(Reason::DropTables, |work| first_packet::<$wire, _>(&KernelTables, work)) as u32
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $record() -> u32 {
            work::<$wire>().map_or(Reason::DropTables, |work| open::record::<$wire, _>(&KernelTables, work)) as u32
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $refresh(learned: u32) -> u32 {
            work::<$wire>().map_or(Other::There, |work| flow::refresh(&KernelTables, work, learned as u8)) as u32
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $restore() -> u32 {
            if let Some(work) = work::<$wire>() {
                flow::restore(&KernelTables, work);
            }
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $make_way() -> u32 {
            if let Some(work) = work::<$wire>() {
                flow::make_way(&KernelTables, work);
            }
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $forget() -> u32 {
            if let Some(work) = work::<$wire>() {
                flow::forget(&KernelTables, work);
            }
            0
        }
    )*};
}

flow_pieces! {
    lb_first_packet_v4 lb_record_v4 lb_refresh_v4 lb_restore_v4 lb_make_way_v4 lb_forget_v4 V4;
    lb_first_packet_v6 lb_record_v6 lb_refresh_v6 lb_restore_v6 lb_make_way_v6 lb_forget_v6 V6;
}

macro_rules! traces {
    ($($name:ident $wire:ty, $printable:path;)*) => {$(
        /// Logs what a first packet met.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(number: u32) -> u32 {
            if let Some(work) = work::<$wire>() {
                let key = &work.met.key;
                info!(
                    &(),
                    "protocol {} {:i}:{} -> {:i}:{}: reason {}",
                    key.protocol,
                    $printable(key.src),
                    u16::from_be(key.sport_be),
                    $printable(key.dst),
                    u16::from_be(key.dport_be),
                    number
                );
            }
            0
        }
    )*};
}

/// The logger takes IPv6 addresses as bytes.
#[inline(always)]
fn bytes(address: V6Addr) -> [u8; 16] {
    // SAFETY: same size, any bytes will do.
    unsafe { transmute(address) }
}

traces! {
    lb_trace_v4 V4, u32::from_be;
    lb_trace_v6 V6, bytes;
}
