//! Who answered how often.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::load::Visit;

/// Counts by pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    answers: BTreeMap<String, usize>,
    /// Requests without an answer.
    pub(super) failed: usize,
}

impl Tally {
    /// Counts.
    pub(super) fn of(visits: Vec<Visit>) -> Self {
        let mut tally = Self::default();
        for visit in visits {
            match visit.pod {
                Some(pod) => *tally.answers.entry(pod).or_default() += 1,
                None => tally.failed += 1,
            }
        }
        tally
    }

    /// Who answered.
    pub(super) fn pods(&self) -> BTreeSet<String> {
        self.answers.keys().cloned().collect()
    }

    /// The largest share less the smallest.
    pub(super) fn spread(&self) -> usize {
        let shares = || self.answers.values().copied();
        shares().max().unwrap_or(0) - shares().min().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.answers.keys().map(String::len).max().unwrap_or(0).max("no answer".len());
        let most = self.answers.values().copied().max().unwrap_or(1).max(40);
        let mut line = |who: &str, count: usize| {
            let bar = "█".repeat((count * 40).div_ceil(most));
            writeln!(f, "  {who:width$}  {count:4}  {bar}")
        };
        self.answers.iter().try_for_each(|(pod, count)| line(pod, *count))?;
        if self.failed > 0 { line("no answer", self.failed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted() {
        let visit = |pod: Option<&str>| Visit { pod: pod.map(str::to_owned), dialled: true };
        let tally = Tally::of([Some("a"), Some("b"), Some("a"), None].map(visit).to_vec());
        assert_eq!((tally.spread(), tally.failed, tally.pods().len()), (1, 1, 2));
        assert!(tally.to_string().contains("no answer     1"), "{tally}");
    }
}
