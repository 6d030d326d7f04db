//! Slices as they come, one by one: which of them change anything, for which Services, and since when.
//!
//! Changes gather until they are taken all at once. With each Service come the times of the events in the cluster that its
//! new endpoints are due to, so that somebody can tell how long it took until packets knew.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::desired::Family;
use super::endpoints::{data_changed, service_of};
use super::labels;
use super::services::is_ours;
use super::timestamp::Timestamp;
use crate::source::kube::{EndpointSlice, Name};

/// What is to become of a slice.
#[derive(Clone, Debug)]
struct Pending {
    slice: Arc<EndpointSlice>,
    removed: bool,
}

/// The slices of a Service, by name.
#[derive(Clone, Debug, Default)]
struct Slices {
    applied: BTreeMap<String, Arc<EndpointSlice>>,
    pending: BTreeMap<String, Pending>,
}

/// A Service whose slices changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The Service.
    pub service: Name,
    /// Its slices when changes were taken last.
    pub previous: Vec<Arc<EndpointSlice>>,
    /// Its slices now.
    pub current: Vec<Arc<EndpointSlice>>,
    /// When what happened that the changes are due to, in order of arrival; empty when nobody said.
    pub trigger_times: Vec<Timestamp>,
}

/// Gathers changes of slices.
#[derive(Clone, Debug)]
pub struct SliceChanges {
    families: Vec<Family>,
    started: Timestamp,
    services: BTreeMap<Name, Slices>,
    trigger_times: BTreeMap<Name, Vec<Timestamp>>,
}

impl SliceChanges {
    /// Knows no slices yet, and will look at those of these families. What happened before it was started is no measure of
    /// how fast it is.
    pub fn new(families: &[Family], started: Timestamp) -> Self {
        Self {
            families: families.to_vec(),
            started,
            services: BTreeMap::new(),
            trigger_times: BTreeMap::new(),
        }
    }

    /// Takes a slice that came, changed or went; true when that makes a difference to what is known or waits already.
    pub fn update(&mut self, slice: &Arc<EndpointSlice>, removed: bool) -> bool {
        let Some(service) = service_of(slice).filter(|_| self.looks_at(slice)) else { return false };
        let slices = self.services.entry(service.clone()).or_default();
        let name = &slice.metadata.name;
        let changed = match (slices.pending.get(name), slices.applied.get(name)) {
            (Some(known), _) => known.removed != removed || data_changed(&known.slice, slice),
            (None, Some(known)) => removed || data_changed(known, slice),
            (None, None) => !removed,
        };
        if !changed {
            return false;
        }
        slices.pending.insert(name.clone(), Pending { slice: Arc::clone(slice), removed });
        if removed {
            // The annotation of a slice that goes is about an earlier change.
            self.trigger_times.remove(&service);
        } else {
            let text = slice.metadata.annotations.get(labels::LAST_CHANGE_TRIGGER_TIME);
            let time = text.and_then(|text| Timestamp::parse(text)).filter(|time| *time > self.started);
            if let Some(time) = time {
                self.trigger_times.entry(service).or_default().push(time);
            }
        }
        true
    }

    /// Takes all changes since the last time, by Service.
    pub fn take(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (service, slices) in &mut self.services {
            if slices.pending.is_empty() {
                continue;
            }
            let previous = slices.applied.values().cloned().collect();
            for (name, pending) in std::mem::take(&mut slices.pending) {
                if pending.removed {
                    slices.applied.remove(&name);
                } else {
                    slices.applied.insert(name, pending.slice);
                }
            }
            changes.push(Change {
                service: service.clone(),
                previous,
                current: slices.applied.values().cloned().collect(),
                trigger_times: self.trigger_times.remove(service).unwrap_or_default(),
            });
        }
        self.services.retain(|_, slices| !slices.applied.is_empty());
        changes
    }

    fn looks_at(&self, slice: &EndpointSlice) -> bool {
        let family = match slice.address_type.as_deref() {
            Some("IPv4") => Family::V4,
            Some("IPv6") => Family::V6,
            _ => return false,
        };
        self.families.contains(&family) && is_ours(&slice.metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kube::{Endpoint, EndpointPort};

    /// A slice of Service `ns/s` with one address.
    fn slice(name: &str, address: &str, triggered: Option<&str>) -> Arc<EndpointSlice> {
        let mut slice = EndpointSlice { address_type: Some("IPv4".to_owned()), ..EndpointSlice::default() };
        slice.metadata.name = name.to_owned();
        slice.metadata.namespace = Some("ns".to_owned());
        slice.metadata.labels.insert(labels::SERVICE_NAME.to_owned(), "s".to_owned());
        let time = triggered.map(|time| (labels::LAST_CHANGE_TRIGGER_TIME.to_owned(), time.to_owned()));
        slice.metadata.annotations.extend(time);
        slice.ports.push(EndpointPort { port: Some(80), ..EndpointPort::default() });
        slice.endpoints.push(Endpoint { addresses: vec![address.to_owned()], ..Endpoint::default() });
        Arc::new(slice)
    }

    fn changes() -> SliceChanges {
        SliceChanges::new(&[Family::V4], Timestamp::from_seconds(100))
    }

    #[test]
    fn what_waits_is_compared_before_what_is_applied() {
        let mut changes = changes();
        let (one, two) = (slice("a", "10.0.0.1", None), slice("a", "10.0.0.2", None));
        assert!(changes.update(&one, false));
        assert!(!changes.update(&one, false), "the same again");
        changes.take();
        assert!(!changes.update(&one, false), "the same as applied");
        assert!(changes.update(&two, false));
        assert!(changes.update(&one, false), "back to what is applied, but not to what waits");
        assert!(changes.update(&one, true));
        assert!(!changes.update(&one, true), "gone already");
        assert!(!changes.update(&slice("unknown", "10.0.0.3", None), true));
    }

    #[test]
    fn taking_says_before_and_after_by_service() {
        let mut changes = changes();
        let (one, two) = (slice("a", "10.0.0.1", None), slice("b", "10.0.0.2", None));
        assert_eq!(changes.take(), []);
        changes.update(&one, false);
        assert_eq!(changes.take()[0].current, [Arc::clone(&one)]);
        changes.update(&two, false);
        changes.update(&one, true);
        let taken = changes.take();
        assert_eq!((&*taken[0].previous, &*taken[0].current), (&[one][..], &[two][..]));
        assert_eq!(changes.take(), []);
    }

    #[test]
    fn other_families_and_other_proxies_slices_change_nothing() {
        let mut changes = changes();
        for address_type in ["FQDN", "IPv6"] {
            let mut other = EndpointSlice::clone(&slice("a", "10.0.0.1", None));
            other.address_type = Some(address_type.to_owned());
            assert!(!changes.update(&Arc::new(other), false));
        }
        let mut other = EndpointSlice::clone(&slice("a", "10.0.0.1", None));
        other.metadata.labels.insert(labels::SERVICE_PROXY_NAME.to_owned(), String::new());
        assert!(!changes.update(&Arc::new(other), false));
        assert_eq!(changes.take(), []);
    }

    #[test]
    fn trigger_times_gather_and_end_with_a_removal() {
        let times = |changes: &mut SliceChanges| -> Vec<_> {
            changes.take().into_iter().flat_map(|change| change.trigger_times).collect()
        };
        let mut changes = changes();
        changes.update(&slice("a", "10.0.0.1", Some("1970-01-01T00:01:40Z")), false);
        changes.update(&slice("a", "10.0.0.2", Some("1970-01-01T00:01:41Z")), false);
        changes.update(&slice("a", "10.0.0.2", Some("1970-01-01T00:01:42Z")), false);
        changes.update(&slice("b", "10.0.0.3", Some("not a time")), false);
        changes.update(&slice("b", "10.0.0.4", Some("1970-01-01T00:01:43Z")), false);
        let seconds = [101, 103].map(Timestamp::from_seconds);
        assert_eq!(times(&mut changes), seconds, "not from before the start, and not without a change");
        changes.update(&slice("a", "10.0.0.5", Some("1970-01-01T00:01:44Z")), false);
        changes.update(&slice("a", "10.0.0.5", Some("1970-01-01T00:01:44Z")), true);
        assert_eq!(times(&mut changes), []);
    }
}
