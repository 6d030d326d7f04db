//! Who wants which frontend, kept up to date as Services change: the same outcome as giving all frontends anew.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::build::Note;
use super::desired::{Frontend, FrontendKind, Protocol, ServicePortName};
use super::frontends::{KINDS, Remark, Rules};

/// Where packets are sent to.
pub(super) type Place = (IpAddr, Protocol, u16);

/// Somebody who wants a place: first by the rank of the kind, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    rank: u8,
    name: Arc<ServicePortName>,
}

/// Those who want one place, in order. There is nearly always one.
#[derive(Debug)]
enum Claims {
    One(Claim),
    Several(Box<[Claim]>),
}

impl Claims {
    fn as_slice(&self) -> &[Claim] {
        match self {
            Self::One(claim) => std::slice::from_ref(claim),
            Self::Several(claims) => claims,
        }
    }

    fn of(mut claims: Vec<Claim>) -> Option<Self> {
        claims.sort_unstable();
        claims.dedup();
        match claims.len() {
            0 => None,
            1 => claims.pop().map(Self::One),
            _ => Some(Self::Several(claims.into())),
        }
    }
}

fn rank(kind: FrontendKind) -> u8 {
    KINDS.iter().zip(0..).find(|(known, _)| **known == kind).map_or(u8::MAX, |(_, rank)| rank)
}

pub(super) fn place(name: &ServicePortName, frontend: &Frontend) -> Place {
    (frontend.addr, name.protocol, frontend.port)
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct ClaimMap(HashMap<Place, Claims>);

impl ClaimMap {
    pub(super) fn add(&mut self, name: &Arc<ServicePortName>, frontend: &Frontend) {
        let claim = Claim { rank: rank(frontend.kind), name: Arc::clone(name) };
        self.change(place(name, frontend), |claims| claims.push(claim));
    }

    pub(super) fn remove(&mut self, name: &Arc<ServicePortName>, frontend: &Frontend) {
        let rank = rank(frontend.kind);
        self.change(place(name, frontend), |claims| {
            claims.retain(|claim| claim.rank != rank || claim.name != *name);
        });
    }

    fn change(&mut self, place: Place, change: impl FnOnce(&mut Vec<Claim>)) {
        let mut claims = match self.0.remove(&place) {
            None => Vec::new(),
            Some(Claims::One(claim)) => vec![claim],
            Some(Claims::Several(claims)) => claims.into_vec(),
        };
        change(&mut claims);
        if let Some(claims) = Claims::of(claims) {
            self.0.insert(place, claims);
        }
    }

    /// Those who want a place.
    pub(super) fn names(&self, place: &Place) -> impl Iterator<Item = &Arc<ServicePortName>> {
        self.0.get(place).map_or(&[][..], Claims::as_slice).iter().map(|claim| &claim.name)
    }

    /// Which of the frontends that it wants a service port has, and which it has not, both in order.
    pub(super) fn decide(
        &self,
        rules: &Rules<'_>,
        name: &Arc<ServicePortName>,
        wanted: impl IntoIterator<Item = Frontend>,
        notes: &mut Vec<Note>,
    ) -> (Vec<Frontend>, Vec<Frontend>) {
        let (mut has, mut lacks) = (Vec::new(), Vec::new());
        for frontend in wanted {
            let remark = rules.remark(&frontend, name.protocol);
            let first = self.0.get(&place(name, &frontend)).and_then(|claims| claims.as_slice().first());
            let remark = match (remark, first) {
                (Some(Remark::Protected), _) => remark,
                (_, Some(first)) if first.name != *name => Some(Remark::Taken(&first.name)),
                // It has the place already, by an address of another kind.
                (_, Some(first)) if first.rank != rank(frontend.kind) => {
                    lacks.push(frontend);
                    continue;
                }
                _ => remark,
            };
            notes.extend(remark.map(|remark| remark.note(name, &frontend)));
            match remark {
                None | Some(Remark::Hides) => has.push(frontend),
                _ => lacks.push(frontend),
            }
        }
        has.sort_unstable();
        lacks.sort_unstable();
        (has, lacks)
    }
}
