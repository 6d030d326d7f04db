//! The outcome, a line for each failing row.

use std::fmt;

use serde::Serialize;

/// One row that was run.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// File name.
    pub file: String,
    /// Area of the file.
    pub area: String,
    /// Name of the step, when there are steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Name of the row.
    pub name: String,
    /// Who answered a probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prober: Option<String>,
    /// What is wrong, when something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", if self.failure.is_some() { "FAIL" } else { "ok" }, self.file)?;
        if let Some(step) = &self.step {
            write!(f, "{step}: ")?;
        }
        f.write_str(&self.name)?;
        if let Some(prober) = &self.prober {
            write!(f, " [{prober}]")?;
        }
        if let Some(failure) = &self.failure {
            write!(f, ": {failure}")?;
        }
        Ok(())
    }
}

/// All rows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In the order of the files.
    pub rows: Vec<Row>,
}

impl Report {
    /// Rows that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.failure.is_some())
    }

    /// Numbers of rows that passed and failed.
    pub fn totals(&self) -> (usize, usize) {
        let failed = self.failures().count();
        (self.rows.len() - failed, failed)
    }
}
