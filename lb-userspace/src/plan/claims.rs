//! Who has which frontend (F1), and which addresses are ClusterIPs (V5).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::FrontendEntry;

use super::Problem;
use super::layout::{key_of, owner_flags};
use super::planner::{Name, Planner};
use super::words::FrontendName;
use crate::model::desired::{Edit, FrontendKind, Surroundings};

impl Planner {
    /// Brings claims up to date with the changed services, and adds to `work` whoever wins or loses a frontend by that.
    pub(super) fn take_claims(
        &mut self,
        edits: Vec<Edit>,
        touched: &mut BTreeMap<FrontendName, Option<Name>>,
        addresses: &mut BTreeSet<IpAddr>,
        work: &mut BTreeSet<Name>,
    ) {
        for (name, after) in edits {
            let before = self.desired.remove(&name);
            let same = match (&before, &after) {
                (Some(before), Some(after)) => before.frontends == after.frontends,
                _ => false,
            };
            if !same {
                for frontend in before.iter().flat_map(|service| &service.frontends) {
                    let key = key_of(&name, frontend);
                    let claims = self.claims.entry(key).or_default();
                    touched.entry(key).or_insert_with(|| claims.first().cloned());
                    claims.remove(&name);
                    if frontend.kind == FrontendKind::ClusterIp {
                        addresses.insert(frontend.addr);
                        if let Entry::Occupied(mut count) = self.cluster_ips.entry(frontend.addr) {
                            *count.get_mut() = count.get().saturating_sub(1);
                            if *count.get() == 0 {
                                count.remove();
                            }
                        }
                    }
                }
                for frontend in after.iter().flat_map(|service| &service.frontends) {
                    let key = key_of(&name, frontend);
                    let claims = self.claims.entry(key).or_default();
                    touched.entry(key).or_insert_with(|| claims.first().cloned());
                    claims.insert(name.clone());
                    if frontend.kind == FrontendKind::ClusterIp {
                        addresses.insert(frontend.addr);
                        *self.cluster_ips.entry(frontend.addr).or_default() += 1;
                    }
                }
            }
            if let Some(after) = after {
                self.desired.insert(name, after);
            }
        }
        for (key, before) in touched {
            let Some(claims) = self.claims.get(key) else { continue };
            let after = claims.first();
            if after != before.as_ref() {
                work.extend(before.iter().chain(after).cloned());
            }
            if claims.len() > 1 {
                self.contested.insert(*key);
            } else {
                self.contested.remove(key);
            }
            if claims.is_empty() {
                self.claims.remove(key);
            }
        }
    }

    /// Whether `name` is the one who has this frontend (F1).
    pub(super) fn wins(&self, name: &Name, frontend: &FrontendName) -> bool {
        self.claims.get(frontend).and_then(BTreeSet::first) == Some(name)
    }

    pub(super) fn drop_unclaimed(&mut self, key: FrontendName) {
        let Some(entry) = self.tables.frontends.get(&key) else { return };
        if let Some(winner) = self.claims.get(&key).and_then(BTreeSet::first) {
            // Planned, or left as it was for want of room: then it must at least be the winner's own.
            if self.services.get(winner).is_some_and(|state| state.id == entry.service_id) {
                return;
            }
        }
        self.set_frontend(key, None);
    }

    pub(super) fn plan_owner(&mut self, addr: IpAddr, surroundings: &Surroundings) {
        let name = FrontendName::owner(addr);
        let before = self.tables.frontends.get(&name).copied();
        if !self.cluster_ips.contains_key(&addr) {
            if before.is_some() {
                self.set_frontend(name, None);
            }
            return;
        }
        let flags = owner_flags(surroundings, name.family());
        let generation = before.map_or(0, |entry| entry.generation);
        let entry = FrontendEntry { flags, generation, ..FrontendEntry::default() };
        if before == Some(entry) {
            return;
        }
        if before.is_none() && !self.has_room_for_frontend(&name) {
            let capacity = self.frontend_capacity(&name);
            self.problems.push(Problem::OwnerTooMuch { frontend: name, capacity });
            self.owners_left_out.insert(addr);
            return;
        }
        self.set_frontend(name, Some(FrontendEntry { generation: generation.wrapping_add(1), ..entry }));
    }

    pub(super) fn report_contested(&mut self) {
        for key in &self.contested {
            let mut claims = self.claims.get(key).into_iter().flatten();
            let Some(winner) = claims.next() else { continue };
            for loser in claims {
                self.problems.push(Problem::Taken {
                    frontend: *key,
                    winner: Box::new(winner.as_ref().clone()),
                    loser: Box::new(loser.as_ref().clone()),
                });
            }
        }
    }
}
