//! `tables`: what the kernel's hash tables would cost as the flow table. See docs/adr/0001-flow-table.md.

mod program;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use lb_common::abi::{FlowEntry, FlowKey};
use lb_common::family::V4Addr;
use lb_common::tables::Kind as MapKind;
use lb_tests::rows::net::Net;
use lb_userspace::maps::KernelMap;
use lb_userspace::model::desired::Protocol;
use serde::Serialize;

use crate::packet::case::{Case, FLOWS};
use crate::packet::driver::{Driver, Headers, noop};
use crate::packet::hook::Hook;
use crate::packet::world::{FLOW_SETS, Kind};
use crate::packet::{IDLE_PACKETS, NEW_FLOWS, on_one_cpu, timed};
use crate::sample::{Random, Spread};

/// Entries: as many as the flow table of `packet` has.
const ENTRIES: u32 = FLOW_SETS * lb_common::abi::WAYS as u32;
/// Least packets of a sample.
const PACKETS: u32 = 65_536;
const HOOK: Hook = Hook::Xdp;
const TCP4: Kind = Kind { net: Net::V4, protocol: Protocol::Tcp };

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds.
    pub(crate) rounds: usize,
    /// Seed of every order.
    pub(crate) seed: u64,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Rounds.
    pub(crate) rounds: usize,
    /// The cases.
    pub(crate) cases: Vec<Timed>,
}

/// What a packet costs with the one table and with the other, ns; the harness's cost is subtracted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Timed {
    /// `find-N`: one search among N; `add-two`: two insertions.
    pub(crate) case: String,
    /// `BPF_MAP_TYPE_HASH`.
    pub(crate) hash_ns: Spread,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    pub(crate) lru_hash_ns: Spread,
    /// The former against the latter, in the same round.
    pub(crate) ratio: Spread,
}

/// Those compared.
const TABLES: [MapKind; 2] = [MapKind::Hash, MapKind::LruHash];

/// Measures everything.
pub(crate) fn measure(effort: Effort) -> anyhow::Result<Report> {
    on_one_cpu(|| Bench::new(effort)?.measure())
}

fn table(kind: MapKind) -> io::Result<KernelMap> {
    let (key, value) = (size_of::<FlowKey<V4Addr>>(), size_of::<FlowEntry<V4Addr>>());
    KernelMap::create("bench_table", kind, key as u32, value as u32, ENTRIES)
}

struct Bench {
    effort: Effort,
    random: Random,
    noop: OwnedFd,
}

/// One thing to time in a round.
#[derive(Clone, Copy, Debug)]
enum Job {
    Idle,
    Table(usize),
}

impl Bench {
    fn new(effort: Effort) -> anyhow::Result<Self> {
        let noop = noop(HOOK).context("load a program that does nothing")?;
        Ok(Self { effort, random: Random::new(effort.seed), noop })
    }

    fn measure(mut self) -> anyhow::Result<Report> {
        let tables = [table(TABLES[0])?, table(TABLES[1])?];
        let every = Case::Established(FLOWS).headers(TCP4, &[], &mut self.random)?;
        for table in &tables {
            let add = program::add(HOOK, table).context("load a program that adds to a table")?;
            self.driver(&every, &add)?.run(FLOWS)?;
        }
        let mut cases = Vec::new();
        for flows in [1, 1024, FLOWS] {
            let headers = Case::Established(flows).headers(TCP4, &[], &mut self.random)?;
            let sample = |bench: &Self, at: usize| {
                let find =
                    program::find(HOOK, &tables[at]).context("load a program that searches a table")?;
                let driver = bench.driver(&headers, &find)?;
                let packets = headers.len().max(PACKETS);
                // Once for the caches.
                driver.run(packets)?;
                Ok((timed(|| driver.run(packets))?, packets))
            };
            cases.push(self.case(format!("find-{flows}"), &headers, sample)?);
        }
        let headers = Case::NewFlow.headers(TCP4, &[], &mut self.random)?;
        let sample = |bench: &Self, at: usize| {
            let table = table(TABLES[at])?;
            let add = program::add(HOOK, &table).context("load a program that adds to a table")?;
            let driver = bench.driver(&headers, &add)?;
            driver.run(NEW_FLOWS)?;
            Ok((timed(|| driver.run(NEW_FLOWS))?, NEW_FLOWS))
        };
        cases.push(self.case("add-two".to_owned(), &headers, sample)?);
        Ok(Report { rounds: self.effort.rounds, cases })
    }

    fn driver(&self, headers: &Headers, target: &OwnedFd) -> io::Result<Driver> {
        Driver::new(HOOK, headers, target.as_fd(), HOOK.pass())
    }

    /// Times a case; `sample` gives the time for so many packets with a table.
    fn case(
        &mut self,
        case: String,
        headers: &Headers,
        sample: impl Fn(&Self, usize) -> anyhow::Result<(f64, u32)>,
    ) -> anyhow::Result<Timed> {
        let idle = self.driver(headers, &self.noop)?;
        let mut jobs = [Job::Idle, Job::Table(0), Job::Table(1)];
        let mut rounds: Vec<[f64; 2]> = Vec::new();
        for _ in 0..self.effort.rounds {
            self.random.shuffle(&mut jobs);
            let (mut harness, mut ns) = (0.0, [0.0; 2]);
            for job in jobs {
                match job {
                    Job::Idle => {
                        harness = timed(|| idle.run(IDLE_PACKETS))? / f64::from(IDLE_PACKETS);
                    }
                    Job::Table(at) => {
                        let (time, packets) = sample(self, at)?;
                        ns[at] = time / f64::from(packets);
                    }
                }
            }
            rounds.push(ns.map(|ns| ns - harness));
        }
        Ok(Timed {
            case,
            hash_ns: Spread::of(rounds.iter().map(|ns| ns[0])),
            lru_hash_ns: Spread::of(rounds.iter().map(|ns| ns[1])),
            ratio: Spread::of(rounds.iter().map(|[hash, lru]| hash / lru)),
        })
    }
}
