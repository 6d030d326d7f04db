//! Bytes that nobody sends who means well. `answer_bytes` is the way in for fuzzing.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

const TYPES: [RecordType; 10] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::CNAME,
    RecordType::ANY,
    RecordType::SOA,
    RecordType::TXT,
    RecordType::HTTPS,
    RecordType::OPT,
];

const NAMES: [&str; 8] = [
    "web.default.svc.cluster.local",
    "_http._tcp.web.default.svc.cluster.local",
    "many.default.svc.cluster.local",
    "alias.default.svc.cluster.local",
    "away.default.svc.cluster.local",
    "absent.default.svc.cluster.local",
    "10.0.96.10.in-addr.arpa",
    "www.example.com",
];

/// The same cases every time.
fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[53; 32]);
    let run = |value| {
        test(value);
        Ok(())
    };
    TestRunner::new_with_rng(config, seed).run(strategy, run).unwrap();
}

fn holds(zone: &Zone, bytes: &[u8]) {
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65535)] {
        let answer = answer_bytes(zone, bytes, transport, bytes.len());
        let is_query = bytes.len() >= 12 && bytes[2] & 0x80 == 0;
        assert_eq!(answer.is_some(), is_query, "{transport:?}: {bytes:02x?}");
        let Some(answer) = answer else { continue };
        assert!(answer.len() <= most, "{} bytes: {bytes:02x?}", answer.len());
        // The asker's number, and a response, so that it is not answered in turn.
        assert_eq!(answer[..2], bytes[..2]);
        assert_eq!(answer[2] & 0x80, 0x80);
        Message::from_bytes(&answer).expect("a whole message");
        assert_eq!(answer_bytes(zone, &answer, transport, 0), None);
    }
}

#[test]
fn random_bytes() {
    let zone = zone();
    check(5_000, &vec(any::<u8>(), 0..600), |bytes| holds(&zone, &bytes));
}

/// With a header that says what follows, so that more than the header is read.
#[test]
fn random_bytes_behind_a_good_header() {
    let zone = zone();
    let counts = (0..2_u8, 0..2_u8, 0..3_u8);
    check(5_000, &(counts, vec(any::<u8>(), 0..300)), |((an, ns, ar), bytes)| {
        let header = [9, 9, 1, 0, 0, 1, 0, an, 0, ns, 0, ar];
        holds(&zone, &[&header[..], &bytes].concat());
    });
}

#[test]
fn real_queries_that_went_wrong() {
    let zone = zone();
    let names = proptest::sample::select(&NAMES[..]);
    let kinds = proptest::sample::select(&TYPES[..]);
    let edits = vec((any::<Index>(), any::<u8>()), 0..5);
    let strategy = (names, kinds, any::<Option<u16>>(), edits, any::<Index>(), vec(any::<u8>(), 0..20));
    check(10_000, &strategy, |(of, kind, payload, edits, length, tail)| {
        let query = match payload {
            Some(payload) => edns(of, kind, payload),
            None => query(of, kind),
        };
        let mut bytes = query.to_bytes().unwrap();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        holds(&zone, &bytes);
        bytes.truncate(length.index(bytes.len() + 1));
        holds(&zone, &bytes);
        bytes.extend(tail);
        holds(&zone, &bytes);
    });
}

#[test]
fn names_that_refer_to_themselves_and_counts_that_lie() {
    let zone = zone();
    let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for question in [
        // Pointers: to itself, forward, to each other.
        &[0xc0, 12, 0, 1, 0, 1][..],
        &[0xc0, 20, 0, 1, 0, 1],
        &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1],
        // A label longer than the message; reserved kinds of label.
        &[63, b'a', 0, 0, 1, 0, 1],
        &[0x80, 0, 0, 1, 0, 1],
        &[],
    ] {
        holds(&zone, &[&header[..], question].concat());
    }
    // 65,535 records that are not there.
    for count in 4..12 {
        let mut header = header;
        header[count] = 0xff;
        holds(&zone, &[&header[..], &[3, b'w', b'e', b'b', 0, 0, 1, 0, 1]].concat());
    }
    // A name of 127 labels, which is the longest there is.
    let long = [&header[..], &[1, b'a'].repeat(127), &[0, 0, 1, 0, 1]].concat();
    holds(&zone, &long);
    let too_long = [&header[..], &[1, b'a'].repeat(128), &[0, 0, 1, 0, 1]].concat();
    holds(&zone, &too_long);
}

/// An answer is not much longer than its question, if the zone does not say so: no use for attacks with a forged source.
#[test]
fn small_questions_have_small_answers() {
    for (of, kind) in [(NAMES[0], RecordType::ANY), (NAMES[5], RecordType::A), (NAMES[7], RecordType::ANY)] {
        let query = edns(of, kind, 4096);
        let (bytes, _) = ask(&query, Transport::Udp, 0);
        assert!(bytes.len() < 200, "{of} {kind}: {}", bytes.len());
    }
}
