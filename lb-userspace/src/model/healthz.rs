//! What `/healthz` and `/livez` of the agent say (H2). Free of clocks and sockets: who listens tells the time and asks here.
//!
//! As long as changes come in and are not in the kernel within a time limit, the agent is not healthy. A node on its way out
//! makes `/healthz` fail as well, so that load balancers stop sending new connections, but not `/livez`: nothing is gained
//! by a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::desired::Family;
use super::health::Reply;
use crate::source::kube::Node;

/// The taint that the cluster autoscaler puts on nodes it is about to remove.
pub const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// A page that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/healthz`: whether to send traffic here.
    Healthz,
    /// `/livez`: whether to leave the agent running.
    Livez,
}

/// One family's part. Times are since any start that the caller likes, the same for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    last_updated: Option<Duration>,
    /// When the oldest change came that is not in the kernel yet.
    pending_since: Option<Duration>,
}

/// Whether the agent keeps up with its objects.
#[derive(Clone, Debug)]
pub struct AgentHealth {
    timeout: Duration,
    families: BTreeMap<Family, Progress>,
    node_leaves: bool,
}

/// Health of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyHealth {
    /// Nothing is waiting for too long.
    pub healthy: bool,
    /// When the kernel was last up to date.
    pub last_updated: Duration,
}

/// Health at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// When it was asked for.
    pub current_time: Duration,
    /// All families are healthy. The node is another matter.
    pub healthy: bool,
    /// This time while the page is fine, or else when the kernel was last up to date.
    pub last_updated: Option<Duration>,
    /// Whether the node stays. On `/healthz` only.
    pub node_eligible: Option<bool>,
    /// By family, once it has been up to date for the first time.
    pub families: BTreeMap<Family, FamilyHealth>,
    /// HTTP status.
    pub status: u16,
}

impl AgentHealth {
    /// Healthy, with changes allowed to wait for less than this.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, families: BTreeMap::new(), node_leaves: false }
    }

    /// A change came that the kernel does not have yet. An older one that is still waiting counts.
    pub fn queued(&mut self, family: Family, now: Duration) {
        self.families.entry(family).or_default().pending_since.get_or_insert(now);
    }

    /// The kernel has everything of a family.
    pub fn updated(&mut self, family: Family, now: Duration) {
        self.families.insert(family, Progress { last_updated: Some(now), pending_since: None });
    }

    /// What is known of this node. `None`: it has been deleted. Before the first call it is taken to stay.
    pub fn set_node(&mut self, node: Option<&Node>) {
        self.node_leaves = node.is_none_or(|node| {
            node.metadata.deletion_timestamp.is_some()
                || node.spec.taints.iter().any(|taint| taint.key == TO_BE_DELETED)
        });
    }

    /// The state of things. A family that has never been up to date is starting up, and healthy.
    pub fn report(&self, page: Page, now: Duration) -> HealthReport {
        let mut families = BTreeMap::new();
        for (family, progress) in &self.families {
            let Some(last_updated) = progress.last_updated else { continue };
            let waited = progress.pending_since.map(|since| now.saturating_sub(since));
            let healthy = waited.is_none_or(|waited| waited < self.timeout);
            families.insert(*family, FamilyHealth { healthy, last_updated });
        }
        let healthy = families.values().all(|family| family.healthy);
        let node_eligible = (page == Page::Healthz).then_some(!self.node_leaves);
        let fine = healthy && node_eligible != Some(false);
        HealthReport {
            current_time: now,
            healthy,
            last_updated: if fine { Some(now) } else { families.values().map(|f| f.last_updated).max() },
            node_eligible,
            families,
            status: if fine { 200 } else { 503 },
        }
    }
}

impl HealthReport {
    /// The answer as HTTP, in kube-proxy's words; `time` writes times (RFC 3339), `None` is the time before all times.
    pub fn reply(&self, time: impl Fn(Option<Duration>) -> String) -> Reply {
        let mut body = Map::new();
        body.insert("lastUpdated".to_owned(), json!(time(self.last_updated)));
        body.insert("currentTime".to_owned(), json!(time(Some(self.current_time))));
        if let Some(eligible) = self.node_eligible {
            body.insert("nodeEligible".to_owned(), json!(eligible));
        }
        body.insert("healthy".to_owned(), json!(self.healthy));
        if !self.families.is_empty() {
            let status: Map<String, Value> = self
                .families
                .iter()
                .map(|(family, health)| {
                    let name = if *family == Family::V4 { "IPv4" } else { "IPv6" };
                    let last_updated = time(Some(health.last_updated));
                    (name.to_owned(), json!({ "lastUpdated": last_updated, "healthy": health.healthy }))
                })
                .collect();
            body.insert("status".to_owned(), Value::Object(status));
        }
        Reply {
            status: self.status,
            body: Value::Object(body),
            headers: vec![
                ("Content-Type", "application/json".to_owned()),
                ("X-Content-Type-Options", "nosniff".to_owned()),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kube::Taint;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn status(health: &AgentHealth, seconds: u64) -> u16 {
        health.report(Page::Livez, at(seconds)).status
    }

    #[test]
    fn h2_a_change_that_waits_too_long_is_unhealthy_until_it_is_in() {
        let mut health = AgentHealth::new(at(10));
        health.updated(Family::V4, at(0));
        assert_eq!(status(&health, 1000), 200, "nothing waits");
        health.queued(Family::V4, at(1000));
        health.queued(Family::V4, at(1009));
        assert_eq!((status(&health, 1009), status(&health, 1010)), (200, 503), "the older change counts");
        let report = health.report(Page::Livez, at(1010));
        assert_eq!(report.last_updated, Some(at(0)));
        health.updated(Family::V4, at(1011));
        assert_eq!(health.report(Page::Livez, at(1050)).last_updated, Some(at(1050)));
    }

    #[test]
    fn h2_one_late_family_is_enough_and_the_other_does_not_help() {
        let mut health = AgentHealth::new(at(10));
        health.updated(Family::V4, at(0));
        health.updated(Family::V6, at(0));
        health.queued(Family::V6, at(1));
        health.updated(Family::V4, at(20));
        let report = health.report(Page::Healthz, at(21));
        assert_eq!((report.status, report.healthy, report.last_updated), (503, false, Some(at(20))));
        assert_eq!(
            (report.families[&Family::V4].healthy, report.families[&Family::V6].healthy),
            (true, false)
        );
    }

    #[test]
    fn h2_starting_up_is_healthy() {
        let mut health = AgentHealth::new(at(10));
        health.queued(Family::V4, at(0));
        assert_eq!(status(&health, 100), 200);
        assert!(health.report(Page::Livez, at(100)).families.is_empty());
    }

    #[test]
    fn h2_a_node_on_its_way_out_fails_healthz_alone() {
        let mut health = AgentHealth::new(at(10));
        let pages =
            |health: &AgentHealth| [Page::Healthz, Page::Livez].map(|page| health.report(page, at(5)).status);
        let mut node = Node::default();
        node.spec.taints.push(Taint { key: "other".to_owned() });
        health.set_node(Some(&node));
        assert_eq!(pages(&health), [200, 200]);
        node.spec.taints.push(Taint { key: TO_BE_DELETED.to_owned() });
        health.set_node(Some(&node));
        assert_eq!(pages(&health), [503, 200]);
        assert!(health.report(Page::Healthz, at(5)).healthy, "the agent itself is");
        node.spec.taints.clear();
        node.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".to_owned());
        health.set_node(Some(&node));
        assert_eq!(pages(&health), [503, 200]);
        health.set_node(None);
        assert_eq!(pages(&health), [503, 200]);
        health.set_node(Some(&Node::default()));
        assert_eq!(pages(&health), [200, 200]);
    }

    #[test]
    fn h2_replies_have_kube_proxys_fields() {
        let mut health = AgentHealth::new(at(10));
        health.updated(Family::V6, at(3));
        let time =
            |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), |t| t.as_secs().to_string());
        let reply = health.report(Page::Healthz, at(4)).reply(time);
        let expected = json!({
            "lastUpdated": "4", "currentTime": "4", "nodeEligible": true, "healthy": true,
            "status": {"IPv6": {"lastUpdated": "3", "healthy": true}},
        });
        assert_eq!((reply.status, reply.body), (200, expected));
        let reply = AgentHealth::new(at(10)).report(Page::Livez, at(4)).reply(time);
        assert_eq!(reply.body, json!({"lastUpdated": "4", "currentTime": "4", "healthy": true}));
    }
}
