//! The filter: which addresses packets may not be turned away from.
//!
//! Bits are set by every plan that needs them, before anything refers to an address. They stay when a frontend or a backend
//! goes, for the sake of its flows, and are cleared by [`Planner::tidy_filter`] once no flow needs them.

use std::net::IpAddr;

use lb_common::abi::{FlowEntry, FlowKey, backend_flag, flow_flag};
use lb_common::engine::filter::{WORDS, cell, place};
use lb_common::family::{Address, V4Addr, V6Addr};

use super::op::{Op, Plan};
use super::planner::{Phase, Planner, Uncommitted};
use super::words::{v4_word, v6_words};
use super::{SyncError, apply, dump};
use crate::maps::{MapError, MapStore, scan_flows};

impl Planner {
    /// Sees to it that packets to or from an address get past the filter, before anything refers to it.
    pub(super) fn let_through(&mut self, addr: IpAddr, bits: u64) {
        let (word, shift) = place_of(addr);
        let (before, wanted) = (self.tables.filter_word(word), bits << shift);
        if before & wanted != wanted {
            self.emit(Phase::Make, Op::Filter(word, before | wanted));
        }
    }

    /// Clears the bits that neither tables nor flows need any more; how many words have changed. To be called now and then, some
    /// time after the last change: a flow that begins meanwhile belongs to what is in the tables.
    ///
    /// # Errors
    /// [`SyncError`]; then the filter lets more through than it must.
    pub fn tidy_filter(&mut self, store: &mut dyn MapStore) -> Result<usize, SyncError> {
        if self.is_uncommitted() {
            return Err(Uncommitted.into());
        }
        let wanted = self.wanted_words(store).map_err(SyncError::Adopt)?;
        for (word, wanted) in (0_u32..).zip(wanted) {
            if self.tables.filter_word(word) != wanted {
                self.emit(Phase::Make, Op::Filter(word, wanted));
            }
        }
        let plan: Plan = self.finish();
        let applied = apply(store, &plan).map_err(SyncError::Apply)?;
        self.commit();
        Ok(applied.entries)
    }

    fn wanted_words(&self, store: &dyn MapStore) -> Result<Vec<u64>, MapError> {
        let mut words = vec![0; WORDS as usize];
        for name in self.tables.frontends.keys() {
            let (word, shift) = place_of(name.addr);
            words[word as usize] |= cell::DIALLED << shift;
        }
        for entry in self.tables.backends.iter().filter(|entry| entry.flags & backend_flag::ALIVE != 0) {
            let (word, shift) = place_of(dump::backend_addr(entry).ip());
            words[word as usize] |= cell::ANSWERS << shift;
        }
        scan_flows::<V4Addr>(store, &mut |key, entry| add_flow(&mut words, key, entry))?;
        scan_flows::<V6Addr>(store, &mut |key, entry| add_flow(&mut words, key, entry))?;
        Ok(words)
    }
}

fn place_of(addr: IpAddr) -> (u32, u32) {
    match addr {
        IpAddr::V4(addr) => place(v4_word(addr)),
        IpAddr::V6(addr) => place(v6_words(addr)),
    }
}

/// Either direction's entry names both addresses: should one be evicted, the other's next packet restores it.
fn add_flow<A: Address>(words: &mut [u64], key: &FlowKey<A>, entry: &FlowEntry<A>) {
    let (dialled, answers) =
        if entry.flags & flow_flag::REPLY == 0 { (key.dst, entry.dst) } else { (entry.src, key.src) };
    for (addr, bit) in [(dialled, cell::DIALLED), (answers, cell::ANSWERS)] {
        let (word, shift) = place(addr);
        words[word as usize] |= bit << shift;
    }
}
