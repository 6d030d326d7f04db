//! Names as text: each `dns/NAME.yaml` in, `dns/NAME.txt` out: the whole zone, then the answers to the questions that stand
//! in the YAML file as lines `#? NAME TYPE`. Settings are lines `#! key value`. `UPDATE_EXPECTED=1` writes the texts anew;
//! the difference is to be reviewed like code.

mod written_down;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use lb_userspace::dns::{Transport, Zone, ZoneConfig, answer_bytes, build, parse_domain};
use lb_userspace::model::ModelConfig;
use lb_userspace::model::allocate::{Allocator, Ranges};
use lb_userspace::source::Source;

/// The zone of a file, and what was said about it.
fn zone(file: &Path, text: &str) -> (Zone, String) {
    let mut domain = "cluster.local".to_owned();
    let mut model = ModelConfig::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
        let (key, value) = line.split_once(' ').unwrap();
        let nets = || value.split(' ').map(|net| net.parse().unwrap()).collect();
        match key {
            "domain" => domain = value.to_owned(),
            "service-cidr" => model.service_cidrs = nets(),
            "pod-cidr" => model.pod_cidrs = nets(),
            _ => panic!("unknown setting {key}"),
        }
    }
    let snapshot = Source::new([file]).load();
    let mut problems = String::new();
    for problem in &snapshot.problems {
        let text = problem.to_string().replace(&file.parent().unwrap().display().to_string(), "");
        writeln!(problems, "{:?} {text}", problem.severity).unwrap();
    }
    let ranges = Ranges { service_cidrs: model.service_cidrs.clone(), ..Ranges::default() };
    let (mut allocator, _) = Allocator::open(ranges, None);
    let (allocations, _) = allocator.allocate(&snapshot.objects);
    let config = ZoneConfig {
        domain: parse_domain(&domain).unwrap(),
        ttl: 5,
        servers: vec!["192.0.2.53".parse().unwrap()],
    };
    (build::build(&config, 7, &model, &snapshot.objects, allocations), problems)
}

fn ask(zone: &Zone, name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(1, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let answer = answer_bytes(zone, &query.to_bytes().unwrap(), Transport::Tcp, 0);
    Message::from_bytes(&answer.unwrap()).unwrap()
}

fn transcript(zone: &Zone, questions: &str) -> String {
    let mut out = String::new();
    for question in questions.lines().filter_map(|line| line.strip_prefix("#? ")) {
        let (name, kind) = question.split_once(' ').unwrap();
        let answer = ask(zone, name, kind.parse().unwrap());
        let authority = if answer.metadata.authoritative { " aa" } else { "" };
        writeln!(out, "\n? {question}\n{:?}{authority}", answer.metadata.response_code).unwrap();
        let mut section = |title: &str, records: &[Record]| {
            for Record { name, ttl, data, .. } in records {
                writeln!(out, "{title} {name} {ttl} {} {data}", data.record_type()).unwrap();
            }
        };
        section("  ", &answer.answers);
        section("ns", &answer.authorities);
        section("ad", &answer.additionals);
    }
    out
}

#[test]
fn zones_and_answers_are_as_written_down() {
    written_down::check("dns", 6, |file| {
        let text = fs::read_to_string(file).unwrap();
        let (zone, problems) = zone(file, &text);
        problems + &zone.dump() + &transcript(&zone, &text)
    });
}
