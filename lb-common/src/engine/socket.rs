//! Sockets that dial a frontend: the backend is chosen when they do, and their packets need no rewriting.
//!
//! The choice is that of the packet path: the same frontends, policies, algorithms and memory of clients. What a socket
//! cannot know or do (its address before it is bound, another source for its packets) is left to the packet path.

use core::ops::Deref;

use super::filter::{self, Seen};
use super::open::{self, Origin};
use super::select::{self, ChosenOf};
use super::state;
use super::tables::Tables;
use crate::abi::{
    BackendEntry, FlowKey, FrontendEntry, NetnsEntry, SocketEntry, SocketKey, backend_flag, frontend_flag,
    netns_flag, socket_kind,
};
use crate::family::Address;
use crate::reason::Reason;

/// The tables of sockets, beside those of packets.
pub trait SocketTables: Tables {
    /// What is known of a network namespace.
    fn netns(&self, cookie: u64) -> Option<Self::Ref<NetnsEntry>>;
    /// What a socket has to do with a Service.
    fn socket(&self, key: &SocketKey) -> Option<Self::Ref<SocketEntry>>;
    /// Remembers that.
    fn set_socket(&self, key: &SocketKey, entry: &SocketEntry);
    /// Forgets it.
    fn remove_socket(&self, key: &SocketKey);
    /// Counts for a backend, in a way that interrupts nobody else's counting.
    fn count_socket(&self, backend: u32, event: Event);
}

/// What is counted of sockets for each backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection, or the first datagram to a frontend.
    Opened,
    /// The end of a connection.
    Closed,
    /// A datagram to the backend.
    Sent,
    /// A datagram from the backend.
    Received,
}

/// A call of a socket: whom it dials.
#[derive(Clone, Copy, Debug)]
pub struct Call<A> {
    /// Addresses and ports. Source address and port are zero unless the socket is bound.
    pub key: FlowKey<A>,
    /// The socket's cookie.
    pub cookie: u64,
    /// Cookie of its network namespace.
    pub netns: u64,
    /// The backend chosen.
    backend: u32,
    /// 1: the socket is a pod's.
    of_pod: u32,
}

/// The key of what there is once for a socket.
fn whole(cookie: u64, kind: u16) -> SocketKey {
    SocketKey { cookie, addr: [0; 4], port_be: 0, kind, _pad: 0 }
}

/// The key of a socket's connection.
fn connected(cookie: u64) -> SocketKey {
    whole(cookie, socket_kind::CONNECTED)
}

impl<A: Address> Call<A> {
    /// A call about this address, of this socket, in this network namespace.
    #[inline(always)]
    pub fn new(key: FlowKey<A>, cookie: u64, netns: u64) -> Self {
        Self { key, cookie, netns, backend: 0, of_pod: 0 }
    }

    fn dialled(&self, kind: u16) -> SocketKey {
        SocketKey {
            cookie: self.cookie,
            addr: self.key.dst.widen(),
            port_be: self.key.dport_be,
            kind,
            _pad: 0,
        }
    }

    /// Dials the backend from here on.
    fn go_to(&mut self, backend: &BackendEntry) {
        self.key.dst = A::from_words(backend.addr);
        self.key.dport_be = backend.port_be;
    }
}

/// Whose call it is.
#[inline(always)]
fn caller<A: Address, T: SocketTables>(tables: &T, call: &mut Call<A>) -> Result<Origin, Reason> {
    let Some(netns) = tables.netns(call.netns) else {
        return Ok(Origin::Pod);
    };
    if netns.flags & netns_flag::EXCLUDED != 0 {
        return Err(Reason::LeftToPackets);
    }
    if is_zero(&call.key.src) {
        call.key.src = A::from_words(if A::WORDS == 1 { [netns.v4, 0, 0, 0] } else { netns.v6 });
    }
    Ok(if netns.flags & netns_flag::NODE != 0 { Origin::Node } else { Origin::Pod })
}

#[inline(always)]
fn is_zero<A: Address>(address: &A) -> bool {
    let mut bits = 0;
    let mut i = 0;
    while i < A::WORDS {
        bits |= address.word(i);
        i += 1;
    }
    bits == 0
}

/// Whether it is an address that each network namespace has for itself: the node serves node ports there, if it is asked to.
#[inline(always)]
fn is_loopback<A: Address>(address: &A) -> bool {
    A::WORDS == 1 && u32::from_be(address.word(0)) >> 24 == 127
}

/// Whether only the packets tell what is to be done: a pod's address is not known before it has sent one, and none but
/// the packet path gives packets another source.
#[inline(always)]
fn is_for_packets<A: Address>(frontend: &FrontendEntry, origin: Origin, src: &A) -> bool {
    const ADDRESS: u32 = frontend_flag::AFFINITY | frontend_flag::SOURCE_RANGES;
    origin == Origin::Pod
        && (frontend.flags & frontend_flag::MASQUERADE_POD != 0
            || frontend.flags & ADDRESS != 0 && is_zero(src))
}

/// Chooses who answers. (In a function of its own, as others here, for the stack: the verifier adds up what call each other.)
#[inline(never)]
fn choose<A: Address, T: SocketTables>(tables: &T, call: &mut Call<A>) -> Reason {
    match caller(tables, call).and_then(|origin| choose_for(tables, call, origin)) {
        Ok(chosen) => {
            call.backend = chosen.id;
            Reason::NewFlow
        }
        Err(reason) => reason,
    }
}

#[inline(always)]
fn choose_for<A: Address, T: SocketTables>(
    tables: &T,
    call: &mut Call<A>,
    origin: Origin,
) -> Result<ChosenOf<T>, Reason> {
    call.of_pod = u32::from(origin == Origin::Pod);
    let mut frontend = FrontendEntry::default();
    let key = &mut call.key;
    if !tables.frontend(&open::frontend_key(key.dst, key.dport_be, key.protocol), &mut frontend) {
        return Err(match super::not_a_frontend(tables, key, false, &mut frontend, Reason::NotOurs) {
            // No socket of this machine is outside of the cluster.
            Reason::DropExternal => Reason::RejectedPort,
            reason => reason,
        });
    }
    if origin == Origin::Pod && is_loopback(&key.dst) {
        return Err(Reason::NotOurs);
    }
    if is_for_packets(&frontend, origin, &key.src) {
        return Err(Reason::LeftToPackets);
    }
    let range = open::admit(tables, key.src, &frontend, origin)?;
    if key.sport_be == 0 {
        // For Maglev's hash: a port is given to the socket later.
        key.sport_be = (call.cookie ^ (call.cookie >> 16)) as u16;
    }
    select::choose(tables, key, &frontend, range, false).ok_or(Reason::DropTables)
}

/// Whether a backend is the one that was chosen, and takes datagrams (C4).
#[inline(always)]
fn serves<T: Tables>(tables: &T, entry: &SocketEntry) -> Option<T::Ref<BackendEntry>> {
    let backend = tables.backend(entry.backend_id)?;
    let serves = backend.generation == entry.backend_generation && backend.flags & backend_flag::SERVING != 0;
    serves.then_some(backend)
}

#[inline(always)]
fn entry_for<A: Address, T: Tables>(tables: &T, call: &Call<A>, backend: &BackendEntry) -> SocketEntry {
    SocketEntry {
        netns: call.netns,
        frontend: call.key.dst.widen(),
        backend: A::from_words(backend.addr).widen(),
        frontend_port_be: call.key.dport_be,
        backend_port_be: backend.port_be,
        backend_id: call.backend,
        backend_generation: backend.generation,
        last_seen: tables.now(),
        protocol: call.key.protocol,
        _pad: [0; 7],
    }
}

/// A socket connects. If its reason is one of those that forward, `call` dials the backend now.
#[inline(always)]
pub fn connect<A: Address, T: SocketTables>(tables: &T, call: &mut Call<A>) -> Reason {
    let (seen, to_backend) = filter::look(tables, call.key.src, call.key.dst);
    if seen != Seen::Maybe {
        if to_backend {
            // Dialled by its own name: that is its name now.
            close(tables, call.cookie);
        }
        return Reason::NotOurs;
    }
    let reason = choose(tables, call);
    if reason != Reason::NewFlow {
        return reason;
    }
    let Some(backend) = tables.backend(call.backend) else {
        return Reason::DropTables;
    };
    close(tables, call.cookie);
    tables.set_socket(&connected(call.cookie), &entry_for::<A, T>(tables, call, &backend));
    tables.add_open_flows(call.backend, 1);
    tables.count_socket(call.backend, Event::Opened);
    call.go_to(&backend);
    Reason::NewFlow
}

/// A socket that is not connected sends a datagram. If its reason is one of those that forward, `call` dials the backend now.
#[inline(always)]
pub fn send<A: Address, T: SocketTables>(tables: &T, call: &mut Call<A>) -> Reason {
    if filter::look(tables, call.key.src, call.key.dst).0 != Seen::Maybe {
        return Reason::NotOurs;
    }
    if send_again(tables, call) {
        return Reason::ToBackend;
    }
    let reason = choose(tables, call);
    if reason == Reason::NewFlow { send_first(tables, call) } else { reason }
}

/// Sends a datagram where the one before went, if there was one; whether there was.
#[inline(never)]
fn send_again<A: Address, T: SocketTables>(tables: &T, call: &mut Call<A>) -> bool {
    let to = call.dialled(socket_kind::TO_FRONTEND);
    if let Some(entry) = tables.socket(&to) {
        let idle = state::elapsed(tables.now(), entry.last_seen);
        if idle <= tables.config().lifetime_udp_replied && go_on(tables, call, &entry) {
            if idle >= tables.config().refresh_ticks {
                remember(tables, &to, &SocketEntry { last_seen: tables.now(), ..*entry });
            }
            return true;
        }
    }
    // The kernel lets a connected socket hear from its peer only.
    tables.socket(&connected(call.cookie)).is_some_and(|entry| {
        entry.frontend == to.addr && entry.frontend_port_be == to.port_be && go_on(tables, call, &entry)
    })
}

/// Sends a datagram to a backend chosen before, if it takes datagrams.
#[inline(always)]
fn go_on<A: Address, T: SocketTables>(tables: &T, call: &mut Call<A>, entry: &SocketEntry) -> bool {
    let Some(backend) = serves(tables, entry) else {
        return false;
    };
    tables.count_socket(entry.backend_id, Event::Sent);
    call.go_to(&backend);
    true
}

/// Sends the first datagram to a frontend, to the backend chosen.
#[inline(never)]
fn send_first<A: Address, T: SocketTables>(tables: &T, call: &mut Call<A>) -> Reason {
    let Some(backend) = tables.backend(call.backend) else {
        return Reason::DropTables;
    };
    let left = whole(call.cookie, socket_kind::LEFT);
    if tables.socket(&left).is_some() {
        return Reason::LeftToPackets;
    }
    let to = call.dialled(socket_kind::TO_FRONTEND);
    let entry = entry_for::<A, T>(tables, call, &backend);
    if call.of_pod != 0 && forget_namesake(tables, &to, &entry) {
        // C6: only packets can get another source port. Both go that way, for the packet path must know of both.
        tables.set_socket(&left, &entry);
        return Reason::LeftToPackets;
    }
    remember(tables, &to, &entry);
    tables.count_socket(call.backend, Event::Opened);
    tables.count_socket(call.backend, Event::Sent);
    call.go_to(&backend);
    Reason::NewFlow
}

/// The key of datagrams that come back.
#[inline(always)]
fn back(to: &SocketKey, entry: &SocketEntry) -> SocketKey {
    SocketKey { addr: entry.backend, port_be: entry.backend_port_be, kind: socket_kind::FROM_BACKEND, ..*to }
}

#[inline(always)]
fn remember<T: SocketTables>(tables: &T, to: &SocketKey, entry: &SocketEntry) {
    tables.set_socket(to, entry);
    tables.set_socket(&back(to, entry), entry);
}

/// Whether the backend already answers this socket for another frontend; if so, that is forgotten.
#[inline(always)]
fn forget_namesake<T: SocketTables>(tables: &T, to: &SocketKey, entry: &SocketEntry) -> bool {
    let key = back(to, entry);
    let Some(other) = tables.socket(&key) else {
        return false;
    };
    let (addr, port_be) = (other.frontend, other.frontend_port_be);
    let idle = state::elapsed(entry.last_seen, other.last_seen);
    if addr == to.addr && port_be == to.port_be || idle > tables.config().lifetime_udp_replied {
        return false;
    }
    tables.remove_socket(&key);
    tables.remove_socket(&SocketKey { addr, port_be, ..*to });
    true
}

/// A datagram has come in: the frontend that its sender stands for.
#[inline(always)]
pub fn receive<A: Address, T: SocketTables>(
    tables: &T,
    cookie: u64,
    from: A,
    port_be: u16,
) -> Option<T::Ref<SocketEntry>> {
    let (word, shift) = filter::place(from);
    if tables.filter(word) >> shift & filter::cell::ANSWERS == 0 {
        return None;
    }
    let key = SocketKey { cookie, addr: from.widen(), port_be, kind: socket_kind::FROM_BACKEND, _pad: 0 };
    let entry = match tables.socket(&key) {
        Some(entry) => entry,
        None => peer(tables, cookie, from, port_be)?,
    };
    tables.count_socket(entry.deref().backend_id, Event::Received);
    Some(entry)
}

/// The frontend that a connected socket has dialled, if its peer stands for one.
#[inline(always)]
pub fn peer<A: Address, T: SocketTables>(
    tables: &T,
    cookie: u64,
    peer: A,
    port_be: u16,
) -> Option<T::Ref<SocketEntry>> {
    let entry = tables.socket(&connected(cookie))?;
    let same = entry.backend == peer.widen() && entry.backend_port_be == port_be;
    same.then_some(entry)
}

/// A socket is closed, or dials somebody else: its connection, if it had one, is over.
#[inline(always)]
pub fn close<T: SocketTables>(tables: &T, cookie: u64) {
    let key = connected(cookie);
    let Some(entry) = tables.socket(&key) else {
        return;
    };
    let (id, generation) = (entry.backend_id, entry.backend_generation);
    tables.remove_socket(&key);
    if tables.backend(id).is_some_and(|backend| backend.generation == generation) {
        tables.add_open_flows(id, -1);
        tables.count_socket(id, Event::Closed);
    }
}
