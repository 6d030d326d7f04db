//! What each file holds, and all files together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::debug;

use super::document::{self, Document, Finding};
use super::kube::{Kind, Name, ObjectKey};
use super::memory::{KeptObjects, Memory};
use super::objects::{Objects, SharedObject};
use super::problem::{Problem, Severity};
use super::stamp::Stamp;
use super::watch::Watch;
use crate::model::endpoints::service_of;

/// File names that are read in a folder.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What is known after a load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// All objects in force.
    pub objects: Arc<Objects>,
    /// Everything wrong with the input, in order.
    pub problems: Vec<Problem>,
}

/// Files and folders of manifests.
#[derive(Debug)]
pub struct Source {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
    /// What was in force after the last load: the last good states.
    in_force: BTreeMap<ObjectKey, SharedObject>,
    snapshot: Snapshot,
    watch: Watch,
    /// The one of the paths that alone says which pods there are.
    pods_from: Option<PathBuf>,
    memory: Option<Memory>,
    /// Last good states of an earlier run, until the first load.
    recalled: KeptObjects,
    /// Problems of no file, as they were at the last load.
    general_problems: Vec<Problem>,
}

impl Source {
    /// A source of these files and folders; nothing is read yet. Of a folder, its files `*.yaml`, `*.yml` and `*.json`
    /// are read, not its subfolders, as `kubectl apply -f` does it.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        let paths: Vec<_> = paths.into_iter().map(Into::into).collect();
        Self {
            watch: Watch::new(&paths),
            paths,
            files: BTreeMap::new(),
            in_force: BTreeMap::new(),
            snapshot: Snapshot::default(),
            pods_from: None,
            memory: None,
            recalled: KeptObjects::new(),
            general_problems: Vec::new(),
        }
    }

    /// Takes Pods, Nodes, and EndpointSlices and Endpoints of Services with a selector from this one of the paths alone. Those
    /// in the others are taken for somebody else's: what another cluster has, whose manifests these are.
    #[must_use]
    pub fn with_pods_from(self, path: Option<PathBuf>) -> Self {
        Self { pods_from: path, ..self }
    }

    /// Keeps last good states in this file, so that a restart does not take down what is broken. To be called before the
    /// first load.
    ///
    /// # Errors
    /// When there is such a file and nothing can be made of it; it will be written anew.
    pub fn remember_in(&mut self, path: PathBuf) -> Result<(), Problem> {
        let memory = self.memory.insert(Memory::new(path));
        self.recalled = memory.read().map_err(|reason| whole_file(memory.path(), reason))?;
        self.in_force.extend(self.recalled.values().flatten().cloned());
        Ok(())
    }

    /// Reads what has changed since the last call and says what is in force now. Never fails: what is wrong is among the
    /// problems.
    pub fn load(&mut self) -> Snapshot {
        let mut problems: Vec<_> = self.watch.renew().into_iter().collect();
        let forced = self.watch.take_changed();
        let mut unknown = Vec::new();
        let mut present = BTreeSet::new();
        for path in &self.paths {
            match list(path) {
                Ok(found) => present.extend(found),
                Err(error) => {
                    let gone = error.kind() == io::ErrorKind::NotFound;
                    problems.push(Problem { kept_last_good: !gone, ..whole_file(path, reason(&error)) });
                    if !gone {
                        unknown.push(path.clone());
                    }
                }
            }
        }
        // What a folder that cannot be listed held is kept, as nothing is known about it.
        let before = self.files.len();
        self.files.retain(|path, _| {
            present.contains(path) || unknown.iter().any(|folder| path.starts_with(folder))
        });
        let mut changed =
            self.files.len() != before || problems != self.general_problems || !self.recalled.is_empty();
        for path in present {
            let force = forced.contains(&path);
            match self.files.get_mut(&path) {
                Some(file) => changed |= file.refresh(&path, force),
                None => {
                    let mut file = File::recall(self.recalled.remove(&path));
                    file.refresh(&path, true);
                    self.files.insert(path, file);
                    changed = true;
                }
            }
        }
        if changed {
            self.general_problems.clone_from(&problems);
            self.merge(problems);
        }
        self.recalled.clear();
        self.snapshot.clone()
    }

    /// Waits until something may have changed: at once after a change that inotify reports, when it has been quiet for
    /// some milliseconds, or after a slow look at all files. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            if self.watch.wait().await || self.is_stale() {
                return;
            }
        }
    }

    /// True when a look at the time stamps shows a difference.
    fn is_stale(&self) -> bool {
        let mut present = 0;
        for path in self.paths.iter().filter_map(|path| list(path).ok()).flatten().collect::<BTreeSet<_>>() {
            present += 1;
            let stamp = Stamp::of(&path).ok();
            if self.files.get(&path).is_none_or(|file| file.stamp.is_none() || file.stamp != stamp) {
                return true;
            }
        }
        present != self.files.len()
    }

    fn merge(&mut self, mut problems: Vec<Problem>) {
        let mut in_force: BTreeMap<ObjectKey, SharedObject> = BTreeMap::new();
        let mut origin: HashMap<&ObjectKey, &Path> = HashMap::new();
        // Later paths of the command line win, and in a folder later names.
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_key(|(file, _)| self.paths.iter().rposition(|path| file.starts_with(path)));
        let foreign = |path: &Path| self.pods_from.as_ref().is_some_and(|own| !path.starts_with(own));
        for (path, file) in files {
            for (key, object, line) in &file.objects {
                if matches!(key.kind, Kind::Pod | Kind::Node) && foreign(path) {
                    continue;
                }
                in_force.insert(key.clone(), object.clone());
                if let Some(earlier) = origin.insert(key, path) {
                    problems.push(Problem {
                        line: *line,
                        object: key.to_string(),
                        reason: format!("is also in {}: this one is used", earlier.display()),
                        severity: Severity::Warning,
                        ..whole_file(path, String::new())
                    });
                }
            }
        }
        let selecting: BTreeSet<Name> = in_force.values().filter_map(selecting_service).collect();
        in_force.retain(|key, object| {
            let made = served_by(object).is_some_and(|service| selecting.contains(&service));
            !(made && origin.get(key).is_some_and(|path| foreign(path)))
        });
        let mut kept = KeptObjects::new();
        for (path, file) in &self.files {
            for key in &file.broken {
                if let Some(object) = (!in_force.contains_key(key)).then(|| self.in_force.get(key)).flatten()
                {
                    in_force.insert(key.clone(), object.clone());
                    kept.entry(path.clone()).or_default().push((key.clone(), object.clone()));
                }
            }
            for (key, object, _) in file.objects.iter().filter(|(key, ..)| file.kept.contains(key)) {
                kept.entry(path.clone()).or_default().push((key.clone(), object.clone()));
            }
            problems.extend(file.problems.iter().cloned().map(|problem| {
                let kept = file.broken.iter().any(|key| {
                    problem.severity == Severity::Error
                        && problem.object == key.to_string()
                        && in_force.contains_key(key)
                });
                Problem { kept_last_good: problem.kept_last_good || kept, ..problem }
            }));
        }
        if let Some(memory) = &mut self.memory
            && let Err(reason) = memory.write(&kept)
        {
            problems.push(Problem { severity: Severity::Warning, ..whole_file(memory.path(), reason) });
        }
        problems.sort();
        let mut objects = Objects::default();
        for object in in_force.values() {
            objects.insert(object.clone());
        }
        self.in_force = in_force;
        self.snapshot = Snapshot { objects: Arc::new(objects), problems };
    }
}

/// The name of a Service with a selector: a controller makes its endpoints.
fn selecting_service(object: &SharedObject) -> Option<Name> {
    match object {
        SharedObject::Service(service) if !service.spec.selector.is_empty() => {
            Some(service.metadata.full_name())
        }
        _ => None,
    }
}

/// The Service that an object holds endpoints of.
fn served_by(object: &SharedObject) -> Option<Name> {
    match object {
        SharedObject::EndpointSlice(slice) => service_of(slice),
        SharedObject::Endpoints(endpoints) => Some(endpoints.metadata.full_name()),
        _ => None,
    }
}

/// The files a path stands for, in order.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let wanted =
            path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
        if hidden || !wanted {
            continue;
        }
        // Follows symbolic links; one that leads nowhere is no file.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => found.push(path),
            Ok(_) => debug!(path = %path.display(), "not a file, skipped"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn whole_file(path: &Path, reason: String) -> Problem {
    Problem {
        file: path.to_owned(),
        line: 0,
        object: String::new(),
        field: String::new(),
        reason,
        severity: Severity::Error,
        kept_last_good: false,
    }
}

/// A document as it was read; lines count within the document.
#[derive(Debug)]
struct ReadDocument {
    text: String,
    objects: Vec<(ObjectKey, SharedObject, u64)>,
    findings: Vec<Finding>,
}

impl ReadDocument {
    fn new(text: &str) -> Self {
        let contents = document::read(Document { text, lines_before: 0 });
        Self {
            text: text.to_owned(),
            objects: contents
                .objects
                .into_iter()
                .map(|(object, line)| (object.key(), object.into(), line))
                .collect(),
            findings: contents.findings,
        }
    }
}

/// One file's state.
#[derive(Debug, Default)]
struct File {
    /// `None`: to be read at the next load.
    stamp: Option<Stamp>,
    documents: Vec<(Arc<ReadDocument>, u64)>,
    /// Objects in force, with their lines.
    objects: Vec<(ObjectKey, SharedObject, u64)>,
    /// Objects whose documents are broken, and that no document of this file gives in a good state.
    broken: Vec<ObjectKey>,
    /// Objects in force that no document gives any more, as one cannot be read.
    kept: BTreeSet<ObjectKey>,
    problems: Vec<Problem>,
}

impl File {
    /// A file that is new to this run, with what an earlier one held to.
    fn recall(objects: Option<Vec<(ObjectKey, SharedObject)>>) -> Self {
        let objects = objects.into_iter().flatten().map(|(key, object)| (key, object, 0)).collect();
        Self { objects, ..Self::default() }
    }

    /// Reads the file if it has changed or must be; true if it was read.
    fn refresh(&mut self, path: &Path, force: bool) -> bool {
        let read = Stamp::of(path).and_then(|stamp| {
            if !force && self.stamp == Some(stamp) {
                return Ok(None);
            }
            fs::read(path).map(|bytes| Some((stamp, bytes)))
        });
        match read {
            Ok(None) => return false,
            Ok(Some((stamp, bytes))) => match String::from_utf8(bytes) {
                Ok(text) => {
                    self.stamp = (!stamp.is_young()).then_some(stamp);
                    self.take(path, &text);
                }
                Err(error) => {
                    let good = error.utf8_error().valid_up_to();
                    let line = error.as_bytes()[..good].iter().filter(|&&byte| byte == b'\n').count() + 1;
                    self.stamp = None;
                    self.refuse(Problem {
                        line: line as u64,
                        ..whole_file(path, "is not UTF-8 text".to_owned())
                    });
                }
            },
            Err(error) => {
                self.stamp = None;
                self.refuse(whole_file(path, reason(&error)));
            }
        }
        true
    }

    /// Nothing can be told about the file's objects: all stay.
    fn refuse(&mut self, problem: Problem) {
        self.documents.clear();
        self.kept = self.objects.iter().map(|(key, ..)| key.clone()).collect();
        self.problems = vec![Problem { kept_last_good: !self.objects.is_empty(), ..problem }];
    }

    fn take(&mut self, path: &Path, text: &str) {
        let mut known: HashMap<&str, &Arc<ReadDocument>> = HashMap::with_capacity(self.documents.len());
        known.extend(self.documents.iter().map(|(read, _)| (read.text.as_str(), read)));
        let documents: Vec<_> = document::split(text)
            .into_iter()
            .map(|document| {
                let read = known
                    .get(document.text)
                    .map_or_else(|| Arc::new(ReadDocument::new(document.text)), |read| Arc::clone(read));
                (read, document.lines_before)
            })
            .collect();
        self.documents = documents;

        let mut good: BTreeMap<ObjectKey, (SharedObject, u64)> = BTreeMap::new();
        let mut problems = Vec::new();
        let mut broken = BTreeSet::new();
        let mut unidentified = false;
        for (read, lines_before) in &self.documents {
            for (key, object, line) in &read.objects {
                let line = lines_before + line;
                if let Some((_, earlier)) = good.insert(key.clone(), (object.clone(), line)) {
                    problems.push(Problem {
                        line,
                        object: key.to_string(),
                        reason: format!("is in this file twice, first at line {earlier}: this one is used"),
                        severity: Severity::Warning,
                        ..whole_file(path, String::new())
                    });
                }
            }
            for finding in &read.findings {
                if finding.severity == Severity::Error {
                    match &finding.object {
                        Some(key) => drop(broken.insert(key.clone())),
                        None => unidentified = true,
                    }
                }
                problems.push(Problem {
                    line: lines_before + finding.line,
                    object: finding.object.as_ref().map(ToString::to_string).unwrap_or_default(),
                    field: finding.field.clone(),
                    severity: finding.severity,
                    ..whole_file(path, finding.reason.clone())
                });
            }
        }
        if unidentified {
            // What was broken before may be broken beyond recognition now.
            broken.extend(self.broken.drain(..));
        }
        broken.retain(|key| !good.contains_key(key));
        self.kept.clear();
        if unidentified {
            self.keep_missing(&mut good, &broken, &mut problems);
        }
        self.broken = broken.into_iter().collect();
        self.objects = good.into_iter().map(|(key, (object, line))| (key, object, line)).collect();
        self.problems = problems;
    }

    /// A document nobody can read may be about any object that was here and is not in the other documents: they stay.
    fn keep_missing(
        &mut self,
        good: &mut BTreeMap<ObjectKey, (SharedObject, u64)>,
        broken: &BTreeSet<ObjectKey>,
        problems: &mut [Problem],
    ) {
        for (key, object, line) in &self.objects {
            if !good.contains_key(key) && !broken.contains(key) {
                good.insert(key.clone(), (object.clone(), *line));
                self.kept.insert(key.clone());
            }
        }
        for problem in problems.iter_mut().filter(|problem| problem.severity == Severity::Error) {
            problem.kept_last_good |= !self.kept.is_empty() && problem.object.is_empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_and_made_endpoints_are_taken_from_one_path_alone() {
        let folder = tempfile::tempdir().unwrap();
        let pod = |name: &str| {
            format!("kind: Pod\nmetadata: {{name: {name}}}\n---\nkind: Node\nmetadata: {{name: {name}}}\n")
        };
        let slice = |service: &str| {
            format!(
                "---\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {service}-1, labels: {{kubernetes.io/service-name: \
                 {service}}}}}\n---\nkind: Endpoints\nmetadata: {{name: {service}}}\n"
            )
        };
        let services = "---\nkind: Service\nmetadata: {name: made}\nspec: {selector: {a: b}, ports: [{port: 80}]}\n---\n\
                        kind: Service\nmetadata: {name: written}\nspec: {ports: [{port: 80}]}\n";
        let theirs = [pod("theirs"), slice("made"), slice("written"), services.to_owned()].concat();
        for (name, text) in [("theirs", theirs), ("ours", [pod("ours"), slice("made")].concat())] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("all.yaml"), text).unwrap();
        }
        let paths = [folder.path().join("theirs"), folder.path().join("ours")];
        let names = |snapshot: &Snapshot| -> [usize; 4] {
            let objects = &snapshot.objects;
            [objects.pods.len(), objects.nodes.len(), objects.slices.len(), objects.endpoints.len()]
        };
        assert_eq!(names(&Source::new(&paths).load()), [2, 2, 2, 2]);
        let snapshot = Source::new(&paths).with_pods_from(Some(paths[1].clone())).load();
        assert_eq!(names(&snapshot), [1, 1, 2, 2]);
        assert!(snapshot.objects.pods.contains_key(&Name::new("default", "ours")));
        let snapshot = Source::new(&paths[..1]).with_pods_from(Some(paths[1].clone())).load();
        assert_eq!(names(&snapshot), [0, 0, 1, 1]);
        assert!(snapshot.objects.slices.contains_key(&Name::new("default", "written-1")));
    }

    #[test]
    fn later_paths_win_whatever_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for (name, label) in [("z", "first"), ("a", "second")] {
            let text = format!("kind: Pod\nmetadata: {{name: p, labels: {{from: {label}}}}}\nspec: {{}}\n");
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("pod.yaml"), text).unwrap();
        }
        let snapshot = Source::new([folder.path().join("z"), folder.path().join("a")]).load();
        let labels: Vec<_> = snapshot.objects.pods.values().map(|pod| &pod.metadata.labels["from"]).collect();
        assert_eq!(labels, ["second"]);
        assert_eq!(snapshot.problems.len(), 1);
    }
}
