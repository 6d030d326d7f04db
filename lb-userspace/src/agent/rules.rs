//! Follows the host's packet rules, which decide who forwards.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use crate::forwarding::{self, Forwarding, ForwardingChoice, Rules, RulesError};

/// Between two looks at the rules: those of the iptables of old change without a word.
const RULES_AGAIN: Duration = Duration::from_secs(10);

/// Changes of the host's packet rules, where they matter.
pub(super) enum Changes {
    /// They do not.
    Ignored,
    /// Told by the kernel, if it can, and looked for from time to time.
    Followed { watcher: Option<forwarding::Watcher>, look_at: Instant },
}

impl Changes {
    pub(super) fn of(choice: ForwardingChoice) -> Self {
        if choice != ForwardingChoice::Auto {
            return Self::Ignored;
        }
        let watcher = forwarding::Watcher::new();
        if let Err(error) = &watcher {
            info!("{error}; looking every {} s", RULES_AGAIN.as_secs());
        }
        Self::Followed { watcher: watcher.ok(), look_at: Instant::now() + RULES_AGAIN }
    }

    /// Waits until it is time to look.
    pub(super) async fn next(&mut self) {
        let Self::Followed { watcher, look_at } = self else {
            return std::future::pending().await;
        };
        match watcher {
            Some(watcher) => {
                // Not told in time: look.
                let _told = timeout_at(*look_at, watcher.changed()).await;
            }
            None => sleep_until(*look_at).await,
        }
        *look_at = Instant::now() + RULES_AGAIN;
    }
}

/// Says in the log who forwards, and why.
pub(super) fn report(chosen: Forwarding, rules: &Result<Rules, RulesError>) {
    let who = if chosen.direct { "forwarding directly" } else { "leaving forwarding to the host" };
    match (chosen.reason, rules) {
        (forwarding::Reason::Rules, Ok(rules)) => info!("{who}: rules see forwarded packets: {rules}"),
        (forwarding::Reason::Unseen, Err(error)) => warn!("{who}: {error}"),
        (reason, _) => info!("{who}: {}", reason.text()),
    }
}
