//! Answers of upstreams, remembered for a short time.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{LowerName, RData, Record, RecordType};

/// Answers that are remembered.
const CAPACITY: usize = 4096;
/// Records of an answer that is remembered: bounds the memory, together with the capacity.
const MAX_RECORDS: usize = 32;
/// Bytes of one record's data that is remembered, for types that may be long.
const MAX_UNKNOWN: usize = 1024;
/// Seconds that any answer is remembered; CoreDNS's value in the usual configuration of a cluster.
const MAX_TTL: u32 = 30;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) name: LowerName,
    pub(super) kind: RecordType,
    /// DNSSEC records wanted.
    pub(super) dnssec: bool,
    /// Not to be validated.
    pub(super) unchecked: bool,
}

/// What an upstream said.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// NOERROR or NXDOMAIN.
    pub code: ResponseCode,
    /// Answers.
    pub answers: Vec<Record>,
    /// The SOA of negative answers.
    pub authorities: Vec<Record>,
}

#[derive(Debug)]
struct Entry {
    heard: Heard,
    at: Instant,
    ttl: u32,
    /// Which of the entries of this name it is.
    number: u64,
}

/// A bounded memory.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    /// Oldest first; those that were replaced are still in it.
    order: VecDeque<(u64, Key)>,
    next: u64,
}

impl Cache {
    /// What is remembered, with what is left of its time.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Heard> {
        let entry = self.entries.get(key)?;
        let age = u32::try_from(now.saturating_duration_since(entry.at).as_secs()).unwrap_or(u32::MAX);
        if age >= entry.ttl {
            return None;
        }
        let mut heard = entry.heard.clone();
        for record in heard.answers.iter_mut().chain(&mut heard.authorities) {
            record.ttl = record.ttl.min(entry.ttl) - age.min(record.ttl.min(entry.ttl));
        }
        Some(heard)
    }

    /// Remembers an answer, for as long as it says.
    pub(super) fn put(&mut self, key: Key, heard: &Heard, now: Instant) {
        let Some(ttl) = lifetime(key.kind, heard) else { return };
        let long = |record: &Record| matches!(&record.data, RData::Unknown { rdata, .. } if rdata.anything.len() > MAX_UNKNOWN);
        let mut records = heard.answers.iter().chain(&heard.authorities);
        if heard.answers.len() + heard.authorities.len() > MAX_RECORDS || records.any(long) {
            return;
        }
        while self.order.len() >= CAPACITY {
            let Some((number, oldest)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|entry| entry.number == number) {
                self.entries.remove(&oldest);
            }
        }
        let number = self.next;
        self.next += 1;
        self.order.push_back((number, key.clone()));
        self.entries.insert(key, Entry { heard: heard.clone(), at: now, ttl, number });
    }
}

/// How many seconds an answer may be remembered. A negative one says so in its SOA (RFC 2308, section 5); without one it is
/// not remembered.
fn lifetime(kind: RecordType, heard: &Heard) -> Option<u32> {
    let mut ttl = heard.answers.iter().map(|record| record.ttl).min().unwrap_or(MAX_TTL);
    let positive = heard.code == ResponseCode::NoError
        && heard.answers.iter().any(|record| record.record_type() == kind);
    if !positive {
        let soa = heard.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
            _ => None,
        });
        ttl = ttl.min(soa?);
    }
    Some(ttl.min(MAX_TTL)).filter(|ttl| *ttl > 0)
}
