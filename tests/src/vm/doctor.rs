//! `lb doctor` and `lb status` say what this kernel lacks.

use serde_json::Value;

use super::{Check, NEEDS};
use crate::node::TestNode;
use lb_userspace::dataplane::kernel_at_least;

/// One.
pub fn checks() -> Vec<Check> {
    vec![Check::new("doctor", None, doctor)]
}

fn doctor() -> String {
    let node = TestNode::new(1);
    let output = node.lb(&["doctor", "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let version = report["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == "kernel version"))
        .unwrap_or_else(|| panic!("{report}"));
    let found = version["found"].as_str().unwrap_or_default();
    for need in NEEDS {
        let there = kernel_at_least(need.since.0, need.since.1);
        assert_eq!(!found.contains(need.feature), there, "{}: {found}", need.feature);
    }
    found.to_owned()
}
