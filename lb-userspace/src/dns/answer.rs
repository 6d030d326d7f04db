//! Zone and question in, answer out. No sockets, no clock.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinDecodable;

use super::encode::{UDP_PAYLOAD, UDP_WITHOUT_EDNS, encode};
use super::zone::{Found, Zone};

/// Aliases that are followed; a cluster's own Services never need as many.
const MAX_ALIASES: usize = 8;
/// Bytes of a header.
const HEADER: usize = 12;

/// How a message comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream, with lengths.
    Tcp,
}

/// What is known besides the zone.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// How the query came.
    pub transport: Transport,
    /// There are upstreams to ask.
    pub upstreams: bool,
    /// Which of several records comes first.
    pub turn: usize,
}

/// What is to be done about a message.
#[derive(Debug)]
pub enum Step {
    /// Nothing: it is no query.
    Ignore,
    /// Send this.
    Reply(Response),
    /// Ask an upstream for the rest, then send it.
    Ask(Response, Query),
}

/// An answer, and how long it may be.
#[derive(Clone, Debug)]
pub struct Response {
    /// The message.
    pub message: Message,
    /// Bytes that the client takes.
    pub limit: usize,
    /// The client wants to see DNSSEC records (DO).
    pub dnssec: bool,
}

impl Response {
    /// The message as bytes, cut down to what the client takes. None when that cannot be done.
    pub fn encode(self) -> Option<Vec<u8>> {
        encode(self.message, self.limit)
    }

    /// The same with another response code and nothing in it.
    pub fn refuse(mut self, code: ResponseCode) -> Self {
        self.message.answers.clear();
        self.message.authorities.clear();
        self.message.additionals.clear();
        self.message.metadata.response_code = code;
        self.message.metadata.authoritative = false;
        self
    }
}

/// The whole way for those who have no upstreams: bytes in, bytes out. None: nothing is to be sent.
pub fn answer_bytes(zone: &Zone, bytes: &[u8], transport: Transport, turn: usize) -> Option<Vec<u8>> {
    match answer(zone, bytes, Context { transport, upstreams: false, turn }) {
        Step::Ignore => None,
        // Without upstreams nobody is asked.
        Step::Reply(response) | Step::Ask(response, _) => response.encode(),
    }
}

/// What is to be done about a message.
pub fn answer(zone: &Zone, bytes: &[u8], context: Context) -> Step {
    let (query, mut response) = match read(bytes, context) {
        Ok(read) => read,
        Err(step) => return *step,
    };
    let kind = query.query_type();
    let message = &mut response.message;
    if query.query_class() != DNSClass::IN || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        message.metadata.response_code = ResponseCode::Refused;
        return Step::Reply(response);
    }
    if matches!(kind, RecordType::OPT | RecordType::TSIG) {
        message.metadata.response_code = ResponseCode::FormErr;
        return Step::Reply(response);
    }
    let mut name = query.name().clone();
    for followed in 0..=MAX_ALIASES {
        match zone.find(&name, kind) {
            Found::Outside if followed == 0 && kind != RecordType::ANY => {
                if context.upstreams && message.metadata.recursion_desired {
                    return Step::Ask(response, query);
                }
                message.metadata.response_code = ResponseCode::Refused;
                return Step::Reply(response);
            }
            Found::Outside if context.upstreams && kind != RecordType::ANY => {
                let mut target = Query::query(name, kind);
                target.set_query_class(DNSClass::IN);
                return Step::Ask(response, target);
            }
            // Without upstreams the alias itself is all there is to say.
            Found::Outside => {
                if followed == 0 {
                    message.metadata.response_code = ResponseCode::Refused;
                }
                return Step::Reply(response);
            }
            Found::Alias(target) if kind != RecordType::ANY => {
                message.metadata.authoritative = true;
                let alias = zone.find(&name, RecordType::CNAME);
                let target = target.clone();
                add(message, zone, &name, alias, 0);
                if message.answers.iter().any(|record| record.name == target) {
                    return Step::Reply(response);
                }
                name = target;
            }
            found => {
                message.metadata.authoritative = true;
                conclude(message, zone, &name, kind, found, context.turn);
                return Step::Reply(response);
            }
        }
    }
    Step::Reply(response)
}

/// The last step: records, or that there are none.
fn conclude(
    message: &mut Message,
    zone: &Zone,
    name: &Name,
    kind: RecordType,
    found: Found<'_>,
    turn: usize,
) {
    if kind == RecordType::ANY && found != Found::NoName {
        // RFC 8482, section 4.2: who asks for everything gets little.
        let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
        message.add_answer(Record::from_rdata(name.clone(), zone.ttl(), data));
        return;
    }
    if let Found::Records(records) = found {
        add(message, zone, name, found, turn);
        for data in records {
            // RFC 2782: the addresses of SRV targets and of name servers, to save a question.
            let target = match data {
                RData::SRV(service) => &service.target,
                RData::NS(server) => &server.0,
                _ => continue,
            };
            for kind in [RecordType::A, RecordType::AAAA] {
                if let Found::Records(addresses) = zone.find(target, kind) {
                    let additional = addresses.iter().map(|data| record(zone, target, data));
                    for record in additional {
                        if !message.additionals.contains(&record) {
                            message.add_additional(record);
                        }
                    }
                }
            }
        }
        return;
    }
    // RFC 2308: how long the absence may be remembered.
    let (apex, soa) = zone.authority(name);
    message.add_authority(Record::from_rdata(apex, zone.ttl(), RData::SOA(soa)));
    if found == Found::NoName {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
}

/// Adds records as answers, in turn.
fn add(message: &mut Message, zone: &Zone, name: &Name, found: Found<'_>, turn: usize) {
    let Found::Records(records) = found else { return };
    let first = turn.checked_rem(records.len()).unwrap_or(0);
    let (before, from) = records.split_at(first);
    message.add_answers(from.iter().chain(before).map(|data| record(zone, name, data)));
}

fn record(zone: &Zone, name: &Name, data: &RData) -> Record {
    Record::from_rdata(name.clone(), zone.ttl(), data.clone())
}

/// The question of a message, and an empty response to it; or what to do at once.
fn read(bytes: &[u8], context: Context) -> Result<(Query, Response), Box<Step>> {
    let Some((header, _)) = bytes.split_at_checked(HEADER) else { return Err(Box::new(Step::Ignore)) };
    // A response (QR) is never answered: two servers would go on for ever.
    if header[2] & 0x80 != 0 {
        return Err(Box::new(Step::Ignore));
    }
    let mut metadata = Metadata::new(
        u16::from_be_bytes([header[0], header[1]]),
        MessageType::Response,
        OpCode::from_u8(header[2] >> 3 & 15),
    );
    metadata.recursion_desired = header[2] & 1 != 0;
    metadata.checking_disabled = header[3] & 0x10 != 0;
    metadata.recursion_available = context.upstreams;
    let mut message = Message::new(metadata.id, metadata.message_type, metadata.op_code);
    message.metadata = metadata;
    let limit = match context.transport {
        Transport::Udp => UDP_WITHOUT_EDNS,
        Transport::Tcp => usize::from(u16::MAX),
    };
    let mut response = Response { message, limit, dnssec: false };
    let refuse = |mut response: Response, code| {
        response.message.metadata.response_code = code;
        Err(Box::new(Step::Reply(response)))
    };
    if metadata.op_code != OpCode::Query {
        return refuse(response, ResponseCode::NotImp);
    }
    // RFC 9619: a query has one question.
    if header[4..6] != [0, 1] {
        return refuse(response, ResponseCode::FormErr);
    }
    let Ok(query) = Message::from_bytes(bytes) else {
        return refuse(response, ResponseCode::FormErr);
    };
    let Some(question) = query.queries.into_iter().next() else {
        return refuse(response, ResponseCode::FormErr);
    };
    response.message.add_query(question.clone());
    if let Some(asked) = &query.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD).set_version(0);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        response.dnssec = asked.flags().dnssec_ok;
        response.message.set_edns(edns);
        if context.transport == Transport::Udp {
            response.limit = usize::from(asked.max_payload().clamp(UDP_WITHOUT_EDNS as u16, UDP_PAYLOAD));
        }
        if asked.version() > 0 {
            return refuse(response, ResponseCode::BADVERS);
        }
    }
    Ok((question, response))
}
