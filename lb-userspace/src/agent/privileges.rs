//! What the agent may do once it has begun: no more than it needs.

use anyhow::Context;
use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

use crate::dataplane::kernel_at_least;

/// What the agent needs as long as it runs.
const NEEDED: [Capability; 5] = [
    // Programs, maps, links.
    Capability::CAP_BPF,
    // What the verifier lets only trusted programs do.
    Capability::CAP_PERFMON,
    // Programs that handle packets, and interfaces.
    Capability::CAP_NET_ADMIN,
    // DNS and health checks on ports below 1024.
    Capability::CAP_NET_BIND_SERVICE,
    // Manifests in somebody's home.
    Capability::CAP_DAC_READ_SEARCH,
];

/// Gives up every other capability, for this thread and those that it starts, and for good: no program that they run
/// gets them back. `more` is what the options ask for. To be called before the first thread is started.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn give_up(more: &[Capability]) -> anyhow::Result<()> {
    let mut kept: CapsHashSet = NEEDED.iter().chain(more).copied().collect();
    if !kernel_at_least(5, 8) {
        // CAP_BPF and CAP_PERFMON were part of it.
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    if !kernel_at_least(5, 11) {
        // Maps counted as locked memory.
        kept.insert(Capability::CAP_SYS_RESOURCE);
    }
    keep(kept).context("cannot give up capabilities")?;
    prctl::set_no_new_privs().context("cannot give up new privileges")
}

fn keep(mut kept: CapsHashSet) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    // While it may.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Inheritable)?;
    kept.retain(|capability| permitted.contains(capability));
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
