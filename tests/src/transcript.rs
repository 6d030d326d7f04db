//! Documents whose commands are run, so that they cannot rot.
//!
//! In a block fenced as `console`, a line that begins with `$ ` is a command for bash, and goes on after a `\` at its end.
//! The lines below it are what it prints, both outputs together; without any, it need only succeed. `…` stands for any
//! text, on a line of its own for any number of lines. Runs of blanks count as one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{TestLab, lb_program};

/// How long a command that only looks may take until it sees what it is to see: the agent follows changes in its own time.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one command may run.
const LIMIT: &str = "120";

/// A command of a document, and what it is to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line in the document, from 1.
    pub line: usize,
    /// The command.
    pub command: String,
    /// What it prints.
    pub expected: Vec<String>,
}

impl Step {
    /// Whether it may be run again until it sees what it is to see.
    fn only_looks(&self) -> bool {
        ["lb lab exec", "lb lab status", "lb lab explain", "for i in"]
            .iter()
            .any(|start| self.command.starts_with(start))
    }
}

/// The commands of a document, in order.
///
/// # Panics
/// When a block shows commands in another way, so that they would not be run.
pub fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fence: Option<&str> = None;
    let mut goes_on = false;
    for (index, line) in document.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("```") {
            fence = if fence.is_none() { Some(kind.trim()) } else { None };
            assert!(
                !matches!(fence, Some("sh" | "bash" | "shell")),
                "line {}: commands are shown in `console` blocks",
                index + 1
            );
            goes_on = false;
            continue;
        }
        if fence != Some("console") {
            assert!(
                fence.is_none() || !line.starts_with("$ "),
                "line {}: not in a `console` block",
                index + 1
            );
            continue;
        }
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (_, Some(step)) if goes_on => {
                step.command.push('\n');
                step.command.push_str(line);
            }
            (Some(command), _) => {
                steps.push(Step { line: index + 1, command: command.to_owned(), expected: Vec::new() });
            }
            (None, Some(step)) => step.expected.push(line.to_owned()),
            (None, None) => panic!("line {}: output before any command", index + 1),
        }
        goes_on = steps.last().is_some_and(|step| step.expected.is_empty() && step.command.ends_with('\\'));
    }
    steps
}

/// Whether lines are as expected.
pub fn matches(expected: &[String], lines: &[String]) -> bool {
    let Some((first, rest)) = expected.split_first() else { return lines.is_empty() };
    if first.trim() == "…" {
        return (0..=lines.len()).any(|skipped| matches(rest, &lines[skipped..]));
    }
    lines.split_first().is_some_and(|(line, others)| line_matches(first, line) && matches(rest, others))
}

fn line_matches(expected: &str, line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (expected, line) = (words(expected), words(line));
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(position) = rest.find(part) else { return false };
        rest = &rest[position + part.len()..];
    }
    rest.ends_with(last)
}

/// Runs all commands of a document, in the repository's folder, in a lab of its own.
///
/// # Panics
/// When one fails, or prints something else.
pub fn run(document: &Path) {
    let text = std::fs::read_to_string(document)
        .unwrap_or_else(|error| panic!("{}: cannot read: {error}", document.display()));
    let steps = steps(&text);
    assert!(steps.len() >= 3, "{}: {} commands are no story", document.display(), steps.len());
    let lab = TestLab::new();
    let folder = tempfile::tempdir().expect("a folder for the program");
    std::os::unix::fs::symlink(lb_program(), folder.path().join("lb")).expect("a link named lb");
    for step in &steps {
        if step.command.starts_with("lb lab down") {
            lab.close_books();
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let (success, lines) = execute(step, &lab, folder.path());
            if success && (step.expected.is_empty() || matches(&step.expected, &lines)) {
                break;
            }
            assert!(
                step.only_looks() && Instant::now() < end,
                "{}:{}: $ {}\n--- expected\n{}\n--- printed{}\n{}",
                document.display(),
                step.line,
                step.command,
                step.expected.join("\n"),
                if success { "" } else { ", and failed" },
                lines.join("\n")
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        if step.command.starts_with("lb lab up") {
            lab.open_books();
        }
    }
}

/// Runs a command; says whether it succeeded, and what it printed.
fn execute(step: &Step, lab: &TestLab, folder: &Path) -> (bool, Vec<String>) {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("timeout")
        .args([
            "--kill-after",
            "5",
            LIMIT,
            "bash",
            "-c",
            &format!("exec 2>&1; set -o pipefail; {}", step.command),
        ])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("LB_LAB", lab.name())
        .stdin(Stdio::null())
        .output()
        .expect("bash starts");
    let text = String::from_utf8_lossy(&output.stdout);
    (output.status.success(), text.lines().map(|line| line.trim_end().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn commands_and_outputs_are_told_apart() {
        let document =
            "text\n```console\n$ one \\\n    two\nout\n$ three\n```\n$ not this\n```text\nfour\n```\n";
        let expected = [("one \\\n    two", vec!["out".to_owned()]), ("three", vec![])];
        let found = steps(document);
        assert_eq!(
            found.iter().map(|s| (s.command.as_str(), s.expected.clone())).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(found[1].line, 6);
    }

    #[test]
    #[should_panic(expected = "line 2: commands are shown in `console` blocks")]
    fn commands_that_would_not_be_run_are_refused() {
        steps("\n```sh\nls\n```\n");
    }

    #[test]
    fn an_ellipsis_is_any_text_and_nothing_else_is() {
        for (expected, printed, good) in [
            ("a  b", "a b", true),
            ("a b", "a c", false),
            ("a", "a\nb", false),
            ("a\nb", "a", false),
            ("a\n…", "a", true),
            ("…\nc\n…", "a\nb\nc", true),
            ("…\nc", "a\nc\nb", false),
            ("pod-… 10.0.0.…", "pod-x 10.0.0.7", true),
            ("pod-… 10.0.0.…", "pod-x 10.0.1.7", false),
            ("a…a", "a", false),
            ("…a…b", "xayb", true),
            ("…a…b", "xayc", false),
        ] {
            assert_eq!(matches(&lines(expected), &lines(printed)), good, "{expected:?} and {printed:?}");
        }
    }
}
