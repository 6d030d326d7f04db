//! Questions and answers as messages.

mod answers;
mod forwarding;
mod hostile;
mod remembering;

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{CNAME, SRV};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};

use super::build::address_data;
use super::names::absolute;
use super::zone::Zone;
use super::{Transport, answer_bytes};

fn name(text: &str) -> Name {
    absolute(text).unwrap()
}

/// Names: `web` has one address, `many` has 100, `alias` is `web`, `away` is outside.
fn zone() -> Zone {
    let mut zone = Zone::new(name("cluster.local"), 1, 5, vec!["10.96.0.0/16".parse().unwrap()]);
    let web: IpAddr = "10.96.0.10".parse().unwrap();
    zone.add(name("web.default.svc.cluster.local"), address_data(web));
    zone.add_pointer(web, name("web.default.svc.cluster.local"));
    zone.add(
        name("_http._tcp.web.default.svc.cluster.local"),
        RData::SRV(SRV::new(0, 100, 80, name("web.default.svc.cluster.local"))),
    );
    for last in 0..100 {
        let address = Ipv4Addr::new(10, 244, 0, last).into();
        zone.add(name("many.default.svc.cluster.local"), address_data(address));
    }
    let alias = |target| RData::CNAME(CNAME(name(target)));
    zone.add(name("alias.default.svc.cluster.local"), alias("web.default.svc.cluster.local"));
    zone.add(name("away.default.svc.cluster.local"), alias("www.example.com"));
    zone.sort();
    zone
}

fn query(of: &str, kind: RecordType) -> Message {
    let mut query = Message::new(0x1234, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name(of), kind));
    query
}

/// The same, of a client that takes messages of this size.
fn edns(of: &str, kind: RecordType, payload: u16) -> Message {
    let mut query = query(of, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(0);
    query.set_edns(edns);
    query
}

/// The answer as bytes and as a message.
fn ask(query: &Message, transport: Transport, turn: usize) -> (Vec<u8>, Message) {
    let bytes = answer_bytes(&zone(), &query.to_bytes().unwrap(), transport, turn).expect("an answer");
    let message = Message::from_bytes(&bytes).expect("a whole message");
    (bytes, message)
}
