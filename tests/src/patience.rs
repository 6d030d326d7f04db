//! Waiting, by looking again and again.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes that takes milliseconds on an idle machine, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not for [`PATIENCE`].
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
