//! N6, N7: codes, flags, sizes.

use hickory_proto::op::{Edns, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

use super::super::answer::{Context, Step, answer};
use super::*;

const MANY: &str = "many.default.svc.cluster.local";
const WEB: &str = "web.default.svc.cluster.local";

fn code(query: &Message) -> ResponseCode {
    ask(query, Transport::Udp, 0).1.metadata.response_code
}

#[test]
fn an_answer_repeats_number_flags_and_question() {
    let mut query = query("WeB.dEfault.svc.cluster.LOCAL", RecordType::A);
    query.metadata.checking_disabled = true;
    let (bytes, answer) = ask(&query, Transport::Udp, 0);
    let metadata = answer.metadata;
    assert_eq!((metadata.id, metadata.message_type), (0x1234, MessageType::Response));
    assert!(metadata.authoritative && metadata.recursion_desired && metadata.checking_disabled);
    assert!(!metadata.recursion_available && !metadata.authentic_data && !metadata.truncation);
    // Byte for byte, case included (0x20).
    assert!(answer.queries[0].name().eq_case(query.queries[0].name()));
    assert!(answer.answers[0].name.eq_case(query.queries[0].name()));
    assert_eq!(answer.answers[0].data, RData::A("10.96.0.10".parse().unwrap()));
    assert!(answer.edns.is_none());
    // A header, the question, and an answer that refers to its name.
    assert_eq!(bytes.len(), 12 + 31 + 4 + 16);
}

#[test]
fn records_take_turns() {
    let first: Vec<_> = (0..200)
        .map(|turn| ask(&query(MANY, RecordType::A), Transport::Tcp, turn).1.answers.remove(0))
        .collect();
    for (turn, record) in first.iter().enumerate() {
        let address = format!("10.244.0.{}", turn % 100).parse().unwrap();
        assert_eq!(record.data, RData::A(address));
    }
    let (_, whole) = ask(&query(MANY, RecordType::A), Transport::Tcp, 37);
    let mut all: Vec<_> = whole.answers.into_iter().map(|record| record.data).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 100);
}

#[test]
fn what_is_too_long_for_udp_is_cut_and_marked() {
    // 100 records of 16 bytes, a header of 12, and a question of 36.
    let (bytes, answer) = ask(&query(MANY, RecordType::A), Transport::Udp, 0);
    assert!(answer.metadata.truncation && bytes.len() <= 512);
    assert!((25..=29).contains(&answer.answers.len()), "{}", answer.answers.len());
    for (payload, most) in [(0, 512), (512, 512), (700, 700), (1232, 1232), (4096, 1232), (65535, 1232)] {
        let (bytes, answer) = ask(&edns(MANY, RecordType::A, payload), Transport::Udp, 0);
        assert!(bytes.len() <= most && bytes.len() + 100 > most, "{payload}: {}", bytes.len());
        assert!(answer.metadata.truncation && answer.edns.is_some(), "{payload}");
    }
    let (bytes, answer) = ask(&edns(MANY, RecordType::A, 512), Transport::Tcp, 0);
    assert!(!answer.metadata.truncation && bytes.len() > 1600);
    assert_eq!(answer.answers.len(), 100);
}

#[test]
fn additional_records_are_left_out_silently() {
    let mut zone = Zone::new(name("cluster.local"), 1, 5, Vec::new());
    let service = name("_x._tcp.db.default.svc.cluster.local");
    for last in 0..14 {
        let pod = name(&format!("a-long-name-of-a-pod-{last:02}.db.default.svc.cluster.local"));
        zone.add(pod.clone(), address_data(Ipv4Addr::new(10, 244, 0, last).into()));
        zone.add(service.clone(), RData::SRV(SRV::new(0, 100, 1, pod)));
    }
    let query = edns("_x._tcp.db.default.svc.cluster.local", RecordType::SRV, 1232).to_bytes().unwrap();
    let bytes = answer_bytes(&zone, &query, Transport::Udp, 0).unwrap();
    let answer = Message::from_bytes(&bytes).unwrap();
    assert!(!answer.metadata.truncation && answer.answers.len() == 14 && answer.additionals.is_empty());
    let whole = answer_bytes(&zone, &query, Transport::Tcp, 0).unwrap();
    assert_eq!(Message::from_bytes(&whole).unwrap().additionals.len(), 14);
}

#[test]
fn edns_is_answered_with_edns() {
    let mut asked = edns(WEB, RecordType::A, 1400);
    asked.edns.as_mut().unwrap().set_dnssec_ok(true);
    let (_, answer) = ask(&asked, Transport::Udp, 0);
    let found = answer.edns.unwrap();
    assert_eq!((found.version(), found.max_payload(), found.flags().dnssec_ok), (0, 1232, true));
    // Also with errors.
    for of in ["absent.cluster.local", "example.com"] {
        assert!(ask(&edns(of, RecordType::A, 1400), Transport::Udp, 0).1.edns.is_some(), "{of}");
    }
    let mut newer = query(WEB, RecordType::A);
    let mut version_1 = Edns::new();
    version_1.set_version(1);
    newer.set_edns(version_1);
    let (_, answer) = ask(&newer, Transport::Udp, 0);
    // 16 has two names.
    assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty());
}

#[test]
fn what_is_not_served_is_said() {
    let mut update = query("cluster.local", RecordType::SOA);
    for operation in [OpCode::Update, OpCode::Notify, OpCode::Status] {
        update.metadata.op_code = operation;
        let (bytes, answer) = ask(&update, Transport::Udp, 0);
        assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
        assert_eq!((answer.metadata.op_code, bytes.len()), (operation, 12));
    }
    let mut two = query(WEB, RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut none = query(WEB, RecordType::A);
    none.queries.clear();
    assert_eq!(code(&none), ResponseCode::FormErr);
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(code(&query("cluster.local", kind)), ResponseCode::Refused);
    }
    assert_eq!(code(&query("cluster.local", RecordType::OPT)), ResponseCode::FormErr);
    assert_eq!(code(&query("example.com", RecordType::ANY)), ResponseCode::Refused);
}

#[test]
fn a_response_is_never_answered() {
    let mut response = query(WEB, RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let bytes = response.to_bytes().unwrap();
    assert_eq!(answer_bytes(&zone(), &bytes, Transport::Udp, 0), None);
    assert_eq!(answer_bytes(&zone(), &bytes[..11], Transport::Tcp, 0), None);
}

/// What is left to ask somebody else.
fn asked(query: &Message) -> Option<(usize, String)> {
    let context = Context { transport: Transport::Udp, upstreams: true, turn: 0 };
    match answer(&zone(), &query.to_bytes().unwrap(), context) {
        Step::Ask(response, query) => Some((response.message.answers.len(), query.to_string())),
        Step::Reply(_) | Step::Ignore => None,
    }
}

#[test]
fn others_are_asked_about_what_is_not_ours() {
    let away = query("away.default.svc.cluster.local", RecordType::AAAA);
    assert_eq!(asked(&away), Some((1, "www.example.com. IN AAAA".to_owned())));
    assert_eq!(asked(&query("Example.com", RecordType::MX)), Some((0, "Example.com. IN MX".to_owned())));
    let reverse = query("1.0.0.127.in-addr.arpa", RecordType::PTR);
    assert_eq!(asked(&reverse), Some((0, "1.0.0.127.in-addr.arpa. IN PTR".to_owned())));
    // What is ours stays here, also when it is not there.
    for (of, kind) in [
        ("absent.default.svc.cluster.local", RecordType::A),
        ("9.0.96.10.in-addr.arpa", RecordType::PTR),
        ("away.default.svc.cluster.local", RecordType::CNAME),
        ("example.com", RecordType::ANY),
        ("example.com", RecordType::AXFR),
    ] {
        assert_eq!(asked(&query(of, kind)), None, "{of} {kind}");
    }
    let mut no_recursion = query("example.com", RecordType::A);
    no_recursion.metadata.recursion_desired = false;
    assert_eq!(asked(&no_recursion), None);
}
