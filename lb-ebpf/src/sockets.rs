//! Programs on a cgroup: sockets in it dial backends in place of frontends, and see frontends in place of backends.
//!
//! These hooks are met in the context of processes, which others may interrupt: nothing here uses the packet path's room of
//! each CPU, and counters are added to in one instruction.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use lb_common::abi::{NetnsEntry, SocketEntry, SocketKey, config_flag, protocol};
use lb_common::engine::socket::{self, Call, Event, SocketTables};
use lb_common::engine::tables::Tables;
use lb_common::family::{Address, V4Addr, V6Addr};
use lb_common::reason::{Class, REASON_SLOTS, Reason};
use lb_common::tables::SOCKET_SLOT;

use crate::call::{Family, Mapped, SockAddr, Source};
use crate::maps;
use crate::tables::{KernelTables, fetch_add};

/// What a program answers: the call goes on.
const PROCEED: i32 = 1;
/// The call fails, with EPERM unless `bpf_set_retval` has said otherwise.
const FAIL: i32 = 0;

const ECONNREFUSED: i32 = 111;

impl SocketTables for KernelTables {
    #[inline(always)]
    fn netns(&self, cookie: u64) -> Option<&'static NetnsEntry> {
        // SAFETY: entries are replaced as a whole, and not freed while the program runs.
        unsafe { maps::NETNS.get(&cookie) }
    }

    #[inline(always)]
    fn socket(&self, key: &SocketKey) -> Option<&'static SocketEntry> {
        // SAFETY: not freed while the program runs. One that gives way to another socket's at this very moment is that of a
        // socket nobody has asked about for long.
        unsafe { maps::SOCKETS.get(key) }
    }

    #[inline(always)]
    fn set_socket(&self, key: &SocketKey, entry: &SocketEntry) {
        let _full = maps::SOCKETS.insert(key, entry, 0);
    }

    #[inline(always)]
    fn remove_socket(&self, key: &SocketKey) {
        let _absent = maps::SOCKETS.remove(key);
    }

    #[inline(always)]
    fn count_socket(&self, backend: u32, event: Event) {
        let Some(stats) = maps::BACKEND_STATS.get_ptr_mut(backend) else {
            return;
        };
        // SAFETY: fields of this CPU's value.
        let counter = unsafe {
            match event {
                Event::Opened => &raw mut (*stats).flows_opened,
                Event::Closed => &raw mut (*stats).flows_closed,
                Event::Sent => &raw mut (*stats).to_backend.packets,
                Event::Received => &raw mut (*stats).from_backend.packets,
            }
        };
        fetch_add(counter, 1);
    }
}

/// Counts a call, and says what becomes of it.
#[inline(always)]
fn end(reason: Reason) -> i32 {
    count(reason);
    match reason.class() {
        Class::Forwarded | Class::Passed => PROCEED,
        Class::Answered => {
            // Otherwise removed by the verifier, which does not know the helper then.
            if KernelTables.config().flags & config_flag::SET_RETVAL != 0 {
                // SAFETY: kernel 5.18, as the flag says.
                unsafe { bpf_set_retval(-ECONNREFUSED) };
            }
            FAIL
        }
        Class::Dropped => FAIL,
    }
}

#[inline(always)]
fn count(reason: Reason) {
    let index = u32::from(SOCKET_SLOT) * REASON_SLOTS + reason as u32;
    if let Some(counter) = maps::IFACE_STATS.get_ptr_mut(index) {
        // SAFETY: a field of this CPU's value.
        fetch_add(unsafe { &raw mut (*counter).packets }, 1);
    }
}

#[inline(always)]
fn is_balanced(context: SockAddr) -> bool {
    matches!(context.protocol(), TCP | UDP)
}

const TCP: u32 = protocol::TCP as u32;
const UDP: u32 = protocol::UDP as u32;

macro_rules! engines {
    ($($name:ident $piece:ident $address:ty;)*) => {$(
        #[inline(always)]
        fn $name(call: &mut Call<$address>) -> Reason {
            socket::$piece(&KernelTables, call)
        }
    )*};
}

engines! {
    connect_v4 connect V4Addr;
    connect_v6 connect V6Addr;
    send_v4 send V4Addr;
    send_v6 send V6Addr;
}

/// Runs the engine on a call that dials.
#[inline(always)]
fn dial<A: Family>(context: SockAddr, source: Source, engine: fn(&mut Call<A>) -> Reason) -> i32 {
    if !is_balanced(context) {
        return PROCEED;
    }
    let mut call = A::call(context, source);
    let reason = engine(&mut call);
    if reason.class() == Class::Forwarded {
        A::set(context, call.key.dst, call.key.dport_be);
    }
    end(reason)
}

/// A socket connects, IPv4.
#[cgroup_sock_addr(connect4)]
pub fn lb_connect4(ctx: SockAddrContext) -> i32 {
    dial::<V4Addr>(SockAddr::new(&ctx), Source::Socket, connect_v4)
}

/// A socket connects, IPv6 or IPv4 by an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub fn lb_connect6(ctx: SockAddrContext) -> i32 {
    let context = SockAddr::new(&ctx);
    let Some(mapped) = Mapped::of(context) else {
        return dial::<V6Addr>(context, Source::Socket, connect_v6);
    };
    if !is_balanced(context) {
        return PROCEED;
    }
    let mut call = mapped.call(context);
    let reason = connect_v4(&mut call);
    if reason.class() == Class::Forwarded {
        Mapped::set(context, call.key.dst, call.key.dport_be);
    }
    end(reason)
}

/// A socket that is not connected sends a datagram, IPv4.
#[cgroup_sock_addr(sendmsg4)]
pub fn lb_sendmsg4(ctx: SockAddrContext) -> i32 {
    dial::<V4Addr>(SockAddr::new(&ctx), Source::Datagram, send_v4)
}

/// A socket that is not connected sends a datagram, IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn lb_sendmsg6(ctx: SockAddrContext) -> i32 {
    dial::<V6Addr>(SockAddr::new(&ctx), Source::Datagram, send_v6)
}

/// What a socket is to see in place of a peer's address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Who has sent this datagram?
    Sender,
    /// Who is my peer?
    Peer,
}

#[inline(always)]
fn frontend<A: Address>(context: SockAddr, question: Question, address: A) -> Option<(A, u16)> {
    let (cookie, port_be) = (context.cookie(), context.port_be());
    let entry = match question {
        Question::Sender => {
            let entry = socket::receive(&KernelTables, cookie, address, port_be)?;
            count(Reason::FromBackend);
            entry
        }
        Question::Peer => socket::peer(&KernelTables, cookie, address, port_be)?,
    };
    let words = if A::WORDS == 1 { [entry.frontend[3], 0, 0, 0] } else { entry.frontend };
    Some((A::from_words(words), entry.frontend_port_be))
}

#[inline(always)]
fn show<A: Family>(context: SockAddr, question: Question) {
    if let Some((address, port_be)) = frontend(context, question, A::address(context)) {
        A::set(context, address, port_be);
    }
}

#[inline(always)]
fn show_v6(context: SockAddr, question: Question) {
    match Mapped::of(context) {
        Some(Mapped(address)) => {
            if let Some((address, port_be)) = frontend(context, question, address) {
                Mapped::set(context, address, port_be);
            }
        }
        None => show::<V6Addr>(context, question),
    }
}

/// A socket asks who has sent a datagram, IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn lb_recvmsg4(ctx: SockAddrContext) -> i32 {
    show::<V4Addr>(SockAddr::new(&ctx), Question::Sender);
    PROCEED
}

/// A socket asks who has sent a datagram, IPv6 or IPv4 to an IPv6 socket.
#[cgroup_sock_addr(recvmsg6)]
pub fn lb_recvmsg6(ctx: SockAddrContext) -> i32 {
    show_v6(SockAddr::new(&ctx), Question::Sender);
    PROCEED
}

/// A socket asks for its peer's name, IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn lb_getpeername4(ctx: SockAddrContext) -> i32 {
    show::<V4Addr>(SockAddr::new(&ctx), Question::Peer);
    PROCEED
}

/// A socket asks for its peer's name, IPv6 or IPv4 by an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn lb_getpeername6(ctx: SockAddrContext) -> i32 {
    show_v6(SockAddr::new(&ctx), Question::Peer);
    PROCEED
}

/// A socket is closed (kernel 5.9).
#[cgroup_sock(sock_release)]
pub fn lb_sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the kernel's context (kernel 5.7).
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    socket::close(&KernelTables, cookie);
    PROCEED
}
