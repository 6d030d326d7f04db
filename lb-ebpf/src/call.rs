//! Calls of sockets as the kernel hands them to programs on a cgroup. The one module that touches their contexts.

use core::ptr;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::programs::SockAddrContext;
use lb_common::abi::FlowKey;
use lb_common::engine::socket::Call;
use lb_common::family::{Address, MAPPED_WORD, V4Addr, V6Addr};

/// Reads a field of a context, whole: the verifier knows fields by offset and size, so the compiler must neither join nor
/// split.
macro_rules! read {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the kernel's context, or the socket that it names; both are there while the program runs.
        unsafe { ptr::read_volatile(&raw const (*$context).$($field)+) }
    };
}

/// Writes a field of a context, whole.
macro_rules! write {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the kernel's context; hooks on addresses let programs write the address and the port.
        |value| unsafe { ptr::write_volatile(&raw mut (*$context).$($field)+, value) }
    };
}

/// Where a call tells its source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The socket's own, if it is bound.
    Socket,
    /// The datagram's (`sendmsg` only).
    Datagram,
}

/// The address of a call, and its socket.
#[derive(Clone, Copy)]
pub struct SockAddr(*mut bpf_sock_addr);

impl SockAddr {
    #[inline(always)]
    pub fn new(context: &SockAddrContext) -> Self {
        Self(context.sock_addr)
    }

    /// The socket's cookie.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: the kernel's context (kernel 4.12).
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(self) -> u32 {
        read!(self.0, protocol)
    }

    /// The port.
    #[inline(always)]
    pub fn port_be(self) -> u16 {
        read!(self.0, user_port) as u16
    }

    /// The call, with an address and a source.
    #[inline(always)]
    fn call<A: Address>(self, src: A, dst: A) -> Call<A> {
        let key = FlowKey {
            src,
            dst,
            sport_be: (read!(self.socket(), src_port) as u16).to_be(),
            dport_be: self.port_be(),
            protocol: self.protocol() as u8,
            _pad: 0,
            _pad2: 0,
        };
        // SAFETY: the kernel's context (kernel 5.7).
        let netns = unsafe { bpf_get_netns_cookie(self.0.cast()) };
        Call::new(key, self.cookie(), netns)
    }

    #[inline(always)]
    fn socket(self) -> *mut bpf_sock {
        read!(self.0, __bindgen_anon_1.sk)
    }
}

/// A family's addresses in a context.
pub trait Family: Address {
    /// The address of the call.
    fn address(context: SockAddr) -> Self;
    /// The call.
    fn call(context: SockAddr, source: Source) -> Call<Self>;
    /// Puts another address and port in place.
    fn set(context: SockAddr, address: Self, port_be: u16);
}

/// IPv4, in hooks of IPv4.
impl Family for V4Addr {
    #[inline(always)]
    fn address(context: SockAddr) -> Self {
        read!(context.0, user_ip4)
    }

    #[inline(always)]
    fn call(context: SockAddr, source: Source) -> Call<Self> {
        let src = match source {
            Source::Socket => read!(context.socket(), src_ip4),
            Source::Datagram => read!(context.0, msg_src_ip4),
        };
        context.call(src, Self::address(context))
    }

    #[inline(always)]
    fn set(context: SockAddr, address: Self, port_be: u16) {
        write!(context.0, user_ip4)(address);
        write!(context.0, user_port)(u32::from(port_be));
    }
}

/// IPv6, in hooks of IPv6.
impl Family for V6Addr {
    #[inline(always)]
    fn address(context: SockAddr) -> Self {
        [
            read!(context.0, user_ip6[0]),
            read!(context.0, user_ip6[1]),
            read!(context.0, user_ip6[2]),
            read!(context.0, user_ip6[3]),
        ]
    }

    #[inline(always)]
    fn call(context: SockAddr, source: Source) -> Call<Self> {
        let src = match source {
            Source::Socket => {
                let socket = context.socket();
                [
                    read!(socket, src_ip6[0]),
                    read!(socket, src_ip6[1]),
                    read!(socket, src_ip6[2]),
                    read!(socket, src_ip6[3]),
                ]
            }
            Source::Datagram => [
                read!(context.0, msg_src_ip6[0]),
                read!(context.0, msg_src_ip6[1]),
                read!(context.0, msg_src_ip6[2]),
                read!(context.0, msg_src_ip6[3]),
            ],
        };
        context.call(src, Self::address(context))
    }

    #[inline(always)]
    fn set(context: SockAddr, address: Self, port_be: u16) {
        write!(context.0, user_ip6[0])(address[0]);
        write!(context.0, user_ip6[1])(address[1]);
        write!(context.0, user_ip6[2])(address[2]);
        write!(context.0, user_ip6[3])(address[3]);
        write!(context.0, user_port)(u32::from(port_be));
    }
}

/// IPv4 in the hooks of IPv6: `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[derive(Clone, Copy)]
pub struct Mapped(pub V4Addr);

impl Mapped {
    /// The address of the call, if it is one of these.
    #[inline(always)]
    pub fn of(context: SockAddr) -> Option<Self> {
        match V6Addr::address(context) {
            [0, 0, MAPPED_WORD, address] => Some(Self(address)),
            _ => None,
        }
    }

    /// The call, which is not that of a datagram: the kernel takes those to the hooks of IPv4 (`udpv6_sendmsg`).
    #[inline(always)]
    pub fn call(self, context: SockAddr) -> Call<V4Addr> {
        context.call(read!(context.socket(), src_ip4), self.0)
    }

    /// Puts another address and port in place.
    #[inline(always)]
    pub fn set(context: SockAddr, address: V4Addr, port_be: u16) {
        write!(context.0, user_ip6[3])(address);
        write!(context.0, user_port)(u32::from(port_be));
    }
}
