//! The packet rows, through test runs: the same that run on the host and on this machine's kernel.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Check, XDP_FRAGS};
use crate::rows::cases::{GROUPS, group};
use crate::rows::run::run_all;
use crate::rows::{Hook, Kernel};

/// A hook's programs, loaded for its first group: the verifier takes its time in here.
type Shared = Arc<Mutex<Option<Kernel>>>;

/// One for each program and group of rules.
pub fn checks() -> Vec<Check> {
    let hooks = [("tc", Hook::Tc), ("xdp", Hook::Xdp), ("xdp-frags", Hook::XdpFrags)];
    let of_hook = |(name, hook): (&'static str, Hook)| {
        let needs = (hook == Hook::XdpFrags).then_some(XDP_FRAGS);
        let shared = Shared::default();
        GROUPS.iter().map(move |(rules, _)| {
            let shared = shared.clone();
            Check::new(format!("rows/{name}/{rules}"), needs, move || run(hook, rules, &shared))
        })
    };
    hooks.into_iter().flat_map(of_hook).collect()
}

fn run(hook: Hook, rules: &str, shared: &Shared) -> String {
    // A failed group leaves nothing that the next one does not clear away.
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = match shared.as_mut() {
        Some(kernel) => kernel,
        None => shared.insert(Kernel::load(hook).unwrap_or_else(|error| panic!("{error}"))),
    };
    match run_all(kernel, &group(rules)) {
        Ok(0) => panic!("no row ran"),
        Ok(ran) => format!("{ran} rows"),
        Err(failures) => panic!("failed rows:\n{failures}"),
    }
}
