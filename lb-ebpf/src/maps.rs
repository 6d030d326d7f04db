//! The maps, as `lb_common::tables` lists them. Sizes here are the defaults; the loader sets the configured ones.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray};
use lb_common::abi::{
    AffinityEntry, AffinityKey, BackendEntry, BackendStats, Counter, FlowSet, FragmentEntry, FragmentKey,
    FrontendEntry, FrontendKey, IfaceEntry, Meta, NetnsEntry, ServiceName, Settings, SocketEntry, SocketKey,
};
use lb_common::family::{V4Addr, V6Addr};
use lb_common::tables::Table;

/// Entries appear and go under `RCU`, and memory is taken as needed.
const BPF_F_NO_PREALLOC: u32 = 1;

/// The first element begins at a page, see `lb_common::tables::Kind::PageArray`.
const BPF_F_MMAPABLE: u32 = 1 << 10;

const fn size(table: Table) -> u32 {
    table.spec().max_entries
}

#[map]
pub static FRONTENDS_V4: HashMap<FrontendKey<V4Addr>, FrontendEntry> =
    HashMap::with_max_entries(size(Table::FrontendsV4), BPF_F_NO_PREALLOC);
#[map]
pub static FRONTENDS_V6: HashMap<FrontendKey<V6Addr>, FrontendEntry> =
    HashMap::with_max_entries(size(Table::FrontendsV6), BPF_F_NO_PREALLOC);
#[map]
pub static SLOTS: Array<u32> = Array::with_max_entries(size(Table::Slots), 0);
#[map]
pub static BACKENDS: Array<BackendEntry> = Array::with_max_entries(size(Table::Backends), 0);
#[map]
pub static SERVICE_NAMES: HashMap<u32, ServiceName> =
    HashMap::with_max_entries(size(Table::ServiceNames), BPF_F_NO_PREALLOC);
#[map]
pub static CLASSES: LpmTrie<[u32; 4], u32> =
    LpmTrie::with_max_entries(size(Table::Classes), BPF_F_NO_PREALLOC);
#[map]
pub static FILTER: Array<u64> = Array::with_max_entries(size(Table::Filter), 0);
#[map]
pub static SOURCE_RANGES: LpmTrie<[u32; 5], u32> =
    LpmTrie::with_max_entries(size(Table::SourceRanges), BPF_F_NO_PREALLOC);
#[map]
pub static IFACES: Array<IfaceEntry> = Array::with_max_entries(size(Table::Ifaces), 0);
#[map]
pub static DEVICES: DevMapHash = DevMapHash::with_max_entries(size(Table::Devices), 0);
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(size(Table::Settings), 0);
#[map]
pub static META: Array<Meta> = Array::with_max_entries(size(Table::Meta), 0);
#[map]
pub static FLOWS_V4: Array<FlowSet<V4Addr>> = Array::with_max_entries(size(Table::FlowsV4), BPF_F_MMAPABLE);
#[map]
pub static FLOWS_V6: Array<FlowSet<V6Addr>> = Array::with_max_entries(size(Table::FlowsV6), BPF_F_MMAPABLE);
#[map]
pub static LOCKS: HashMap<u32, u32> = HashMap::with_max_entries(size(Table::Locks), BPF_F_NO_PREALLOC);
#[map]
pub static AFFINITY: LruHashMap<AffinityKey, AffinityEntry> =
    LruHashMap::with_max_entries(size(Table::Affinity), 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> =
    LruHashMap::with_max_entries(size(Table::Fragments), 0);
#[map]
pub static NETNS: HashMap<u64, NetnsEntry> = HashMap::with_max_entries(size(Table::Netns), BPF_F_NO_PREALLOC);
#[map]
pub static SOCKETS: LruHashMap<SocketKey, SocketEntry> =
    LruHashMap::with_max_entries(size(Table::Sockets), 0);
#[map]
pub static TURNS: Array<u64> = Array::with_max_entries(size(Table::Turns), 0);
#[map]
pub static OPEN_FLOWS: Array<u64> = Array::with_max_entries(size(Table::OpenFlows), 0);
#[map]
pub static BACKEND_STATS: PerCpuArray<BackendStats> =
    PerCpuArray::with_max_entries(size(Table::BackendStats), 0);
#[map]
pub static IFACE_STATS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(size(Table::IfaceStats), 0);
