//! Each backend, with the rule that left it in or out.

use std::net::SocketAddr;

use serde::Serialize;

use super::Situation;
use super::packet::Headers;
use crate::model::desired::{Service, ServicePortName};
use crate::model::topology::Standing;
use crate::plan::layout::List;

/// A backend under the policy that applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Address and port.
    pub address: SocketAddr,
    /// Pod or node it belongs to, empty when unknown.
    pub target: String,
    /// On the node that meets the packet.
    pub local: bool,
    /// Its state.
    pub ready: bool,
    /// Its state.
    pub serving: bool,
    /// Its state.
    pub terminating: bool,
    /// Relative weight.
    pub weight: u16,
    /// Whether it takes new connections from this client.
    pub candidate: bool,
    /// The rule that left it in or out.
    pub rule: &'static str,
    /// Why.
    pub why: String,
    /// Whether this packet goes there.
    pub chosen: bool,
}

/// All backends of a service port, as the list that applies sees them. `policy` is the rule that makes it Local.
pub(super) fn candidates(
    situation: &Situation,
    name: &ServicePortName,
    service: &Service,
    (list, policy): (List, &'static str),
    after: Option<Headers>,
) -> Vec<Candidate> {
    let standings = situation.standings(name);
    let standings = match list {
        List::Cluster => standings.cluster,
        List::Local => standings.local,
    };
    let standings = standings.unwrap_or_default();
    let endpoints = situation.built.endpoints.get(name).map_or(&[][..], Vec::as_slice);
    let goes_to = after.map(|headers| (headers.destination.address, headers.destination.port));
    let all = service.backends.iter().zip(endpoints).zip(standings);
    all.map(|((backend, endpoint), standing)| {
        let (rule, why) = match standing {
            Standing::Ready => ("B5", "ready".to_owned()),
            Standing::LastResort => {
                ("B5", "none is ready; this one still serves while it terminates".to_owned())
            }
            Standing::NotReady => ("B5", "not ready".to_owned()),
            Standing::Terminating => ("B8", "terminating: keeps its connections, gets no new one".to_owned()),
            Standing::OtherNode => {
                ("B6", format!("hints: for node {}, not {}", join(&endpoint.node_hints), node(situation)))
            }
            Standing::OtherZone => {
                ("B6", format!("hints: for zone {}, not {}", join(&endpoint.zone_hints), situation.zone()))
            }
            Standing::Remote => (policy, "not on this node, and the policy is Local".to_owned()),
        };
        Candidate {
            address: SocketAddr::new(backend.addr, backend.port),
            target: backend.target.clone(),
            local: backend.local,
            ready: backend.ready,
            serving: backend.serving,
            terminating: backend.terminating,
            weight: backend.weight,
            candidate: standing.is_in(),
            rule,
            why,
            chosen: goes_to == Some((backend.addr, Some(backend.port))),
        }
    })
    .collect()
}

fn join(names: &std::collections::BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn node(situation: &Situation) -> &str {
    match situation.config.node_name.as_str() {
        "" => "this one",
        name => name,
    }
}
