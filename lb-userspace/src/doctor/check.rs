//! What a check is, and the report made of them.

use std::path::{Path, PathBuf};
use std::{fs, io};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is lost.
    Note,
    /// Some traffic or some feature may suffer.
    Warning,
    /// `lb run` does not work like this.
    Problem,
}

/// One thing looked at. The field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    /// As it should be.
    pub(super) fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), status: Status::Ok, found: found.into(), advice: None }
    }

    /// Anything else, with what to do.
    pub(super) fn bad(
        status: Status,
        name: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), status, found: found.into(), advice: Some(advice.into()) }
    }
}

/// All checks. The field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many of them are problems.
    pub problems: usize,
    /// How many of them are warnings.
    pub warnings: usize,
    /// In the order looked at.
    pub checks: Vec<Check>,
}

impl Report {
    /// Counts.
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        Self { problems: count(Status::Problem), warnings: count(Status::Warning), checks }
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok",
                Status::Note => "note",
                Status::Warning => "WARNING",
                Status::Problem => "PROBLEM",
            };
            table.add_row([status, &check.name, &check.found]);
            if let Some(advice) = &check.advice {
                table.add_row(["", "", &format!("→ {advice}")]);
            }
        }
        let rows: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        format!(
            "{}\n\n{} checks: {} problems, {} warnings\n",
            rows.join("\n"),
            self.checks.len(),
            self.problems,
            self.warnings
        )
    }
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Machine {
    /// The one we run on.
    #[must_use]
    pub fn this() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }

    /// A file under `/proc`, without the blanks around it. `None` if it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn proc(&self, path: impl AsRef<Path>) -> io::Result<Option<String>> {
        match fs::read_to_string(self.proc.join(path)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A sysctl, by its path under `/proc/sys`; `Err` is a check that says why not.
    pub(super) fn sysctl(&self, name: &str, path: &str) -> Result<String, Check> {
        let unseen = |why: String| {
            Check::bad(
                Status::Note,
                name,
                format!("could not see: {why}"),
                format!("look at /proc/sys/{path} yourself"),
            )
        };
        match self.proc(Path::new("sys").join(path)) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(unseen("this kernel has no such setting".into())),
            Err(error) => Err(unseen(error.to_string())),
        }
    }
}

#[cfg(test)]
pub(super) mod fixture {
    //! A machine in a folder.

    use super::{Check, Machine, Status};

    /// A machine that has exactly these files, as (path, content); paths begin with `proc/` or `sys/`.
    pub(crate) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, content) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            std::fs::write(path, content).expect("a file");
        }
        let machine = Machine { proc: folder.path().join("proc"), sys: folder.path().join("sys") };
        (folder, machine)
    }

    /// Name and status of each.
    pub(crate) fn outcome(checks: &[Check]) -> Vec<(&str, Status)> {
        checks.iter().map(|check| (check.name.as_str(), check.status)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_and_prints_advice_below() {
        let report = Report::new(vec![
            Check::ok("a", "fine"),
            Check::bad(Status::Warning, "b", "so so", "do this"),
            Check::bad(Status::Problem, "c", "broken", "do that"),
        ]);
        assert_eq!((report.problems, report.warnings), (1, 1));
        let table = report.table();
        assert!(table.contains("PROBLEM"), "{table}");
        assert!(table.lines().any(|line| line.trim() == "→ do that"), "{table}");
        assert!(table.ends_with("3 checks: 1 problems, 1 warnings\n"), "{table}");
    }

    #[test]
    fn json_has_lower_case_statuses_and_no_empty_advice() {
        let json = serde_json::to_string(&Report::new(vec![Check::ok("a", "fine")])).expect("JSON");
        assert_eq!(
            json,
            r#"{"problems":0,"warnings":0,"checks":[{"name":"a","status":"ok","found":"fine"}]}"#
        );
    }
}
