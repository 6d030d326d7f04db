//! What lies in the maps, byte for byte.
//!
//! Every type is `#[repr(C)]` with explicit, zeroed padding and has its size asserted here. Fields named `_be` are in
//! network byte order, so are addresses; everything else is in the byte order of the machine. A change of any
//! layout or meaning needs a new [`ABI_VERSION`]: a restarted agent refuses to adopt maps of another version.

use core::mem::{offset_of, size_of};

use bytemuck::{AnyBitPattern, Pod, Zeroable};

use crate::family::{Address, V4Addr, V6Addr};

/// Version of everything in this module and in [`crate::tables`].
pub const ABI_VERSION: u32 = 5;

/// IP protocol numbers (IANA) that the engine knows.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What a client dials (F1). With `protocol` and `port_be` zero it says who owns an address (V5).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey<A> {
    /// The frontend's address.
    pub addr: A,
    /// The frontend's port; 0 in an owner entry.
    pub port_be: u16,
    /// IP protocol number; 0 in an owner entry.
    pub protocol: u8,
    /// Zero.
    pub _pad: u8,
}

/// A run of entries in the slots table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SlotRange {
    /// Index of the first slot.
    pub base: u32,
    /// Number of slots; 0 = nobody answers.
    pub count: u32,
}

/// Bits of [`FrontendEntry::flags`].
pub mod frontend_flag {
    /// Source of packets from pods becomes the node's (A2).
    pub const MASQUERADE_POD: u32 = 1 << 0;
    /// Source of packets from this node becomes the node's masquerade address (A2).
    pub const MASQUERADE_NODE: u32 = 1 << 1;
    /// Source of packets from outside becomes the node's (A2).
    pub const MASQUERADE_EXTERNAL: u32 = 1 << 2;
    /// Packets from outside are dropped (F9).
    pub const DROP_EXTERNAL: u32 = 1 << 3;
    /// No backend exists anywhere: an empty slot range rejects (V1) instead of dropping (V2).
    pub const REJECT_EMPTY: u32 = 1 << 4;
    /// `sessionAffinity: ClientIP` (S4).
    pub const AFFINITY: u32 = 1 << 5;
    /// Only sources in the `source_ranges` table for this service are let in (V7).
    pub const SOURCE_RANGES: u32 = 1 << 6;
    /// An owner entry: the address is a ClusterIP, its other ports are rejected and it answers ping (V5).
    pub const OWNER: u32 = 1 << 7;
    /// The internal slots hold local backends only (V3): a remembered backend elsewhere is a miss.
    pub const INTERNAL_LOCAL: u32 = 1 << 8;
    /// The external slots hold local backends only (V4): a remembered backend elsewhere is a miss.
    pub const EXTERNAL_LOCAL: u32 = 1 << 9;
    /// All bits that need to know where the packet comes from.
    pub const NEEDS_SOURCE_CLASS: u32 =
        MASQUERADE_POD | MASQUERADE_NODE | MASQUERADE_EXTERNAL | DROP_EXTERNAL;
}

/// Values of [`FrontendEntry::algorithm`] (S1–S3).
pub mod algorithm {
    /// Backends in turn.
    pub const ROUND_ROBIN: u8 = 0;
    /// A slot drawn at random; with repeated slots: weighted.
    pub const RANDOM: u8 = 1;
    /// Hash of the 5-tuple over a Maglev table laid out in the slots.
    pub const MAGLEV: u8 = 2;
    /// The less busy of two slots drawn at random.
    pub const LEAST_CONNECTIONS: u8 = 3;
    /// Backends in turn over slots repeated by weight.
    pub const WEIGHTED: u8 = 4;
}

/// Values of [`FrontendEntry::kind`].
pub mod frontend_kind {
    /// A `clusterIPs[]` address.
    pub const CLUSTER_IP: u8 = 0;
    /// A node address with a `nodePort`.
    pub const NODE_PORT: u8 = 1;
    /// An `externalIPs[]` address.
    pub const EXTERNAL_IP: u8 = 2;
    /// A `status.loadBalancer.ingress[]` address.
    pub const LOAD_BALANCER: u8 = 3;
}

/// What stands behind a frontend. Replaced as a whole: a packet sees the old entry or the new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FrontendEntry {
    /// This frontend's own number: its round-robin counters.
    pub frontend_id: u32,
    /// The service port's number, shared by its frontends: affinity (S4), source ranges, names.
    pub service_id: u32,
    /// Bits of [`frontend_flag`].
    pub flags: u32,
    /// Seconds a client keeps its backend, with [`frontend_flag::AFFINITY`].
    pub affinity_timeout_s: u32,
    /// Who answers pods and this node.
    pub internal: SlotRange,
    /// Who answers everyone else.
    pub external: SlotRange,
    /// One of [`algorithm`].
    pub algorithm: u8,
    /// One of [`frontend_kind`].
    pub kind: u8,
    /// Zero.
    pub _pad: [u8; 2],
    /// Counts the changes of this entry.
    pub generation: u32,
}

/// Bits of [`BackendEntry::flags`].
pub mod backend_flag {
    /// The backend exists.
    pub const ALIVE: u16 = 1 << 0;
    /// The backend serves: its UDP flows stay (C4).
    pub const SERVING: u16 = 1 << 1;
    /// The backend runs on this node.
    pub const LOCAL: u16 = 1 << 2;
    /// The address is IPv6.
    pub const IPV6: u16 = 1 << 3;
    /// In a list: may be chosen for new flows and kept by affinity (S4).
    pub const USABLE: u16 = 1 << 4;
    /// Usable under Local policy only (B5 judges each list on its own): elsewhere a remembered one is a miss.
    pub const LOCAL_LIST_ONLY: u16 = 1 << 5;
}

/// Who answers: one (address, port) of one service port, at the index of its number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct BackendEntry {
    /// The address; IPv4 in the first word, the others zero.
    pub addr: [u32; 4],
    /// The port.
    pub port_be: u16,
    /// Bits of [`backend_flag`].
    pub flags: u16,
    /// Counts the uses of this number: a flow of an earlier use is not this backend's.
    pub generation: u32,
    /// The service port this backend serves.
    pub service_id: u32,
    /// Interface a local backend is behind, 0 = unknown (direct forwarding).
    pub ifindex: u32,
    /// Link-layer address of a local backend, zero = unknown (direct forwarding).
    pub mac: [u8; 6],
    /// Relative weight, 1 unless the service asks for more.
    pub weight: u16,
}

/// Packets that look like this …
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport_be: u16,
    /// Destination port.
    pub dport_be: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub _pad: u8,
    /// Zero. (Not one array of three: zeroing that is a call on BPF.)
    pub _pad2: u16,
}

/// Bits of [`FlowEntry::state`]; both directions of a flow hold the same bits (C2).
pub mod flow_state {
    /// The backend has answered.
    pub const REPLIED: u8 = 1 << 0;
    /// The client has answered the backend's answer: established.
    pub const CONFIRMED: u8 = 1 << 1;
    /// The client has sent FIN.
    pub const FIN_CLIENT: u8 = 1 << 2;
    /// The backend has sent FIN.
    pub const FIN_BACKEND: u8 = 1 << 3;
    /// Either side has sent RST.
    pub const RESET: u8 = 1 << 4;
}

/// Bits of [`FlowEntry::flags`].
pub mod flow_flag {
    /// This is the backend-to-client direction.
    pub const REPLY: u8 = 1 << 0;
    /// The client's address or port was changed too (A2, C6).
    pub const SNAT: u8 = 1 << 1;
    /// The entry of the other direction has been evicted: this one's next packet restores it (C1).
    pub const ALONE: u8 = 1 << 2;
}

/// … are rewritten like that (C1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowEntry<A> {
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// New source port.
    pub sport_be: u16,
    /// New destination port.
    pub dport_be: u16,
    /// One's-complement sum to add to a checksum for the change of addresses.
    pub addr_delta: u16,
    /// One's-complement sum to add to a checksum for the change of ports.
    pub port_delta: u16,
    /// Index into backends and backend statistics.
    pub backend_id: u32,
    /// [`BackendEntry::generation`] when the flow began.
    pub backend_generation: u32,
    /// The frontend the flow came through.
    pub frontend_id: u32,
    /// Clock of the last packet, in ticks (see [`Config::ticks_per_second`]), refreshed about once a second.
    pub last_seen: u32,
    /// Bits of [`flow_state`].
    pub state: u8,
    /// Bits of [`flow_flag`].
    pub flags: u8,
    /// Zero.
    pub _pad: u16,
}

/// Entries in a set of the flow table: four probes at most, on neighbouring cache lines.
pub const WAYS: usize = 4;

/// A place for one entry of the flow table: one cache line of 64 bytes for IPv4, two for IPv6.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct FlowWay<A> {
    /// Whose place it is; all zero = nobody's.
    pub key: FlowKey<A>,
    /// In the first way: 1 while somebody changes the set.
    pub lock: u32,
    /// Odd while somebody writes this way.
    pub version: u32,
    /// In the first way: what is in all of them, see [`crate::engine::flow_tags`].
    pub tags: u32,
    /// The entry.
    pub entry: FlowEntry<A>,
}

/// The entries whose keys share a hash: an element of the flow table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FlowSet<A> {
    /// The places, in no order.
    pub ways: [FlowWay<A>; WAYS],
}

// SAFETY: plain integers, for which zero is a value.
unsafe impl<A: Address> Zeroable for FlowWay<A> {}
// SAFETY: as above.
unsafe impl<A: Address> Zeroable for FlowSet<A> {}
// SAFETY: plain integers, for which any bytes are a value. (Padding is only read over.)
unsafe impl<A: Address> AnyBitPattern for FlowWay<A> {}
// SAFETY: as above.
unsafe impl<A: Address> AnyBitPattern for FlowSet<A> {}

/// A remembered choice (S4): who …
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct AffinityKey {
    /// Client address, IPv4 as `::ffff:a.b.c.d`.
    pub client: [u32; 4],
    /// The service port.
    pub service_id: u32,
}

/// … goes where, since when.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AffinityEntry {
    /// The backend chosen.
    pub backend_id: u32,
    /// [`BackendEntry::generation`] then.
    pub backend_generation: u32,
    /// Clock of the client's last new connection, in ticks.
    pub last_seen: u32,
}

/// A fragmented datagram (A5); IPv4 addresses widened.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct FragmentKey {
    /// Source address.
    pub src: [u32; 4],
    /// Destination address.
    pub dst: [u32; 4],
    /// Identification field, as in the packet.
    pub id_be: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// The ports its first fragment carried.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FragmentEntry {
    /// Source port.
    pub sport_be: u16,
    /// Destination port.
    pub dport_be: u16,
    /// Clock when the first fragment came, in ticks.
    pub last_seen: u32,
}

/// Values of [`SocketKey::kind`].
pub mod socket_kind {
    /// The socket is connected; address and port are zero.
    pub const CONNECTED: u16 = 0;
    /// The socket sends datagrams to this frontend, unconnected.
    pub const TO_FRONTEND: u16 = 1;
    /// The socket has sent datagrams to a frontend, for which this backend answers.
    pub const FROM_BACKEND: u16 = 2;
    /// The socket's datagrams are left to the packet path; address and port are zero.
    pub const LEFT: u16 = 3;
}

/// What a socket has to do with a Service …
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct SocketKey {
    /// The socket's cookie, never given twice (`SO_COOKIE`).
    pub cookie: u64,
    /// The address that the socket sees or dials, IPv4 as `::ffff:a.b.c.d`.
    pub addr: [u32; 4],
    /// The port to it.
    pub port_be: u16,
    /// One of [`socket_kind`].
    pub kind: u16,
    /// Zero.
    pub _pad: u32,
}

/// … and who stands for whom. One cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SocketEntry {
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// The frontend dialled, IPv4 as `::ffff:a.b.c.d`.
    pub frontend: [u32; 4],
    /// The backend in its place.
    pub backend: [u32; 4],
    /// The frontend's port.
    pub frontend_port_be: u16,
    /// The backend's port.
    pub backend_port_be: u16,
    /// The backend's number.
    pub backend_id: u32,
    /// [`BackendEntry::generation`] when it was chosen.
    pub backend_generation: u32,
    /// Clock of the last datagram to the frontend, or of the connection's beginning, in ticks.
    pub last_seen: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub _pad: [u8; 7],
}

/// What the agent knows of a network namespace, by its cookie (`SO_NETNS_COOKIE`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct NetnsEntry {
    /// Bits of [`netns_flag`].
    pub flags: u32,
    /// Source of what its sockets send over IPv4, 0 = not known.
    pub v4: u32,
    /// Source of what its sockets send over IPv6, zero = not known.
    pub v6: [u32; 4],
}

/// Bits of [`NetnsEntry::flags`].
pub mod netns_flag {
    /// The agent's own: its sockets are this node's.
    pub const NODE: u32 = 1 << 0;
    /// The user wants its sockets left alone.
    pub const EXCLUDED: u32 = 1 << 1;
}

/// Classes of addresses, the value of the `classes` table.
pub mod address_class {
    /// Inside a pod range.
    pub const POD: u32 = 1 << 0;
    /// An address of this node.
    pub const NODE: u32 = 1 << 1;
    /// Inside a service range (V6).
    pub const SERVICE_CIDR: u32 = 1 << 2;
}

/// Key of the longest-prefix table `classes`; IPv4 addresses widened, their prefix length counted from 96.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct ClassKey {
    /// Significant bits of `addr`.
    pub prefix_len: u32,
    /// The address.
    pub addr: [u32; 4],
}

/// Key of the longest-prefix table `source_ranges` (V7).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct SourceRangeKey {
    /// Significant bits of what follows: 32 for `service_id`, then the address's.
    pub prefix_len: u32,
    /// The service port, in network byte order so that the trie sees whole bytes.
    pub service_id_be: u32,
    /// The address; IPv4 widened.
    pub addr: [u32; 4],
}

/// Packets and bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes on the link, headers included.
    pub bytes: u64,
}

/// What one backend of one service port has seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct BackendStats {
    /// Client to backend.
    pub to_backend: Counter,
    /// Backend to client.
    pub from_backend: Counter,
    /// Flows begun.
    pub flows_opened: u64,
    /// Flows seen to end (FIN both ways or RST).
    pub flows_closed: u64,
}

/// An interface the programs are attached to, at the index of its ifindex.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct IfaceEntry {
    /// Its place in the per-interface counters; 0 = shared by interfaces without one.
    pub slot: u16,
    /// Bits of [`iface_flag`], and one of [`forwarding_reason`].
    pub flags: u16,
    /// Its name, zero-padded: readers of the maps may be in another network namespace.
    pub name: [u8; 16],
    /// Its hardware address; zero when it has none of six bytes.
    pub mac: [u8; 6],
    /// 1 once packets with finished transport checksums have come from a veth's other end: the programs' own note. One that
    /// looks unfinished is looked at more closely then.
    pub finished: u16,
}

impl IfaceEntry {
    /// An entry for the interface `name`, which the kernel keeps below 16 bytes.
    pub fn new(name: &str, slot: u16, flags: u16) -> Self {
        let mut entry = Self { slot, flags, name: [0; 16], mac: [0; 6], finished: 0 };
        for (to, from) in entry.name.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        entry
    }

    /// The same with this hardware address.
    #[must_use]
    pub const fn with_mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = mac;
        self
    }

    /// The interface's name; empty when it is not known.
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        core::str::from_utf8(&self.name[..end]).unwrap_or("")
    }
}

/// Bits of [`IfaceEntry::flags`].
pub mod iface_flag {
    /// Packets come from outside the cluster (F9).
    pub const EXTERNAL: u16 = 1 << 0;
    /// A network card: what comes in has complete transport checksums, and what XDP sends back by the way it came goes
    /// out (`XDP_TX`).
    pub const CARD: u16 = 1 << 1;
    /// What is translated here goes to its next hop at once, past the host's stack (direct forwarding).
    pub const DIRECT: u16 = 1 << 2;
    /// A veth whose other end is in another network namespace: packets may be put in at that end (`bpf_redirect_peer`).
    pub const PEER: u16 = 1 << 3;
    /// Packets in several buffers may be redirected to this device (`NETDEV_XDP_ACT_NDO_XMIT_SG`).
    pub const BUFFERS: u16 = 1 << 4;
}

/// Why an interface has [`iface_flag::DIRECT`] or not, in the upper byte of [`IfaceEntry::flags`]: for readers of the maps.
pub mod forwarding_reason {
    /// Where it is.
    pub const MASK: u16 = 0xff00;
    /// It was asked for.
    pub const ASKED: u16 = 1 << 8;
    /// No rules of the host see forwarded packets.
    pub const NO_RULES: u16 = 2 << 8;
    /// Rules of the host see forwarded packets.
    pub const RULES: u16 = 3 << 8;
    /// The host's rules could not be looked at.
    pub const UNSEEN: u16 = 4 << 8;
    /// The program is at a hook that leaves forwarding to the host.
    pub const HOOK: u16 = 5 << 8;
    /// At XDP on a device made of software, where it was not asked for.
    pub const SOFTWARE: u16 = 6 << 8;
    /// At XDP below other devices, whose packets these may be.
    pub const STACKED: u16 = 7 << 8;
    /// At XDP on a kernel that does not say which devices take redirected packets.
    pub const UNTOLD: u16 = 8 << 8;
}

/// A device in the map of devices for redirects, as the kernel has it (`struct bpf_devmap_val`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct DeviceEntry {
    /// Its index.
    pub ifindex: u32,
    /// Descriptor of a program to run there, 0 = none.
    pub program: u32,
}

/// Identity of what is pinned, the only entry of the `meta` table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Meta {
    /// [`ABI_VERSION`] of the writer.
    pub abi_version: u32,
    /// 1 once the first full synchronisation is in the maps.
    pub synced: u32,
    /// Clock ticks in a second, for readers of `last_seen`.
    pub ticks_per_second: u32,
    /// Process id of the agent that wrote last.
    pub agent_pid: u32,
    /// Secret of the flow table's hash, drawn when the maps were made: see [`Config::flow_seed`].
    pub flow_seed: u32,
}

/// A service port's name, for readers of the maps. Texts are UTF-8, zero-padded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ServiceName {
    /// Namespace (at most 63 bytes).
    pub namespace: [u8; 64],
    /// Service name (at most 63 bytes).
    pub name: [u8; 64],
    /// Port name (at most 15 bytes), empty when unnamed.
    pub port: [u8; 16],
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub _pad: [u8; 6],
}

/// An address range for a quick look: what is inside has `addr` where `mask` has ones. All zero: everything is inside.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RangeV4 {
    /// The address, in network byte order; zero where `mask` is.
    pub addr: u32,
    /// Ones in front, in network byte order.
    pub mask: u32,
}

/// The same for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RangeV6 {
    /// The address, in network byte order; zero where `mask` is.
    pub addr: [u32; 4],
    /// Ones in front, in network byte order.
    pub mask: [u32; 4],
}

/// Settings that may change while the programs run, the only entry of the `settings` table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// Source of masqueraded IPv4 packets, 0 = none (then such packets are dropped).
    pub node_v4: u32,
    /// Source of masqueraded IPv6 packets, zero = none.
    pub node_v6: [u32; 4],
    /// First source port for masqueraded flows, machine byte order.
    pub snat_port_first: u16,
    /// Number of source ports from there on.
    pub snat_port_count: u16,
    /// Bits of [`settings_flag`].
    pub flags: u32,
    /// Ranges that hold all service ranges; the classes say exactly.
    pub service_v4: [RangeV4; 2],
    /// The same for IPv6.
    pub service_v6: [RangeV6; 2],
}

/// Bits of [`Settings::flags`].
pub mod settings_flag {
    /// Leave ICMP echo to ClusterIPs alone (`--vip-ping=off`, V5).
    pub const NO_VIP_PING: u32 = 1 << 0;
}

/// Constants that the loader writes into the programs' read-only data before loading them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// Clock ticks in a second (the kernel's `CONFIG_HZ`): `last_seen` counts in ticks of `jiffies`.
    pub ticks_per_second: u32,
    /// Lifetime in ticks of a TCP or SCTP flow not yet established.
    pub lifetime_opening: u32,
    /// Lifetime in ticks of an established TCP or SCTP flow.
    pub lifetime_established: u32,
    /// Lifetime in ticks of a TCP or SCTP flow that is closing.
    pub lifetime_closing: u32,
    /// Lifetime in ticks of a UDP flow that has not been answered.
    pub lifetime_udp: u32,
    /// Lifetime in ticks of a UDP flow that has been answered.
    pub lifetime_udp_replied: u32,
    /// Lifetime in ticks of what is known about a fragmented datagram.
    pub lifetime_fragment: u32,
    /// Bits of [`config_flag`].
    pub flags: u32,
    /// A power of two of ticks, about half a second to a second: how often a flow's two entries are brought together.
    pub refresh_ticks: u32,
    /// Sets of the IPv4 flow table less one; their number is a power of two.
    pub flow_mask_v4: u32,
    /// The same for IPv6.
    pub flow_mask_v6: u32,
    /// Secret of the flow table's hash; the same as long as the table lives.
    pub flow_seed: u32,
}

/// Bits of [`Config::flags`].
pub mod config_flag {
    /// Log each new flow with aya-log.
    pub const TRACE: u32 = 1 << 0;
    /// The kernel's checksum helper knows `BPF_F_IPV6` (6.16 and stable releases with the fix).
    pub const CSUM_IPV6: u32 = 1 << 1;
    /// Programs may say with which error a call of a socket is to fail (`bpf_set_retval`, 5.18).
    pub const SET_RETVAL: u32 = 1 << 2;
    /// Atomic instructions return nothing (kernels before 5.12): locks are taken in `LOCKS`, and turns of round robin are counted
    /// and read in two steps.
    pub const NO_FETCH: u32 = 1 << 3;
}

impl Config {
    /// The lifetimes of SEMANTICS rule C2 for a clock of `ticks_per_second`.
    pub const fn with_ticks_per_second(ticks_per_second: u32) -> Self {
        Self {
            ticks_per_second,
            lifetime_opening: 60 * ticks_per_second,
            lifetime_established: 8000 * ticks_per_second,
            lifetime_closing: 10 * ticks_per_second,
            lifetime_udp: 30 * ticks_per_second,
            lifetime_udp_replied: 120 * ticks_per_second,
            // RFC 791 and RFC 8200 reassembly timers: 30 s (Linux) to 60 s.
            lifetime_fragment: 30 * ticks_per_second,
            flags: 0,
            refresh_ticks: if ticks_per_second < 2 { 1 } else { 1 << ticks_per_second.ilog2() },
            flow_mask_v4: 0,
            flow_mask_v6: 0,
            flow_seed: 0,
        }
    }
}

macro_rules! pod_for_families {
    ($($type:ident: $v4:literal, $v6:literal;)*) => {$(
        // SAFETY: `repr(C)`, all fields are plain integers, and the size equals the sum of the fields'
        // sizes (asserted below), so there is no implicit padding.
        unsafe impl<A: Address> Zeroable for $type<A> {}
        // SAFETY: as above.
        unsafe impl<A: Address> Pod for $type<A> {}
        const _: () = assert!(size_of::<$type<V4Addr>>() == $v4 && size_of::<$type<V6Addr>>() == $v6);
    )*};
}

pod_for_families! {
    FrontendKey: 8, 20;
    FlowKey: 16, 40;
    FlowEntry: 36, 60;
}

const _: () = {
    assert!(size_of::<FrontendEntry>() == 40);
    assert!(size_of::<BackendEntry>() == 40);
    assert!(offset_of!(BackendEntry, generation) == 20);
    assert!(size_of::<AffinityKey>() == 20 && size_of::<AffinityEntry>() == 12);
    assert!(size_of::<SocketKey>() == 32 && size_of::<SocketEntry>() == 64);
    assert!(size_of::<NetnsEntry>() == 24);
    assert!(size_of::<FragmentKey>() == 40 && size_of::<FragmentEntry>() == 8);
    assert!(size_of::<ClassKey>() == 20 && size_of::<SourceRangeKey>() == 24);
    assert!(size_of::<Counter>() == 16 && size_of::<BackendStats>() == 48);
    assert!(size_of::<IfaceEntry>() == 28 && size_of::<Meta>() == 20);
    assert!(size_of::<FlowSet<V4Addr>>() == 256 && size_of::<FlowSet<V6Addr>>() == 512);
    assert!(offset_of!(FlowWay<V4Addr>, key) % 8 == 0 && offset_of!(FlowWay<V6Addr>, key) % 8 == 0);
    assert!(size_of::<ServiceName>() == 152 && size_of::<Settings>() == 108 && size_of::<Config>() == 48);
};
