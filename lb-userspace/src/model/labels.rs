//! Names of labels and annotations.

/// On EndpointSlices: the Service they belong to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// On Services and EndpointSlices: somebody else serves them, whatever the value (F4).
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// On Services and EndpointSlices: headless, whatever the value (F3, F4).
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation of EndpointSlices: when what happened that they were changed for (RFC 3339).
pub const LAST_CHANGE_TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// On Nodes: their zone (B6).
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Annotation of Services: `round-robin`, `random`, `maglev`, `least-connections` or `weighted` (S2).
pub const ALGORITHM: &str = "lb.io/algorithm";
/// Annotation of Pods, and of EndpointSlices for all of their endpoints: 1 to 1000 (S2, `weighted`).
pub const WEIGHT: &str = "lb.io/weight";
