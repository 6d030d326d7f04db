//! The explanation as data. Field names are stable.

use std::net::SocketAddr;

use lb_common::engine::open::Origin;
use lb_common::reason::Class;
use serde::Serialize;

use super::Situation;
use super::backends::{Candidate, candidates};
use super::engine::Run;
use super::live::Comparison;
use super::packet::{Headers, Kind, answer_name};
use super::target::Question;
use super::verdict::{self, Client, Masquerade, Matched, Verdict};
use crate::model::desired::{Algorithm, Family, Frontend, FrontendKind};
use crate::plan::layout::{self, List};

/// The packet asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// `TCP`, `UDP`, `SCTP` or `ICMP`.
    pub protocol: String,
    /// Came in by an external interface.
    pub external: bool,
    /// TCP: not the first packet of its connection.
    pub mid_flow: bool,
    /// `namespace/name` when a Service was named.
    pub service: Option<String>,
}

/// The frontend that matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrontendMatch {
    /// Address and port.
    pub address: SocketAddr,
    /// What kind of address it is.
    pub kind: FrontendKind,
    /// The rule that makes it a frontend.
    pub rule: &'static str,
    /// `namespace/name` of its Service.
    pub service: String,
    /// Name of the Service's port, empty when it has none.
    pub port_name: String,
}

/// What applies to this client on this frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// `Cluster` or `Local`.
    pub traffic: &'static str,
    /// The field that says so, and for whom.
    pub why: String,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Seconds that a client keeps its backend.
    pub affinity_timeout_s: Option<u32>,
    /// Ranges that may send (V7); empty = everyone.
    pub source_ranges: Vec<String>,
}

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The rule it is about.
    pub rule: &'static str,
    /// What.
    pub text: String,
}

impl Remark {
    pub(super) fn new(rule: &'static str, text: String) -> Self {
        Self { rule, text }
    }
}

/// What happens to a packet, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The packet asked about.
    pub packet: Asked,
    /// Where the client is.
    pub client: Client,
    /// The frontend that matched.
    pub frontend: Option<FrontendMatch>,
    /// What applies to this client.
    pub policy: Option<Policy>,
    /// Every backend of the service port.
    pub backends: Vec<Candidate>,
    /// What happens.
    pub verdict: Verdict,
    /// Whether the source changes, when the packet is forwarded.
    pub masquerade: Option<Masquerade>,
    /// The packet's addresses and ports as it came.
    pub before: Headers,
    /// Those it leaves with, or those of the answer; absent when it is left alone or dropped.
    pub after: Option<Headers>,
    /// What is sent back, when the packet is answered.
    pub answer: Option<&'static str>,
    /// Endpoints that were left out, and what a packet without frontend came close to.
    pub remarks: Vec<Remark>,
    /// What the kernel says, with `--live`.
    pub live: Option<Comparison>,
}

pub(super) fn explanation(situation: &Situation, question: &Question, run: &Run) -> Explanation {
    let found = find(situation, question);
    let matched = found.map(|(name, frontend)| (name, frontend, situation.service(name)));
    let mut policy = None;
    let mut list = (List::Cluster, "");
    let matched = matched.and_then(|(name, frontend, service)| {
        let service = service?;
        let (applies, made) = policy_of(situation, run, name, service, frontend);
        policy = Some(made);
        list = applies;
        Some(Matched { name, service, kind: frontend.kind, local: applies.0 == List::Local })
    });
    let backends = matched
        .as_ref()
        .map(|matched| candidates(situation, matched.name, matched.service, list, run.after))
        .unwrap_or_default();
    Explanation {
        packet: Asked {
            protocol: question.packet.kind.to_string(),
            external: question.external,
            mid_flow: question.packet.mid_flow,
            service: question.named.as_ref().map(ToString::to_string),
        },
        client: verdict::client(situation, question, run),
        frontend: found.map(|(name, frontend)| FrontendMatch {
            address: SocketAddr::new(frontend.addr, frontend.port),
            kind: frontend.kind,
            rule: match frontend.kind {
                FrontendKind::ClusterIp => "F2",
                FrontendKind::NodePort => "F6",
                FrontendKind::ExternalIp | FrontendKind::LoadBalancer => "F5",
            },
            service: format!("{}/{}", name.namespace, name.name),
            port_name: name.port.clone(),
        }),
        policy,
        backends,
        verdict: verdict::verdict(situation, question, run, matched.as_ref()),
        masquerade: matched.as_ref().and_then(|m| verdict::masquerade(situation, question, run, m)),
        before: question.packet.headers,
        after: run.after,
        answer: run.after.filter(|_| run.reason.class() == Class::Answered).map(|_| answer_name(&run.frame)),
        remarks: verdict::remarks(situation, question, run, matched.as_ref()),
        live: None,
    }
}

/// The frontend a packet is for.
fn find<'a>(
    situation: &'a Situation,
    question: &Question,
) -> Option<(&'a crate::model::desired::ServicePortName, Frontend)> {
    let Kind::Transport(protocol) = question.packet.kind else {
        return None;
    };
    let to = question.packet.headers.destination;
    situation.built.desired.services.iter().filter(|(name, _)| name.protocol == protocol).find_map(
        |(name, service)| {
            let same = |f: &&Frontend| f.addr == to.address && Some(f.port) == to.port;
            service.frontends.iter().find(same).map(|frontend| (name, *frontend))
        },
    )
}

/// The list that applies, with the rule that makes it Local, and why.
fn policy_of(
    situation: &Situation,
    run: &Run,
    name: &crate::model::desired::ServicePortName,
    service: &crate::model::desired::Service,
    frontend: Frontend,
) -> ((List, &'static str), Policy) {
    let surroundings = &situation.built.desired.surroundings;
    let layout = layout::frontend(name, service, &frontend, surroundings);
    let outside = run.origin == Origin::Outside;
    let list = if outside { layout.external } else { layout.internal };
    let word = |local| if local { "Local" } else { "Cluster" };
    let (rule, why) = match (frontend.kind, outside) {
        (FrontendKind::ClusterIp, _) => {
            ("V3", format!("internalTrafficPolicy is {}", word(service.internal_local)))
        }
        (_, true) => {
            ("V4", format!("externalTrafficPolicy is {}, for clients outside", word(service.external_local)))
        }
        (_, false) => ("V4", "pods and this node reach all backends".to_owned()),
    };
    let guarded = frontend.kind == FrontendKind::LoadBalancer;
    let ranges = layout::source_ranges(service, surroundings, Family::of(frontend.addr));
    let policy = Policy {
        traffic: word(list == List::Local),
        why,
        algorithm: service.algorithm,
        affinity_timeout_s: service.affinity_timeout_s,
        source_ranges: ranges.iter().filter(|_| guarded).map(ToString::to_string).collect(),
    };
    ((list, rule), policy)
}
