//! A DNS message.

use std::sync::LazyLock;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use lb_userspace::dns::{Transport, Zone, ZoneConfig, answer_bytes, build, parse_domain};
use lb_userspace::model::{Allocations, ModelConfig};
use lb_userspace::source::{Objects, document};

const MANIFESTS: &str = "kind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}\n---\n\
    kind: Service\nmetadata: {name: none}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n---\n\
    kind: EndpointSlice\nmetadata: {name: none-1, labels: {kubernetes.io/service-name: none}}\naddressType: IPv4\n\
    ports: [{name: http, port: 80}]\nendpoints: [{addresses: [10.1.0.1], hostname: one}, {addresses: [10.1.0.2]}]\n---\n\
    kind: Service\nmetadata: {name: alias}\nspec: {type: ExternalName, externalName: www.example.com}\n";

static ZONE: LazyLock<Option<Zone>> = LazyLock::new(|| {
    let documents = document::split(MANIFESTS).into_iter().flat_map(|text| document::read(text).objects);
    let objects: Objects = documents.map(|(object, _)| object).collect();
    let domain = parse_domain("cluster.local").ok()?;
    let config = ZoneConfig { domain, ttl: 5, servers: vec!["10.96.0.10".parse().ok()?] };
    let model = ModelConfig { service_cidrs: vec!["10.96.0.0/16".parse().ok()?], ..ModelConfig::default() };
    Some(build::build(&config, 1, &model, &objects, &Allocations::default()))
});

/// Whatever is asked: an answer to every query and to nothing else, of the right number, no longer than its way allows, which is
/// a message and is not answered in turn.
pub(super) fn run(bytes: &[u8]) -> Result<(), String> {
    let zone = ZONE.as_ref().ok_or("a zone")?;
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        let answer = answer_bytes(zone, bytes, transport, bytes.len());
        let is_query = bytes.len() >= 12 && bytes[2] & 0x80 == 0;
        if answer.is_some() != is_query {
            return Err(format!("{transport:?}: a query: {is_query}, an answer: {}", answer.is_some()));
        }
        let Some(answer) = answer else { continue };
        if answer.len() > most || answer.get(..2) != bytes.get(..2) || answer[2] & 0x80 == 0 {
            return Err(format!("{transport:?}: {} bytes: {answer:02x?}", answer.len()));
        }
        Message::from_vec(&answer).map_err(|error| format!("{transport:?}: {error}: {answer:02x?}"))?;
        if answer_bytes(zone, &answer, transport, 0).is_some() {
            return Err(format!("{transport:?}: an answer is answered: {answer:02x?}"));
        }
    }
    Ok(())
}

/// Queries as resolvers send them.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let names = [
        "web.default.svc.cluster.local.",
        "_http._tcp.none.default.svc.cluster.local.",
        "one.none.default.svc.cluster.local.",
        "alias.default.svc.cluster.local.",
        "absent.default.svc.cluster.local.",
        "1.0.96.10.in-addr.arpa.",
        "www.example.com.",
    ];
    let kinds =
        [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::PTR, RecordType::SOA, RecordType::ANY];
    let mut seeds = Vec::new();
    for name in names {
        for kind in kinds {
            let Ok(name) = Name::from_ascii(name) else { continue };
            let mut query = Message::new(7, MessageType::Query, OpCode::Query);
            query.add_query(Query::query(name, kind));
            seeds.extend(query.to_vec().ok());
        }
    }
    seeds
}
