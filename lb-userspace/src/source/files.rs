//! Files and folders of manifests: all files together, watched.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::file::{File, reason, whole_file};
use super::folder::{is_there, is_wanted, list};
use super::memory::{KeptObjects, Memory};
use super::merge::{Merged, merge};
use super::objects::Objects;
use super::packed::{Digest, Packed};
use super::problem::{Problem, Severity};
use super::store::{Change, Held, Store};
use super::watch::{Seen, Watch};

/// What is known after a load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// All objects in force.
    pub objects: Arc<Objects>,
    /// Everything wrong with the input, in order.
    pub problems: Vec<Problem>,
}

/// Files that were read or are gone: their numbers and what they held before.
type Before = BTreeMap<PathBuf, (u32, HashMap<Digest, Packed>)>;

/// Files and folders of manifests.
#[derive(Debug)]
pub struct Source {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
    /// Files ever known: their numbers.
    count: u32,
    /// What was in force after the last load: the last good states.
    store: Store,
    problems: Vec<Problem>,
    /// What [`Self::load`] gave last.
    loaded: Option<Arc<Objects>>,
    watch: Watch,
    /// The one of the paths that alone says which pods there are.
    pods_from: Option<PathBuf>,
    memory: Option<Memory>,
    /// Last good states of an earlier run, until the first load.
    recalled: KeptObjects,
    /// The same by identity.
    earlier: HashMap<Digest, Packed>,
    /// Problems of no file, as they were at the last load.
    general_problems: Vec<Problem>,
    /// What is in force is what the files hold, each object in one of them; then changes of files can be taken one by one.
    is_plain: bool,
    /// Something may have changed that no event has named.
    is_stale: bool,
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
            count: 0,
            store: Store::default(),
            problems: Vec::new(),
            loaded: None,
            pods_from: None,
            memory: None,
            recalled: KeptObjects::new(),
            earlier: HashMap::new(),
            general_problems: Vec::new(),
            is_plain: false,
            is_stale: true,
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
        self.earlier = self.recalled.values().flatten().cloned().collect();
        Ok(())
    }

    /// What is in force, after [`Self::refresh`].
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Everything wrong with the input, in order, after [`Self::refresh`].
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Looks at all files, reads those that have changed since the last call and says what is in force now. Never fails: what is
    /// wrong is among the problems.
    pub fn load(&mut self) -> Snapshot {
        if !self.look().is_empty() {
            self.loaded = None;
        }
        let objects = self.loaded.get_or_insert_with(|| Arc::new(self.store.all()));
        Snapshot { objects: Arc::clone(objects), problems: self.problems.clone() }
    }

    /// Looks at all files, and reads those that have changed since the last call. Gives the objects that came, changed or went.
    pub fn look(&mut self) -> Vec<Change> {
        self.is_stale = true;
        self.refresh()
    }

    /// Reads the files that events have named since the last call, or looks at all files when events do not tell. Gives the
    /// objects that came, changed or went.
    pub fn refresh(&mut self) -> Vec<Change> {
        let blind = self.watch.renew();
        let seen = self.watch.take_seen();
        self.refresh_after(seen, blind.into_iter().collect())
    }

    fn refresh_after(&mut self, seen: Seen, mut problems: Vec<Problem>) -> Vec<Change> {
        let all = std::mem::take(&mut self.is_stale)
            || seen.everything
            || !problems.is_empty()
            || !self.general_problems.is_empty()
            || seen.files.iter().any(|path| !is_wanted(path));
        let read = if all { self.look_at_all(&seen, &mut problems) } else { self.look_at(&seen) };
        if read.is_empty() && problems == self.general_problems && self.recalled.is_empty() {
            return Vec::new();
        }
        let sound = |path: &PathBuf| self.files.get(path).is_none_or(File::is_sound);
        let one_by_one = self.is_plain && problems == self.general_problems && read.keys().all(sound);
        if let Some(edits) = one_by_one.then(|| self.edits(&read)).flatten() {
            return self.take(edits);
        }
        self.general_problems.clone_from(&problems);
        let changes = self.merge(problems);
        self.recalled.clear();
        changes
    }

    /// Waits until something may have changed: at once after a change that inotify reports, when it has been quiet for
    /// some milliseconds, or after a slow look at all files. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            if self.watch.wait().await {
                return;
            }
            self.is_stale |= self.has_changed();
            if self.is_stale {
                return;
            }
        }
    }

    /// True when a look at the time stamps shows a difference.
    fn has_changed(&self) -> bool {
        let mut present = 0;
        for path in self.paths.iter().filter_map(|path| list(path).ok()).flatten().collect::<BTreeSet<_>>() {
            present += 1;
            if self.files.get(&path).is_none_or(|file| file.is_stale(&path)) {
                return true;
            }
        }
        present != self.files.len()
    }

    /// Looks at all files. Gives those that were read or are gone, and what was in them before.
    fn look_at_all(&mut self, seen: &Seen, problems: &mut Vec<Problem>) -> Before {
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
        let mut before = Before::new();
        // What a folder that cannot be listed held is kept, as nothing is known about it.
        let is_gone = |path: &&PathBuf| {
            !present.contains(*path) && !unknown.iter().any(|folder| path.starts_with(folder))
        };
        for path in self.files.keys().filter(is_gone).cloned().collect::<Vec<_>>() {
            self.look_at_one(path, true, &mut before);
        }
        for path in present {
            let force = seen.files.contains(&path);
            self.look_at_one(path, force, &mut before);
        }
        before
    }

    /// The same for the files that events have named.
    fn look_at(&mut self, seen: &Seen) -> Before {
        let mut before = Before::new();
        for path in &seen.files {
            self.look_at_one(path.clone(), true, &mut before);
        }
        before
    }

    /// Reads a file, or lets go of one that is gone.
    fn look_at_one(&mut self, path: PathBuf, force: bool, before: &mut Before) {
        if !is_there(&path) {
            if let Some(file) = self.files.remove(&path) {
                before.insert(path, (file.number, file.contents()));
            }
            return;
        }
        let file = match self.files.entry(path.clone()) {
            Entry::Occupied(file) => file.into_mut(),
            Entry::Vacant(place) => {
                self.count += 1;
                place.insert(File::new(self.count, self.recalled.remove(&path).unwrap_or_default()))
            }
        };
        if let Some(contents) = file.refresh(&path, force) {
            before.insert(path, (file.number, contents));
        }
    }

    /// What follows for the store from the changes of these files; `None` when an object is in two of them.
    fn edits(&self, before: &Before) -> Option<HashMap<Digest, Option<Held>>> {
        let mut edits: HashMap<Digest, Option<Held>> = HashMap::new();
        let now = |path| self.files.get(path).map(File::contents).unwrap_or_default();
        let files: Vec<_> =
            before.iter().map(|(path, (number, before))| (*number, before, now(path))).collect();
        for (_, before, after) in &files {
            edits.extend(before.keys().filter(|id| !after.contains_key(*id)).map(|id| (*id, None)));
        }
        for (file, before, after) in files {
            for (id, object) in after.into_iter().filter(|(id, object)| before.get(id) != Some(object)) {
                let elsewhere = self.store.held().get(&id).is_some_and(|held| held.file != file);
                let earlier = edits.insert(id, Some(Held { object, file }));
                if matches!(earlier, Some(Some(_))) || (elsewhere && earlier.is_none()) {
                    return None;
                }
            }
        }
        Some(edits)
    }

    fn take(&mut self, edits: HashMap<Digest, Option<Held>>) -> Vec<Change> {
        let files = self.files.values().flat_map(|file| &file.problems);
        self.problems = self.general_problems.iter().chain(files).cloned().collect();
        self.problems.sort();
        edits.into_iter().filter_map(|(id, held)| self.store.set(id, held)).collect()
    }

    fn merge(&mut self, problems: Vec<Problem>) -> Vec<Change> {
        let previous =
            |id: &Digest| self.store.held().get(id).map(|held| &held.object).or_else(|| self.earlier.get(id));
        let merged = merge(&self.files, &self.paths, self.pods_from.as_deref(), previous);
        let Merged { in_force, problems: found, kept, mut is_plain } = merged;
        let mut problems: Vec<_> = problems.into_iter().chain(found).collect();
        if let Some(memory) = &mut self.memory
            && let Err(reason) = memory.write(&kept)
        {
            problems.push(Problem { severity: Severity::Warning, ..whole_file(memory.path(), reason) });
            is_plain = false;
        }
        problems.sort();
        self.problems = problems;
        self.is_plain = is_plain;
        self.earlier.clear();
        let gone = self.store.held().keys().filter(|id| !in_force.contains_key(*id)).map(|id| (*id, None));
        let gone: Vec<_> = gone.collect();
        let now = in_force.into_iter().map(|(id, held)| (id, Some(held)));
        gone.into_iter().chain(now).filter_map(|(id, held)| self.store.set(id, held)).collect()
    }
}

#[cfg(test)]
mod tests;
