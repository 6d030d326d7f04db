//! The verdict and the client, in words.

use ipnet::IpNet;
use lb_common::abi::frontend_flag;
use lb_common::engine::open::Origin;
use lb_common::reason::{Class, Reason};
use serde::Serialize;

use super::Situation;
use super::engine::Run;
use super::packet::{Kind, answer_name};
use super::report::Remark;
use super::target::Question;
use crate::model::desired::{Family, FrontendKind, Service, ServicePortName};
use crate::plan::classes::knows_pods;
use crate::plan::layout;

/// What happens to the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `forwarded`, `passed`, `answered` or `dropped`.
    pub class: &'static str,
    /// Name of the reason, as counters have it.
    pub reason: &'static str,
    /// The rule that decided.
    pub rule: &'static str,
    /// The reason in general.
    pub text: &'static str,
    /// The reason in this case.
    pub detail: String,
}

/// Where the client is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Client {
    /// `pod`, `node` or `outside`.
    pub class: &'static str,
    /// How that is known.
    pub why: String,
}

/// Whether the packet gets another source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Masquerade {
    /// Whether it does.
    pub done: bool,
    /// The rule that decided.
    pub rule: &'static str,
    /// Why.
    pub why: String,
}

/// The frontend that matched.
pub(super) struct Matched<'a> {
    pub(super) name: &'a ServicePortName,
    pub(super) service: &'a Service,
    pub(super) kind: FrontendKind,
    pub(super) local: bool,
}

pub(super) fn client(situation: &Situation, question: &Question, run: &Run) -> Client {
    let address = question.packet.headers.source.address;
    let surroundings = &situation.built.desired.surroundings;
    let pods = || surroundings.pod_cidrs.iter().find(|range: &&IpNet| range.contains(&address));
    let (class, why) = match run.origin {
        Origin::Node if address.is_loopback() => ("node", format!("{address} is loopback")),
        Origin::Node => ("node", format!("{address} is an address of this node")),
        Origin::Pod => match pods() {
            Some(range) => ("pod", format!("{address} is inside the pod range {range}")),
            None => ("pod", format!("{address} is inside a pod range")),
        },
        Origin::Outside => match pods() {
            Some(range) => (
                "outside",
                format!("{address} is inside the pod range {range}, but came in by an external interface"),
            ),
            None if !knows_pods(surroundings, Family::of(address)) => {
                ("outside", "no pod range is known (--pod-cidr): pods cannot be told from others".to_owned())
            }
            None => ("outside", format!("{address} is neither in a pod range nor of this node")),
        },
    };
    Client { class, why }
}

pub(super) fn verdict(
    situation: &Situation,
    question: &Question,
    run: &Run,
    matched: Option<&Matched<'_>>,
) -> Verdict {
    let reason = run.reason;
    Verdict {
        class: reason.class().name(),
        reason: reason.name(),
        rule: reason.rule(),
        text: reason.text(),
        detail: detail(situation, question, run, matched),
    }
}

fn detail(situation: &Situation, question: &Question, run: &Run, matched: Option<&Matched<'_>>) -> String {
    let headers = question.packet.headers;
    let to = headers.destination;
    let service = matched.map(|matched| matched.name.to_string()).unwrap_or_default();
    let answered = || match run.after {
        Some(_) => format!("the client gets {}", answer_name(&run.frame)),
        None => "this packet gets no answer, and is dropped".to_owned(),
    };
    let surroundings = &situation.built.desired.surroundings;
    match run.reason {
        Reason::NewFlow => match run.after {
            Some(after) => format!("{service} sends it to {}", after.destination),
            None => String::new(),
        },
        Reason::RejectedNoBackend => format!("{service} has no usable backend on any node: {}", answered()),
        Reason::RejectedPort => format!("{} does not serve {}: {}", to.address, port(question), answered()),
        Reason::Ping => answered(),
        Reason::ResetMidFlow => format!("nothing is known of this connection: {}", answered()),
        Reason::DropNoLocalBackend => {
            let (rule, field) = match matched.map(|matched| matched.kind) {
                Some(FrontendKind::ClusterIp) => ("V3", "internalTrafficPolicy"),
                _ => ("V4", "externalTrafficPolicy"),
            };
            format!("{field} is Local, and no backend of {service} is on this node ({rule})")
        }
        Reason::DropUnowned => {
            let range = surroundings.service_cidrs.iter().find(|range| range.contains(&to.address));
            let range = range.map(ToString::to_string).unwrap_or_default();
            format!("{} is inside the service range {range}, and no Service has it", to.address)
        }
        Reason::DropSourceRange => {
            let ranges = matched
                .map(|matched| layout::source_ranges(matched.service, surroundings, Family::of(to.address)));
            let ranges: Vec<_> = ranges.unwrap_or_default().iter().map(ToString::to_string).collect();
            format!("{} is in none of {}", headers.source.address, super::nearest::list(&ranges))
        }
        Reason::DropExternal => {
            "--external-cluster-ip=allow would let clients from outside dial ClusterIPs".to_owned()
        }
        Reason::DropNoNodeAddress => "--node-address says which one to use".to_owned(),
        Reason::NotOurs => {
            format!("{to}/{} is no frontend: the packet goes on as it came", question.packet.kind)
        }
        _ => match run.reason.class() {
            Class::Passed => "the packet goes on as it came".to_owned(),
            _ => String::new(),
        },
    }
}

fn port(question: &Question) -> String {
    match question.packet.headers.destination.port {
        Some(port) => format!("{port}/{}", question.packet.kind),
        None => question.packet.kind.to_string(),
    }
}

/// Why the source changes, or stays (A1–A3, V4, C6).
pub(super) fn masquerade(
    situation: &Situation,
    question: &Question,
    run: &Run,
    matched: &Matched<'_>,
) -> Option<Masquerade> {
    let after = run.after.filter(|_| run.reason.class() == Class::Forwarded)?;
    let before = question.packet.headers.source;
    let done = after.source != before;
    let surroundings = &situation.built.desired.surroundings;
    let flag = match run.origin {
        Origin::Pod => frontend_flag::MASQUERADE_POD,
        Origin::Node => frontend_flag::MASQUERADE_NODE,
        Origin::Outside => frontend_flag::MASQUERADE_EXTERNAL,
    };
    let asked = run.frontend.is_some_and(|frontend| frontend.flags & flag != 0);
    let (rule, why) = match (done, asked, run.origin) {
        (true, true, _) if surroundings.masquerade_all && matched.kind == FrontendKind::ClusterIp => {
            ("A2", "--masquerade-all")
        }
        (true, true, Origin::Pod) => ("A2", "replies to a pod must come back through this node"),
        (true, true, Origin::Node) => ("A2", "replies to a process of this node must come back to it"),
        (true, true, Origin::Outside) => {
            ("A2", "the client is outside: replies must come back through this node")
        }
        (true, false, _) if after.destination.address == before.address => {
            ("A3", "hairpin: the backend is the client itself")
        }
        (true, false, _) => ("C6", "the same client, port and backend are in use through another frontend"),
        (false, _, Origin::Outside) if matched.local => {
            ("V4", "externalTrafficPolicy is Local: the backend sees the client's address")
        }
        (false, _, Origin::Outside) => ("A1", "clients cannot be told apart: nobody is masqueraded"),
        (false, ..) => ("A1", "the client is inside the cluster: the backend sees its address"),
    };
    Some(Masquerade { done, rule, why: why.to_owned() })
}

/// What else there is to say.
pub(super) fn remarks(
    situation: &Situation,
    question: &Question,
    run: &Run,
    matched: Option<&Matched<'_>>,
) -> Vec<Remark> {
    match (matched, run.reason) {
        (Some(matched), _) => super::nearest::backends(situation, matched.name),
        (None, Reason::NotOurs | Reason::RejectedPort | Reason::DropUnowned) => {
            super::nearest::frontend(situation, question, run.reason == Reason::NotOurs)
        }
        (None, Reason::OtherProtocol) if question.packet.kind == Kind::Ping => {
            let mut remarks = super::nearest::frontend(
                situation,
                question,
                !situation.built.desired.surroundings.no_vip_ping,
            );
            if situation.built.desired.surroundings.no_vip_ping {
                remarks.insert(
                    0,
                    Remark::new("V5", "--vip-ping=off: pings to ClusterIPs are left alone".into()),
                );
            }
            remarks
        }
        (None, _) => Vec::new(),
    }
}
