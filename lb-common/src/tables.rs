//! The list of maps: one place for names, kinds, sizes and writers.
//!
//! The loader checks pinned maps against it (the kernel compares nothing when a pin is reused), the in-memory and
//! kernel stores take their shapes from it, and `docs/architecture.md` prints it.

use core::mem::size_of;

use crate::abi::{
    AffinityEntry, AffinityKey, BackendEntry, BackendStats, ClassKey, Counter, DeviceEntry, FlowSet,
    FragmentEntry, FragmentKey, FrontendEntry, FrontendKey, IfaceEntry, Meta, NetnsEntry, ServiceName,
    Settings, SocketEntry, SocketKey, SourceRangeKey, WAYS,
};
use crate::engine::filter;
use crate::family::{V4Addr, V6Addr};
use crate::reason::REASON_SLOTS;

/// Places for counters: one for each interface, one that all others share, one for sockets.
pub const IFACE_SLOTS: u32 = 256;
/// Where calls of sockets are counted; interfaces have the places between 0, which others share, and this one.
pub const SOCKET_SLOT: u16 = IFACE_SLOTS as u16 - 1;
/// Highest interface index with an entry of its own; interfaces above count under slot 0.
pub const MAX_IFINDEX: u32 = 65_535;

/// How a map is organised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_MAP_TYPE_ARRAY`
    Array,
    /// `BPF_MAP_TYPE_ARRAY` with `BPF_F_MMAPABLE` (kernel 5.5), for its first element to begin at a page: entries that are
    /// as long as cache lines then lie in whole ones.
    PageArray,
    /// `BPF_MAP_TYPE_HASH`
    Hash,
    /// `BPF_MAP_TYPE_LRU_HASH`
    LruHash,
    /// `BPF_MAP_TYPE_LPM_TRIE`
    LpmTrie,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`
    PerCpuArray,
    /// `BPF_MAP_TYPE_DEVMAP_HASH` (kernel 5.4). The kernel takes out devices that go.
    DeviceHash,
}

impl Kind {
    /// Whether keys are indexes, and every entry is there from the beginning.
    pub const fn is_array(self) -> bool {
        matches!(self, Self::Array | Self::PageArray | Self::PerCpuArray)
    }
}

/// Who writes to a map once it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The agent, through plans.
    Agent,
    /// The kernel programs.
    Kernel,
}

/// Shape of one map.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Which map.
    pub table: Table,
    /// Name in the object file and in the pin directory; at most 15 bytes, so that the kernel keeps it whole.
    pub name: &'static str,
    /// How it is organised.
    pub kind: Kind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value (of one CPU's value for per-CPU maps).
    pub value_size: u32,
    /// Entries unless configured otherwise.
    pub max_entries: u32,
    /// Who writes.
    pub writer: Writer,
    /// What it is for, one line.
    pub purpose: &'static str,
}

macro_rules! tables {
    ($($variant:ident $name:literal $kind:ident $key:ty => $value:ty, $max:expr, $writer:ident, $purpose:literal;)*) => {
        /// A map of the dataplane.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Table {
            $(#[doc = $purpose] $variant,)*
        }

        /// All maps, in the order of [`Table`].
        pub const SPECS: &[Spec] = &[
            $(Spec {
                table: Table::$variant,
                name: $name,
                kind: Kind::$kind,
                key_size: size_of::<$key>() as u32,
                value_size: size_of::<$value>() as u32,
                max_entries: $max,
                writer: Writer::$writer,
                purpose: $purpose,
            },)*
        ];
    };
}

tables! {
    FrontendsV4 "FRONTENDS_V4" Hash FrontendKey<V4Addr> => FrontendEntry, 65_536, Agent,
        "IPv4 frontends, and owners of ClusterIPs";
    FrontendsV6 "FRONTENDS_V6" Hash FrontendKey<V6Addr> => FrontendEntry, 65_536, Agent,
        "IPv6 frontends, and owners of ClusterIPs";
    Slots "SLOTS" Array u32 => u32, 1_048_576, Agent,
        "backend numbers, one run of slots for each list of a frontend";
    Backends "BACKENDS" Array u32 => BackendEntry, 262_144, Agent,
        "backend number to address and state";
    ServiceNames "SERVICE_NAMES" Hash u32 => ServiceName, 65_536, Agent,
        "service number to name, for people";
    Classes "CLASSES" LpmTrie ClassKey => u32, 4_096, Agent,
        "pod ranges, node addresses, service ranges";
    Filter "FILTER" Array u32 => u64, filter::WORDS, Agent,
        "which addresses are dialled or answer, two bits for each hash of an address";
    SourceRanges "SOURCE_RANGES" LpmTrie SourceRangeKey => u32, 65_536, Agent,
        "loadBalancerSourceRanges of each service";
    Ifaces "IFACES" Array u32 => IfaceEntry, MAX_IFINDEX + 1, Agent,
        "interface index to counter slot and flags";
    Devices "DEVICES" DeviceHash u32 => DeviceEntry, 4_096, Agent,
        "devices that packets may be redirected to at XDP";
    Settings "SETTINGS" Array u32 => Settings, 1, Agent,
        "node addresses and switches";
    Meta "META" Array u32 => Meta, 1, Agent,
        "version and state of what is pinned";
    FlowsV4 "FLOWS_V4" PageArray u32 => FlowSet<V4Addr>, 65_536, Kernel,
        "IPv4 flows in sets of four, an entry for each direction";
    FlowsV6 "FLOWS_V6" PageArray u32 => FlowSet<V6Addr>, 65_536, Kernel,
        "IPv6 flows in sets of four, an entry for each direction";
    Locks "LOCKS" Hash u32 => u32, 1_024, Kernel,
        "sets of the flow tables that are being written, on kernels before 5.12";
    Affinity "AFFINITY" LruHash AffinityKey => AffinityEntry, 65_536, Kernel,
        "remembered backends of clients";
    Fragments "FRAGMENTS" LruHash FragmentKey => FragmentEntry, 8_192, Kernel,
        "ports of fragmented datagrams";
    Netns "NETNS" Hash u64 => NetnsEntry, 4_096, Agent,
        "network namespaces whose sockets are treated apart, or have a known address";
    Sockets "SOCKETS" LruHash SocketKey => SocketEntry, 65_536, Kernel,
        "sockets that dialled a frontend: who stands for whom";
    Turns "TURNS" Array u32 => u64, 131_072, Kernel,
        "round-robin counters, two for each frontend";
    OpenFlows "OPEN_FLOWS" Array u32 => u64, 262_144, Kernel,
        "open flows of each backend, for least-connections";
    BackendStats "BACKEND_STATS" PerCpuArray u32 => BackendStats, 262_144, Kernel,
        "packets, bytes and flows of each backend";
    IfaceStats "IFACE_STATS" PerCpuArray u32 => Counter, IFACE_SLOTS * REASON_SLOTS, Kernel,
        "packets and bytes by interface slot and reason";
}

impl Spec {
    /// How many things `elements` elements have room for: an element of a flow table holds several.
    pub const fn entries(&self, elements: u32) -> u32 {
        match self.kind {
            Kind::PageArray => elements.saturating_mul(WAYS as u32),
            _ => elements,
        }
    }
}

impl Table {
    /// The shape of this map.
    pub const fn spec(self) -> &'static Spec {
        &SPECS[self as usize]
    }
}
