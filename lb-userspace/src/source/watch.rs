//! Notices changes with inotify, and heals what inotify loses with a slow look from time to time.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::problem::{Problem, Severity};

/// Quiet time after a change, so that an editor or a copy of many files is seen once.
const QUIET: Duration = Duration::from_millis(5);
/// Longest wait for quiet.
const PATIENCE: Duration = Duration::from_millis(100);
/// Time between looks at all files.
const RESCAN: Duration = Duration::from_secs(10);

type Report = Result<Event, notify::Error>;

/// A path that was asked for.
#[derive(Debug)]
struct Target {
    given: PathBuf,
    absolute: PathBuf,
}

/// What events say has changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Files, as given; to be read whatever their time stamps say.
    pub(super) files: BTreeSet<PathBuf>,
    /// Anything may have changed.
    pub(super) everything: bool,
}

#[derive(Debug)]
pub(super) struct Watch {
    targets: Vec<Target>,
    watcher: Option<RecommendedWatcher>,
    failure: Option<String>,
    events: UnboundedReceiver<Report>,
    /// Watched folders, and the device and inode they had then.
    folders: HashMap<PathBuf, (u64, u64)>,
    seen: Seen,
    /// Something happened since the last load.
    pending: bool,
    next_rescan: Option<Instant>,
}

impl Watch {
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        let (sender, events) = unbounded_channel();
        // Nobody receives any more only when the source is being dropped.
        let watcher = notify::recommended_watcher(move |report: Report| drop(sender.send(report)));
        let (watcher, failure) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let targets = paths
            .iter()
            .map(|path| Target {
                given: path.clone(),
                absolute: std::path::absolute(path).unwrap_or_else(|_| path.clone()),
            })
            .collect();
        Self {
            targets,
            watcher,
            failure,
            events,
            folders: HashMap::new(),
            seen: Seen::default(),
            pending: false,
            next_rescan: None,
        }
    }

    /// Puts watches where they are missing: on each folder, and on what holds it, so that its return is seen.
    pub(super) fn renew(&mut self) -> Option<Problem> {
        let Some(watcher) = &mut self.watcher else { return self.blind() };
        let mut failure = None;
        let mut folders = BTreeSet::new();
        for target in &self.targets {
            folders.extend(target.absolute.parent().map(Path::to_owned));
            folders.insert(target.absolute.clone());
        }
        for folder in folders {
            let identity =
                fs::metadata(&folder).ok().filter(fs::Metadata::is_dir).map(|m| (m.dev(), m.ino()));
            if self.folders.get(&folder).copied() == identity {
                continue;
            }
            if self.folders.remove(&folder).is_some() {
                // The watch of a folder that is gone may be gone with it.
                let _ = watcher.unwatch(&folder);
            }
            if let Some(identity) = identity {
                match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => drop(self.folders.insert(folder, identity)),
                    Err(error) => failure = Some(error.to_string()),
                }
            }
        }
        self.failure = failure;
        self.blind()
    }

    fn blind(&self) -> Option<Problem> {
        let (failure, target) = (self.failure.as_ref()?, self.targets.first()?);
        Some(Problem {
            file: target.given.clone(),
            line: 0,
            object: String::new(),
            field: String::new(),
            reason: format!("cannot be watched, looked at every {} s instead: {failure}", RESCAN.as_secs()),
            severity: Severity::Warning,
            kept_last_good: false,
        })
    }

    /// What events have said since the last call.
    pub(super) fn take_seen(&mut self) -> Seen {
        while let Ok(report) = self.events.try_recv() {
            self.note(report);
        }
        self.pending = false;
        std::mem::take(&mut self.seen)
    }

    /// Waits for a change (true) or for the time of the next slow look (false).
    pub(super) async fn wait(&mut self) -> bool {
        let rescan = *self.next_rescan.get_or_insert_with(|| Instant::now() + RESCAN);
        while !self.pending {
            tokio::select! {
                Some(report) = self.events.recv() => drop(self.note(report)),
                () = sleep_until(rescan) => {
                    self.next_rescan = None;
                    return false;
                }
            }
        }
        let patience = Instant::now() + PATIENCE;
        let mut quiet = Instant::now() + QUIET;
        while let Ok(Some(report)) = timeout_at(quiet.min(patience), self.events.recv()).await {
            // What happens beside the manifests does not prolong the wait.
            if self.note(report) {
                quiet = Instant::now() + QUIET;
            }
        }
        true
    }

    /// Takes in one event; whether it matters.
    fn note(&mut self, report: Report) -> bool {
        let Ok(event) = report else {
            self.seen.everything = true;
            self.pending = true;
            return true;
        };
        let mut matters = event.need_rescan();
        self.seen.everything |= matters;
        let reading =
            matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        if reading {
            return false;
        }
        for path in event.paths {
            for target in &self.targets {
                // `..data` is how a mounted ConfigMap swaps all its files at once.
                let sibling_swap = path.parent() == target.absolute.parent()
                    && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
                if let Ok(rest) = path.strip_prefix(&target.absolute) {
                    let whole = rest.as_os_str().is_empty();
                    self.seen.everything |= whole;
                    self.seen.files.insert(if whole {
                        target.given.clone()
                    } else {
                        target.given.join(rest)
                    });
                    matters = true;
                } else if sibling_swap {
                    self.seen.everything = true;
                    self.seen.files.insert(target.given.clone());
                    matters = true;
                }
            }
        }
        self.pending |= matters;
        matters
    }
}
