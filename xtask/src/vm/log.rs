//! What a guest says, and whether to believe it.

use std::fmt;

/// How QEMU ends when the guest writes that all went well (`lb_tests::vm::exit`).
const GOOD: i32 = 33;

/// The lines of a guest.
#[derive(Debug, Default)]
pub(crate) struct Log {
    facts: Vec<(String, String)>,
    plan: Option<usize>,
    results: Vec<Result>,
    running: Option<String>,
    done: Option<Counts>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Result {
    /// Its name.
    pub(crate) name: String,
    /// How it went.
    pub(crate) outcome: Outcome,
    /// What it has to say.
    pub(crate) detail: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Results by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Log {
    /// Takes a line in; others than `lb_tests::vm::report` writes say nothing.
    pub(crate) fn add(&mut self, line: &str) {
        let Some((word, rest)) = line.split_once(' ') else { return };
        match word {
            "fact" => {
                let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                self.facts.push((name.to_owned(), value.to_owned()));
            }
            "plan" => self.plan = rest.parse().ok(),
            "begin" => self.running = Some(rest.to_owned()),
            "pass" => self.result(Outcome::Passed, rest),
            "fail" => self.result(Outcome::Failed, rest),
            "skip" => self.result(Outcome::Skipped, rest),
            "done" => self.done = counts(rest),
            _ => {}
        }
    }

    /// Something that the guest has said about itself.
    pub(crate) fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The checks that are over.
    pub(crate) fn results(&self) -> &[Result] {
        &self.results
    }

    fn result(&mut self, outcome: Outcome, rest: &str) {
        let mut words = rest.splitn(3, ' ').skip(1);
        let Some(name) = words.next() else { return };
        let detail = words.next().unwrap_or_default().to_owned();
        self.results.push(Result { name: name.to_owned(), outcome, detail });
        self.running = None;
    }

    /// The counts, if all went well: QEMU ended as the guest bids it when all is well, *and* the log is whole and agrees.
    ///
    /// # Errors
    /// Everything that speaks against it.
    pub(crate) fn verdict(&self, status: Option<i32>) -> std::result::Result<Counts, Vec<String>> {
        let mut counts = Counts::default();
        let mut problems = Vec::new();
        for result in &self.results {
            match result.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Skipped => counts.skipped += 1,
                Outcome::Failed => {
                    counts.failed += 1;
                    problems.push(format!("{} failed", result.name));
                }
            }
        }
        if let Some(check) = &self.running {
            problems.push(format!("{check} began and did not end"));
        }
        match self.plan {
            None => problems.push("it never said what it would check: it did not get that far".to_owned()),
            Some(plan) if plan != self.results.len() => {
                problems.push(format!("{} results of {plan}", self.results.len()));
            }
            Some(_) => {}
        }
        match self.done {
            None => problems.push("its log has no end".to_owned()),
            Some(done) if done != counts => problems.push(format!("it counts {done}; its log has {counts}")),
            Some(_) => {}
        }
        if counts.passed == 0 {
            problems.push("nothing passed".to_owned());
        }
        match status {
            None => problems.push("it was not ready in time".to_owned()),
            Some(status) if status != GOOD => {
                problems.push(format!("QEMU ended with {status}; {GOOD} says that all is well"));
            }
            Some(_) => {}
        }
        if problems.is_empty() { Ok(counts) } else { Err(problems) }
    }
}

/// Reads `pass 1 fail 0 skip 2`.
fn counts(text: &str) -> Option<Counts> {
    let words: Vec<&str> = text.split(' ').collect();
    let ["pass", passed, "fail", failed, "skip", skipped] = words[..] else { return None };
    Some(Counts {
        passed: passed.parse().ok()?,
        failed: failed.parse().ok()?,
        skipped: skipped.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "fact release 6.1.0\nplan 2\nbegin a\npass 5 a 3 rows\nskip 0 b xdp.frags needs kernel 5.18\n\
                         done pass 1 fail 0 skip 1";

    fn log(text: &str) -> Log {
        let mut log = Log::default();
        text.lines().for_each(|line| log.add(line));
        log
    }

    fn problems(text: &str, status: Option<i32>) -> String {
        log(text).verdict(status).expect_err("something is wrong").join("; ")
    }

    #[test]
    fn a_whole_log_and_the_right_status_are_believed() {
        let log = log(WHOLE);
        assert_eq!(log.verdict(Some(GOOD)).unwrap().to_string(), "1 passed, 0 failed, 1 skipped");
        assert_eq!(log.results[0].detail, "3 rows");
        assert_eq!(log.facts, [("release".to_owned(), "6.1.0".to_owned())]);
    }

    #[test]
    fn neither_is_believed_alone() {
        assert!(problems(WHOLE, Some(35)).contains("ended with 35"));
        assert!(problems(WHOLE, Some(0)).contains("ended with 0"));
        assert!(problems(WHOLE, None).contains("not ready in time"));
        assert!(problems("", Some(GOOD)).contains("did not get that far"));
    }

    #[test]
    fn a_log_cut_anywhere_is_not_believed() {
        let lines: Vec<&str> = WHOLE.lines().collect();
        for end in 0..lines.len() {
            problems(&lines[..end].join("\n"), Some(GOOD));
        }
        assert!(problems(&lines[..3].join("\n"), Some(GOOD)).contains("a began and did not end"));
        // A line in the middle.
        problems(&WHOLE.replace("skip 0 b xdp.frags needs kernel 5.18\n", ""), Some(GOOD));
    }

    #[test]
    fn failures_and_emptiness_are_not_believed_whatever_the_status() {
        let failed = "plan 2\npass 1 a\nfail 1 b why\ndone pass 1 fail 1 skip 0";
        assert!(problems(failed, Some(GOOD)).contains("b failed"));
        assert!(problems("plan 0\ndone pass 0 fail 0 skip 0", Some(GOOD)).contains("nothing passed"));
        let skipped = "plan 1\nskip 0 a why\ndone pass 0 fail 0 skip 1";
        assert!(problems(skipped, Some(GOOD)).contains("nothing passed"));
    }
}
