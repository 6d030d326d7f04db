//! What is in force of all that the files hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::file::{File, name_of, whole_file};
use super::kube::{Kind, Name, Object};
use super::memory::KeptObjects;
use super::packed::{Digest, Packed};
use super::problem::{Problem, Severity};
use super::store::Held;
use crate::model::endpoints::service_of;

/// All files together.
pub(super) struct Merged {
    pub(super) in_force: HashMap<Digest, Held>,
    pub(super) problems: Vec<Problem>,
    /// Last good states that stay in force although nothing gives them any more.
    pub(super) kept: KeptObjects,
    /// Every object is in one file, whole and good, and counts.
    pub(super) is_plain: bool,
}

/// Puts all files together. Later paths of the command line win, and in a folder later names. Pods and what is made for them
/// comes from `pods_from` alone, if that is given. `previous` says what was in force until now.
pub(super) fn merge<'a>(
    files: &BTreeMap<PathBuf, File>,
    paths: &[PathBuf],
    pods_from: Option<&Path>,
    previous: impl Fn(&Digest) -> Option<&'a Packed>,
) -> Merged {
    let mut problems = Vec::new();
    let mut in_force: HashMap<Digest, Held> = HashMap::new();
    let mut origin: HashMap<Digest, &Path> = HashMap::new();
    let mut ordered: Vec<_> = files.iter().collect();
    ordered.sort_by_key(|(file, _)| paths.iter().rposition(|path| file.starts_with(path)));
    let foreign = |path: &Path| pods_from.is_some_and(|own| !path.starts_with(own));
    let mut is_plain = pods_from.is_none();
    for (path, file) in ordered {
        is_plain &= file.is_sound();
        for (id, object, line) in file.objects() {
            if matches!(object.kind(), Some(Kind::Pod | Kind::Node)) && foreign(path) {
                continue;
            }
            in_force.insert(id, Held { object: object.clone(), file: file.number });
            if let Some(earlier) = origin.insert(id, path) {
                is_plain = false;
                problems.push(Problem {
                    line,
                    object: name_of(object),
                    reason: format!("is also in {}: this one is used", earlier.display()),
                    severity: Severity::Warning,
                    ..whole_file(path, String::new())
                });
            }
        }
    }
    if pods_from.is_some() {
        let selecting: BTreeSet<Name> =
            in_force.values().filter_map(|held| selecting_service(&held.object)).collect();
        in_force.retain(|id, held| {
            let made = served_by(&held.object).is_some_and(|service| selecting.contains(&service));
            !(made && origin.get(id).is_some_and(|path| foreign(path)))
        });
    }
    let mut kept = KeptObjects::new();
    for (path, file) in files {
        for id in file.broken.iter().map(Digest::of_key) {
            if let Some(object) = (!in_force.contains_key(&id)).then(|| previous(&id)).flatten() {
                in_force.insert(id, Held { object: object.clone(), file: file.number });
                kept.entry(path.clone()).or_default().push((id, object.clone()));
            }
        }
        if !file.kept.is_empty() {
            kept.entry(path.clone()).or_default().extend(file.kept.iter().cloned());
        }
        problems.extend(file.problems.iter().cloned().map(|problem| {
            let kept = file.broken.iter().any(|key| {
                problem.severity == Severity::Error
                    && problem.object == key.to_string()
                    && in_force.contains_key(&Digest::of_key(key))
            });
            Problem { kept_last_good: problem.kept_last_good || kept, ..problem }
        }));
    }
    Merged { in_force, problems, kept, is_plain }
}

/// The name of a Service with a selector: a controller makes its endpoints.
fn selecting_service(object: &Packed) -> Option<Name> {
    match object.unpack()? {
        Object::Service(service) if !service.spec.selector.is_empty() => Some(service.metadata.full_name()),
        _ => None,
    }
}

/// The Service that an object holds endpoints of.
fn served_by(object: &Packed) -> Option<Name> {
    match object.unpack()? {
        Object::EndpointSlice(slice) => service_of(&slice),
        Object::Endpoints(endpoints) => Some(endpoints.metadata.full_name()),
        _ => None,
    }
}
