//! What is wrong with the input, in one sentence that names file, line, object, field and reason (Z3).

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document was refused.
    Error,
    /// The document was taken, with a remark.
    Warning,
}

/// Something wrong with the input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
pub struct Problem {
    /// The file or folder.
    pub file: PathBuf,
    /// Line in the file, from 1; 0 when the whole file is meant.
    pub line: u64,
    /// `Kind namespace/name`, empty when unknown.
    pub object: String,
    /// Path of the field, as in `spec.ports[0].port`; empty when none is meant.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// How much it matters.
    pub severity: Severity,
    /// True: the object's last good state stays in force.
    pub kept_last_good: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)?;
        if self.kept_last_good {
            f.write_str(" (the last good state stays in force)")?;
        }
        Ok(())
    }
}
