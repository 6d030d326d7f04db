//! Connections through a Service.

use super::Check;

/// For each hook.
pub fn checks() -> Vec<Check> {
    Vec::new()
}
