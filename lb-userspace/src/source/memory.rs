//! Remembers last good states over restarts (Z3): what is in force although its document is broken is written to a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document;
use super::packed::{Digest, Packed};
use crate::private_file;

/// Version of the file's format.
const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
struct Contents {
    version: u32,
    kept: Vec<Kept>,
}

#[derive(Deserialize, Serialize)]
struct Kept {
    /// The file whose document is broken.
    file: PathBuf,
    object: Value,
}

/// Last good states by file.
pub(super) type KeptObjects = BTreeMap<PathBuf, Vec<(Digest, Packed)>>;

/// The file.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    /// What the file holds, as far as that is known.
    written: Option<BTreeSet<(PathBuf, Digest)>>,
}

impl Memory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was in force. A file that is missing or damaged holds nothing; of one that cannot be read the reason is given.
    pub(super) fn read(&self) -> Result<KeptObjects, String> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KeptObjects::new()),
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let contents: Contents =
            serde_json::from_slice(&bytes).map_err(|error| format!("is damaged: {error}"))?;
        if contents.version != VERSION {
            return Err(format!("version {} is not {VERSION}", contents.version));
        }
        let mut kept = KeptObjects::new();
        for Kept { file, object } in contents.kept {
            if let Ok(Some(object)) = document::decode(object)
                && let Some(packed) = Packed::new(&object)
            {
                kept.entry(file).or_default().push((Digest::of_key(&object.key()), packed));
            }
        }
        Ok(kept)
    }

    /// Brings the file up to date.
    pub(super) fn write(&mut self, kept: &KeptObjects) -> Result<(), String> {
        let keys: BTreeSet<_> = kept
            .iter()
            .flat_map(|(file, objects)| objects.iter().map(|(id, _)| (file.clone(), *id)))
            .collect();
        if self.written.as_ref() == Some(&keys) {
            return Ok(());
        }
        let result = if keys.is_empty() {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        } else {
            let kept = kept.iter().flat_map(|(file, objects)| {
                // Texts, numbers, lists and maps with text keys always have a JSON form.
                let manifest = |object| serde_json::to_value(object).ok();
                let manifests = objects.iter().filter_map(move |(_, packed)| manifest(packed.unpack()?));
                manifests.map(|object| Kept { file: file.clone(), object })
            });
            let contents = Contents { version: VERSION, kept: kept.collect() };
            serde_json::to_vec_pretty(&contents)
                .map_err(io::Error::from)
                .and_then(|bytes| private_file::replace(&self.path, &bytes))
        };
        result.map_err(|error| {
            format!("cannot be written, a restart would forget last good states: {error}")
        })?;
        self.written = Some(keys);
        Ok(())
    }
}
