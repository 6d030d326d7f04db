//! Numbers about the desired state.

use super::build::Built;
use super::desired::Family;

/// Service ports whose Local policy finds nobody here although there is somebody elsewhere (V2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    /// By `internalTrafficPolicy`.
    pub internal: usize,
    /// By `externalTrafficPolicy`.
    pub external: usize,
}

/// Counts them in one family.
pub fn no_local_endpoints(built: &Built, family: Family) -> NoLocalEndpoints {
    let mut counts = NoLocalEndpoints::default();
    for (name, service) in built.desired.services.iter().filter(|(name, _)| name.family == family) {
        let nobody_here = service.has_any_endpoints && service.local.as_ref().is_some_and(Vec::is_empty);
        let outside = built.services.get(name).is_some_and(|info| info.is_externally_accessible());
        counts.internal += usize::from(nobody_here && service.internal_local);
        counts.external += usize::from(nobody_here && service.external_local && outside);
    }
    counts
}
