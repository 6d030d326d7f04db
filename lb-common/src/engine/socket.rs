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
}

/// The key of a socket's connection.
fn connected(cookie: u64) -> SocketKey {
    SocketKey { cookie, addr: [0; 4], port_be: 0, kind: socket_kind::CONNECTED, _pad: 0 }
}

impl<A: Address> Call<A> {
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

/// Chooses who answers.
#[inline(always)]
fn choose<A: Address, T: SocketTables>(
    tables: &T,
    call: &mut Call<A>,
    origin: Origin,
) -> Result<ChosenOf<T>, Reason> {
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
fn entry_for<A: Address, T: Tables>(tables: &T, call: &Call<A>, chosen: &ChosenOf<T>) -> SocketEntry {
    SocketEntry {
        netns: call.netns,
        frontend: call.key.dst.widen(),
        backend: A::from_words(chosen.backend.addr).widen(),
        frontend_port_be: call.key.dport_be,
        backend_port_be: chosen.backend.port_be,
        backend_id: chosen.id,
        backend_generation: chosen.backend.generation,
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
    let chosen = match caller(tables, call).and_then(|origin| choose(tables, call, origin)) {
        Ok(chosen) => chosen,
        Err(reason) => return reason,
    };
    close(tables, call.cookie);
    tables.set_socket(&connected(call.cookie), &entry_for(tables, call, &chosen));
    tables.add_open_flows(chosen.id, 1);
    tables.count_socket(chosen.id, Event::Opened);
    call.go_to(&chosen.backend);
    Reason::NewFlow
}

/// A socket that is not connected sends a datagram. If its reason is one of those that forward, `call` dials the backend now.
#[inline(always)]
pub fn send<A: Address, T: SocketTables>(tables: &T, call: &mut Call<A>) -> Reason {
    if filter::look(tables, call.key.src, call.key.dst).0 != Seen::Maybe {
        return Reason::NotOurs;
    }
    let to = call.dialled(socket_kind::TO_FRONTEND);
    if let Some(entry) = tables.socket(&to)
        && let Some(backend) = serves(tables, &entry)
    {
        let idle = state::elapsed(tables.now(), entry.last_seen);
        if idle <= tables.config().lifetime_udp_replied {
            if idle >= tables.config().refresh_ticks {
                let entry = SocketEntry { last_seen: tables.now(), ..*entry };
                remember(tables, &to, &entry);
            }
            tables.count_socket(entry.backend_id, Event::Sent);
            call.go_to(&backend);
            return Reason::ToBackend;
        }
    }
    let origin = match caller(tables, call) {
        Ok(origin) => origin,
        Err(reason) => return reason,
    };
    let chosen = match choose(tables, call, origin) {
        Ok(chosen) => chosen,
        Err(reason) => return reason,
    };
    let entry = entry_for(tables, call, &chosen);
    if origin == Origin::Pod && answers_for_another(tables, &to, &entry) {
        // C6: its packets get a source port of their own.
        return Reason::LeftToPackets;
    }
    remember(tables, &to, &entry);
    tables.count_socket(chosen.id, Event::Opened);
    tables.count_socket(chosen.id, Event::Sent);
    call.go_to(&chosen.backend);
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

/// Whether the backend already answers this socket for another frontend.
#[inline(always)]
fn answers_for_another<T: SocketTables>(tables: &T, to: &SocketKey, entry: &SocketEntry) -> bool {
    tables.socket(&back(to, entry)).is_some_and(|other| {
        (other.frontend != entry.frontend || other.frontend_port_be != entry.frontend_port_be)
            && state::elapsed(entry.last_seen, other.last_seen) <= tables.config().lifetime_udp_replied
    })
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
