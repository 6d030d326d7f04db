//! What one file holds.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::document::{self, Document, Finding};
use super::kube::{Object, ObjectKey};
use super::packed::{Digest, Packed};
use super::problem::{Problem, Severity};
use super::stamp::Stamp;

/// The longest file that is read, in bytes.
pub(super) const LONGEST: u64 = 64 << 20;

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    // It may grow while it is read.
    if file.metadata()?.len() <= LONGEST && file.take(LONGEST + 1).read_to_end(&mut bytes)? as u64 <= LONGEST
    {
        return Ok(bytes);
    }
    let reason = format!("is longer than {} MiB: split it", LONGEST >> 20);
    Err(io::Error::new(io::ErrorKind::FileTooLarge, reason))
}

pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::FileTooLarge => error.to_string(),
        _ => format!("cannot be read: {error}"),
    }
}

/// A problem of a file as a whole.
pub(super) fn whole_file(path: &Path, reason: String) -> Problem {
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

/// An object in a file.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: Digest,
    pub(super) object: Packed,
    /// Where it begins, counted from the line before its document.
    line: u32,
    /// A later document of the same file has it as well, and counts.
    is_shadowed: bool,
}

/// A document as it was read; lines count within the document. Its text is not kept.
#[derive(Clone, Debug)]
struct ReadDocument {
    digest: Digest,
    lines_before: u32,
    objects: Box<[Found]>,
    findings: Box<[Finding]>,
}

fn short(lines: u64) -> u32 {
    u32::try_from(lines).unwrap_or(u32::MAX)
}

impl ReadDocument {
    fn new(text: &str, digest: Digest) -> Self {
        let contents = document::read(Document { text, lines_before: 0 });
        let found = |(object, line): (Object, u64)| {
            let id = Digest::of_key(&object.key());
            Some(Found { id, object: Packed::new(&object)?, line: short(line), is_shadowed: false })
        };
        Self {
            digest,
            lines_before: 0,
            objects: contents.objects.into_iter().filter_map(found).collect(),
            findings: contents.findings.into(),
        }
    }
}

/// One file's state.
#[derive(Debug, Default)]
pub(super) struct File {
    /// A number of its own.
    pub(super) number: u32,
    /// `None`: to be read at the next load.
    stamp: Option<Stamp>,
    documents: Vec<ReadDocument>,
    /// Objects in force that no document gives any more, as one cannot be read.
    pub(super) kept: Vec<(Digest, Packed)>,
    /// Objects whose documents are broken, and that no document of this file gives in a good state.
    pub(super) broken: Vec<ObjectKey>,
    pub(super) problems: Vec<Problem>,
}

impl File {
    /// A file that is new to this run, with what an earlier one held to.
    pub(super) fn new(number: u32, recalled: Vec<(Digest, Packed)>) -> Self {
        Self { number, kept: recalled, ..Self::default() }
    }

    /// Objects in force as far as it depends on this file, each once, with their lines.
    pub(super) fn objects(&self) -> impl Iterator<Item = (Digest, &Packed, u64)> {
        let documents = self.documents.iter().flat_map(|document| {
            let good = document.objects.iter().filter(|found| !found.is_shadowed);
            good.map(|found| {
                (found.id, &found.object, u64::from(document.lines_before) + u64::from(found.line))
            })
        });
        documents.chain(self.kept.iter().map(|(id, object)| (*id, object, 0)))
    }

    /// The same by identity.
    pub(super) fn contents(&self) -> HashMap<Digest, Packed> {
        self.objects().map(|(id, object, _)| (id, object.clone())).collect()
    }

    /// Whether there is nothing in it but good documents, and nothing kept from before.
    pub(super) fn is_sound(&self) -> bool {
        self.kept.is_empty() && self.broken.is_empty()
    }

    /// Whether it is not, or may not be, as it was read.
    pub(super) fn is_stale(&self, path: &Path) -> bool {
        self.stamp.is_none() || self.stamp != Stamp::of(path).ok()
    }

    /// Reads the file if it has changed or must be; gives what was in it before if it was read.
    pub(super) fn refresh(&mut self, path: &Path, force: bool) -> Option<HashMap<Digest, Packed>> {
        let read = Stamp::of(path).and_then(|stamp| {
            if !force && self.stamp == Some(stamp) {
                return Ok(None);
            }
            contents(path).map(|bytes| Some((stamp, bytes)))
        });
        let before = match read {
            Ok(None) => return None,
            _ => self.contents(),
        };
        match read {
            Ok(None) => {}
            Ok(Some((stamp, bytes))) => match String::from_utf8(bytes) {
                Ok(text) => {
                    self.stamp = (!stamp.is_young()).then_some(stamp);
                    self.take(path, &text, &before);
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
        Some(before)
    }

    /// Nothing can be told about the file's objects: all stay.
    fn refuse(&mut self, problem: Problem) {
        self.kept = self.objects().map(|(id, object, _)| (id, object.clone())).collect();
        self.documents.clear();
        self.problems = vec![Problem { kept_last_good: !self.kept.is_empty(), ..problem }];
    }

    fn take(&mut self, path: &Path, text: &str, before: &HashMap<Digest, Packed>) {
        self.read(text);
        let mut places: HashMap<Digest, (usize, usize, u64)> = HashMap::new();
        let mut problems = Vec::new();
        let mut broken = BTreeSet::new();
        let mut unidentified = false;
        for at in 0..self.documents.len() {
            let lines_before = u64::from(self.documents[at].lines_before);
            for index in 0..self.documents[at].objects.len() {
                let found = &self.documents[at].objects[index];
                let line = lines_before + u64::from(found.line);
                let earlier = places.insert(found.id, (at, index, line));
                if let Some((earlier_at, earlier_index, earlier_line)) = earlier {
                    problems.push(Problem {
                        line,
                        object: name_of(&found.object),
                        reason: format!(
                            "is in this file twice, first at line {earlier_line}: this one is used"
                        ),
                        severity: Severity::Warning,
                        ..whole_file(path, String::new())
                    });
                    self.documents[earlier_at].objects[earlier_index].is_shadowed = true;
                }
            }
            for finding in &self.documents[at].findings {
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
        broken.retain(|key| !places.contains_key(&Digest::of_key(key)));
        self.kept.clear();
        if unidentified {
            // A document nobody can read may be about any object that was here and is not in the other documents: they stay.
            let known: BTreeSet<Digest> = broken.iter().map(Digest::of_key).collect();
            let missing = |id: &Digest| !places.contains_key(id) && !known.contains(id);
            let missing = before.iter().filter(|(id, _)| missing(id));
            self.kept = missing.map(|(id, object)| (*id, object.clone())).collect();
            for problem in problems.iter_mut().filter(|problem| problem.severity == Severity::Error) {
                problem.kept_last_good |= !self.kept.is_empty() && problem.object.is_empty();
            }
        }
        self.broken = broken.into_iter().collect();
        self.problems = problems;
    }

    /// Reads the documents that are new.
    fn read(&mut self, text: &str) {
        let known: HashMap<Digest, ReadDocument> =
            self.documents.drain(..).map(|document| (document.digest, document)).collect();
        let documents = document::split(text).into_iter().map(|document| {
            let digest = Digest::of(&[document.text]);
            let mut read = match known.get(&digest) {
                Some(known) => known.clone(),
                None => ReadDocument::new(document.text, digest),
            };
            read.lines_before = short(document.lines_before);
            for found in &mut read.objects {
                found.is_shadowed = false;
            }
            read
        });
        self.documents = documents.collect();
        self.documents.shrink_to_fit();
    }
}

/// `Kind namespace/name`.
pub(super) fn name_of(object: &Packed) -> String {
    object.unpack().map(|object| object.key().to_string()).unwrap_or_default()
}
