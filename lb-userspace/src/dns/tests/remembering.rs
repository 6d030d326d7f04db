//! The cache, with a clock of the test's own.

use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{LowerName, Record};

use super::super::cache::{Cache, Heard, Key};
use super::*;

fn key(of: &str) -> Key {
    Key { name: LowerName::new(&name(of)), kind: RecordType::A, dnssec: false, unchecked: false }
}

fn found(of: &str, ttl: u32) -> Heard {
    let data = RData::A("192.0.2.1".parse().unwrap());
    Heard {
        code: ResponseCode::NoError,
        answers: vec![Record::from_rdata(name(of), ttl, data)],
        authorities: Vec::new(),
    }
}

fn absent(code: ResponseCode, ttl: u32, minimum: u32) -> Heard {
    let soa = SOA::new(name("ns.example"), name("admin.example"), 1, 1, 1, 1, minimum);
    Heard {
        code,
        answers: Vec::new(),
        authorities: vec![Record::from_rdata(name("example"), ttl, RData::SOA(soa))],
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn answers_grow_old() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    cache.put(key("a.example"), &found("a.example", 20), now);
    assert_eq!(cache.get(&key("A.EXAMPLE"), now), Some(found("a.example", 20)));
    assert_eq!(cache.get(&key("a.example"), now + 7 * SECOND), Some(found("a.example", 13)));
    assert_eq!(cache.get(&key("a.example"), now + 19 * SECOND), Some(found("a.example", 1)));
    assert_eq!(cache.get(&key("a.example"), now + 20 * SECOND), None);
    assert_eq!(cache.get(&Key { dnssec: true, ..key("a.example") }, now), None);
    assert_eq!(cache.get(&Key { kind: RecordType::AAAA, ..key("a.example") }, now), None);
}

#[test]
fn nothing_is_remembered_longer_than_half_a_minute() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    cache.put(key("a.example"), &found("a.example", 86_400), now);
    assert_eq!(cache.get(&key("a.example"), now + 10 * SECOND), Some(found("a.example", 20)));
    assert_eq!(cache.get(&key("a.example"), now + 30 * SECOND), None);
    // The shortest of several counts.
    let mut two = found("a.example", 25);
    two.answers.extend(found("b.example", 3).answers);
    cache.put(key("a.example"), &two, now);
    assert!(cache.get(&key("a.example"), now + 2 * SECOND).is_some());
    assert_eq!(cache.get(&key("a.example"), now + 3 * SECOND), None);
}

#[test]
fn absence_is_remembered_as_its_soa_says() {
    let now = Instant::now();
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        for (ttl, minimum) in [(9, 100), (100, 9)] {
            let mut cache = Cache::default();
            cache.put(key("a.example"), &absent(code, ttl, minimum), now);
            assert_eq!(cache.get(&key("a.example"), now).unwrap().code, code);
            assert!(cache.get(&key("a.example"), now + 8 * SECOND).is_some());
            assert_eq!(cache.get(&key("a.example"), now + 9 * SECOND), None);
        }
    }
    let mut cache = Cache::default();
    let unsaid = Heard { authorities: Vec::new(), ..absent(ResponseCode::NXDomain, 9, 9) };
    cache.put(key("a.example"), &unsaid, now);
    assert_eq!(cache.get(&key("a.example"), now), None);
    cache.put(key("a.example"), &found("a.example", 0), now);
    assert_eq!(cache.get(&key("a.example"), now), None);
}

#[test]
fn the_oldest_make_room() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let of = |number: usize| format!("n{number}.example");
    // One that is asked for again and again does not crowd out the others.
    for _ in 0..3 {
        cache.put(key("again.example"), &found("again.example", 20), now);
    }
    for number in 0..10_000 {
        cache.put(key(&of(number)), &found(&of(number), 20), now);
    }
    let there = (0..10_000).filter(|number| cache.get(&key(&of(*number)), now).is_some()).count();
    assert_eq!(there, 4096);
    assert!(cache.get(&key(&of(9_999)), now).is_some() && cache.get(&key(&of(0)), now).is_none());
    assert!(cache.get(&key("again.example"), now).is_none());
}

#[test]
fn long_answers_are_not_remembered() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let mut long = found("a.example", 20);
    long.answers.resize(33, long.answers[0].clone());
    cache.put(key("a.example"), &long, now);
    assert_eq!(cache.get(&key("a.example"), now), None);
}
