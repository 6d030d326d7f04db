//! Pods by name.

use std::collections::BTreeSet;

use super::error::{Error, Result};
use super::labs::Lab;
use super::state::Pod;

impl Lab {
    /// The pod that `text` means: its name, `namespace/name`, the unambiguous beginning of either, or `kind/name` of the
    /// workload that it is the first pod of, as in `deployment/web`.
    ///
    /// # Errors
    /// When it means none, or more than one.
    pub fn pod(&self, text: &str) -> Result<&Pod> {
        let full = |pod: &Pod| format!("{}/{}", pod.template.namespace, pod.name);
        let matching = |test: &dyn Fn(&Pod) -> bool| -> Vec<&Pod> {
            self.state().pods.iter().filter(|pod| test(pod)).collect()
        };
        let mut found = matching(&|pod| pod.name == text || full(pod) == text);
        if found.is_empty() {
            found = matching(&|pod| is_of(pod, text));
            // As `kubectl exec deploy/NAME` takes any of them.
            found.truncate(1);
        }
        if found.is_empty() {
            found = matching(&|pod| pod.name.starts_with(text) || full(pod).starts_with(text));
        }
        match found.as_slice() {
            [pod] => Ok(pod),
            [] => Err(Error::Missing {
                object: format!("pod {text} in the lab {}", self.state().name),
                hint: format!("there are {}", self.names(&self.state().pods.iter().collect::<Vec<_>>())),
            }),
            several => Err(Error::invalid(
                format!("pod {text}"),
                format!("may be any of {}; give more of the name", self.names(several)),
            )),
        }
    }

    fn names(&self, pods: &[&Pod]) -> String {
        let namespaces: BTreeSet<&str> = pods.iter().map(|pod| pod.template.namespace.as_str()).collect();
        let name = |pod: &&Pod| match namespaces.len() {
            0 | 1 => pod.name.clone(),
            _ => format!("{}/{}", pod.template.namespace, pod.name),
        };
        let names: Vec<String> = pods.iter().map(name).collect();
        names.join(", ")
    }
}

/// Whether `text` is `kind/name` of the pod's workload, the kind as kubectl has it, also in short.
fn is_of(pod: &Pod, text: &str) -> bool {
    let kind = match text.split_once('/') {
        Some((kind, name)) if name == pod.template.name => kind,
        _ => return false,
    };
    let short = match pod.template.kind.as_str() {
        "Deployment" => "deploy",
        "ReplicaSet" => "rs",
        "StatefulSet" => "sts",
        _ => "po",
    };
    kind == short || kind.eq_ignore_ascii_case(&pod.template.kind)
}
