//! Which backend gets a new flow (S1–S4).

use super::state;
use super::tables::Tables;
use crate::abi::{
    AffinityEntry, AffinityKey, BackendEntry, FlowKey, FrontendEntry, SlotRange, algorithm, backend_flag,
    frontend_flag,
};
use crate::family::Address;

/// A backend and its number.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<B> {
    /// Its number.
    pub id: u32,
    /// What it is.
    pub backend: B,
}

/// A backend of these tables.
pub type ChosenOf<T> = Chosen<<T as Tables>::Ref<BackendEntry>>;

/// 32 bits of a 5-tuple, the same on every node.
#[inline(always)]
pub fn tuple_hash<A: Address>(key: &FlowKey<A>) -> u32 {
    let mut hash = 0x9e37_79b9 ^ u32::from(key.protocol);
    for i in 0..A::WORDS {
        hash = mix(hash, u32::from_be(key.src.word(i)));
        hash = mix(hash, u32::from_be(key.dst.word(i)));
    }
    mix(hash, (u32::from(u16::from_be(key.sport_be)) << 16) | u32::from(u16::from_be(key.dport_be)))
}

/// One round of multiply-and-rotate, then the finalizer of MurmurHash3 (public domain, A. Appleby).
#[inline(always)]
fn mix(hash: u32, word: u32) -> u32 {
    let mut h = (hash ^ word).wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Chooses from `range`, which is not empty. `external` tells which of the frontend's lists it is.
#[inline(always)]
pub fn choose<A: Address, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    frontend: &FrontendEntry,
    range: SlotRange,
    external: bool,
) -> Option<ChosenOf<T>> {
    let with_affinity = frontend.flags & frontend_flag::AFFINITY != 0;
    if with_affinity && let Some(chosen) = remembered(tables, key, frontend, external) {
        remember(tables, key, frontend, &chosen);
        return Some(chosen);
    }
    let index = match frontend.algorithm {
        algorithm::MAGLEV => tuple_hash(key),
        algorithm::RANDOM => tables.random(),
        algorithm::LEAST_CONNECTIONS => {
            // The power of two choices (Mitzenmacher 2001): nearly as even as looking at all, at the cost of two.
            let (a, b) = (tables.random() % range.count, tables.random() % range.count);
            let (in_a, in_b) = (tables.slot(range.base + a)?, tables.slot(range.base + b)?);
            if tables.open_flows(in_a) <= tables.open_flows(in_b) { a } else { b }
        }
        _ => {
            // Both lists take turns on one counter when they are the same list.
            let own = external && frontend.external != frontend.internal;
            tables.take_turn(frontend.frontend_id * 2 + u32::from(own))
        }
    };
    let id = tables.slot(range.base + index % range.count)?;
    let chosen = Chosen { id, backend: tables.backend(id)? };
    if with_affinity {
        remember(tables, key, frontend, &chosen);
    }
    Some(chosen)
}

fn affinity_key<A: Address>(key: &FlowKey<A>, frontend: &FrontendEntry) -> AffinityKey {
    AffinityKey { client: key.src.widen(), service_id: frontend.service_id }
}

/// The backend this client had, if it is still usable (S4).
#[inline(always)]
fn remembered<A: Address, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    frontend: &FrontendEntry,
    external: bool,
) -> Option<ChosenOf<T>> {
    let entry = tables.affinity(&affinity_key(key, frontend))?;
    let timeout = frontend.affinity_timeout_s.saturating_mul(tables.config().ticks_per_second);
    if state::elapsed(tables.now(), entry.last_seen) > timeout {
        return None;
    }
    let backend = tables.backend(entry.backend_id)?;
    let local_only = if external { frontend_flag::EXTERNAL_LOCAL } else { frontend_flag::INTERNAL_LOCAL };
    // A usable local backend is in the local list; one that is in no other must not be kept under Cluster policy.
    let in_list = if frontend.flags & local_only != 0 {
        backend.flags & backend_flag::LOCAL != 0
    } else {
        backend.flags & backend_flag::LOCAL_LIST_ONLY == 0
    };
    let usable = backend.flags & backend_flag::USABLE != 0 && backend.generation == entry.backend_generation;
    (usable && in_list).then_some(Chosen { id: entry.backend_id, backend })
}

#[inline(always)]
fn remember<A: Address, T: Tables>(
    tables: &T,
    key: &FlowKey<A>,
    frontend: &FrontendEntry,
    chosen: &ChosenOf<T>,
) {
    let entry = AffinityEntry {
        backend_id: chosen.id,
        backend_generation: chosen.backend.generation,
        last_seen: tables.now(),
    };
    tables.set_affinity(&affinity_key(key, frontend), &entry);
}
