//! What a guest says to whoever started it: one line each, so that a log that was cut shows.
//!
//! ```text
//! fact kernel 6.12.117
//! plan 3
//! begin rows/tc/frontends
//! pass 812 rows/tc/frontends 23 rows
//! skip 0 rows/xdp-frags/frontends xdp.frags needs kernel 5.18
//! fail 90 load/lb_xdp the verifier says no\nand why
//! done pass 1 fail 1 skip 1
//! ```

use std::cell::RefCell;
use std::io::Write;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not.
    Failed,
    /// The kernel lacks what the check is about.
    Skipped,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Failed => "fail",
            Self::Skipped => "skip",
        }
    }
}

/// Writes the lines and counts.
#[derive(Debug)]
pub struct Report<W> {
    state: RefCell<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    out: W,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl<W: Write> Report<W> {
    /// A report that nothing has been said in.
    pub const fn new(out: W) -> Self {
        Self { state: RefCell::new(State { out, passed: 0, failed: 0, skipped: 0 }) }
    }

    /// How many results there will be.
    pub fn plan(&self, checks: usize) {
        self.line(&format!("plan {checks}"));
    }

    /// Something about the machine.
    pub fn fact(&self, name: &str, value: &str) {
        self.line(&format!("fact {name} {value}"));
    }

    /// A check begins.
    pub fn begin(&self, name: &str) {
        self.line(&format!("begin {name}"));
    }

    /// A check is over.
    pub fn result(&self, name: &str, outcome: Outcome, millis: u128, detail: &str) {
        {
            let mut state = self.state.borrow_mut();
            match outcome {
                Outcome::Passed => state.passed += 1,
                Outcome::Failed => state.failed += 1,
                Outcome::Skipped => state.skipped += 1,
            }
        }
        self.line(&format!("{} {millis} {name} {detail}", outcome.word()));
    }

    /// All checks are over; whether there were any, and none failed.
    pub fn done(&self) -> bool {
        let (passed, failed, skipped) = {
            let state = self.state.borrow();
            (state.passed, state.failed, state.skipped)
        };
        self.line(&format!("done pass {passed} fail {failed} skip {skipped}"));
        failed == 0 && passed > 0
    }

    /// Lines inside of a line are written as `\n`.
    fn line(&self, text: &str) {
        let text = text.trim_end().replace('\n', "\\n");
        let mut state = self.state.borrow_mut();
        // Nobody would hear of a failure: the log is then found to be incomplete.
        let _incomplete = writeln!(state.out, "{text}").and_then(|()| state.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ends_with_its_counts() {
        let report = Report::new(Vec::new());
        report.plan(2);
        report.begin("a");
        report.result("a", Outcome::Passed, 7, "two\nlines");
        report.result("b", Outcome::Skipped, 0, "why");
        assert!(report.done());
        report.result("c", Outcome::Failed, 1, "");
        assert!(!report.done());
        let text = String::from_utf8(report.state.into_inner().out).unwrap();
        assert_eq!(
            text,
            "plan 2\nbegin a\npass 7 a two\\nlines\nskip 0 b why\ndone pass 1 fail 0 skip 1\n\
             fail 1 c\ndone pass 1 fail 1 skip 1\n"
        );
    }

    #[test]
    fn nothing_that_ran_is_no_success() {
        let report = Report::new(Vec::new());
        report.result("a", Outcome::Skipped, 0, "");
        assert!(!report.done());
    }
}
