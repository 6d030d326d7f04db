//! docs/kernels.md: what was seen on which kernel.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use anyhow::Context;

use super::archive::output;
use super::log::{Log, Outcome};
use crate::step;

/// A kernel and what its machine said.
#[derive(Debug)]
pub(crate) struct Run {
    /// Name of the series.
    pub(crate) name: String,
    /// Debian's package, with its version.
    pub(crate) package: String,
    /// How QEMU ended.
    pub(crate) status: Option<i32>,
    /// What the guest said.
    pub(crate) log: Log,
}

impl Run {
    /// All was well.
    pub(crate) fn is_good(&self) -> bool {
        self.log.verdict(self.status).is_ok()
    }
}

/// How the cells of a row come about: of one check, or of all whose names begin so where it ends in a slash.
enum Cell {
    /// Whether they passed.
    Passed(&'static str),
    /// The sum of the numbers that they begin to tell with.
    Sum(&'static str),
    /// What stands behind `at` in what they tell.
    Place(&'static str),
    /// What they tell.
    Told(&'static str),
}

/// Titles and cells.
const ROWS: &[(&str, Cell)] = &[
    ("tc programs load", Cell::Passed("load/tc/")),
    ("XDP program loads", Cell::Passed("load/xdp/")),
    ("XDP program for packets in several buffers (`xdp.frags`) loads", Cell::Passed("load/xdp-frags/")),
    ("programs at sockets load", Cell::Passed("load/sockets/")),
    ("packet rows: tc", Cell::Sum("rows/tc/")),
    ("packet rows: XDP", Cell::Sum("rows/xdp/")),
    ("packet rows: XDP, several buffers", Cell::Sum("rows/xdp-frags/")),
    ("`--hook tc` is", Cell::Place("traffic/tc-direct")),
    ("traffic: tc, direct forwarding", Cell::Passed("traffic/tc-direct")),
    ("traffic: tc, forwarding by the kernel", Cell::Passed("traffic/tc-kernel")),
    ("traffic: native XDP", Cell::Passed("traffic/xdp")),
    ("traffic: generic XDP", Cell::Passed("traffic/xdp-generic")),
    ("agent killed and started again: tc, direct forwarding", Cell::Passed("restart/tc-direct")),
    ("agent killed and started again: tc, forwarding by the kernel", Cell::Passed("restart/tc-kernel")),
    ("agent killed and started again: native XDP", Cell::Passed("restart/xdp")),
    ("agent killed and started again: generic XDP", Cell::Passed("restart/xdp-generic")),
    ("traffic and restart: native XDP on virtio-net with one queue", Cell::Passed("traffic/xdp-virtio")),
    ("… where packets are sent on by", Cell::Place("traffic/xdp-virtio")),
    ("`--hook auto` on virtio-net with an MTU of 9000 is", Cell::Place("jumbo/xdp-virtio")),
    ("`--socket-lb on`: TCP and UDP", Cell::Passed("sockets/balanced")),
    ("UDP sockets closed when their backend goes", Cell::Passed("sockets/closed")),
    ("`--socket-lb auto` balances", Cell::Place("sockets/auto")),
    ("the wall clock jumps by years, and nothing else happens", Cell::Passed("clock")),
    ("`lb doctor` says", Cell::Told("doctor")),
];

/// Replaces what stands between the marks of a section of docs/kernels.md.
pub(crate) fn section(name: &str, contents: &str) -> anyhow::Result<()> {
    let path = step::workspace().join("docs/kernels.md");
    let document = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let document = replaced(&document, name, contents)
        .with_context(|| format!("{} has no section {name}", path.display()))?;
    fs::write(&path, document).with_context(|| format!("write {}", path.display()))?;
    println!("==> written to {}", path.display());
    Ok(())
}

fn replaced(document: &str, name: &str, contents: &str) -> Option<String> {
    let begin = document.find(&format!("<!-- {name}: written by"))?;
    let begin = begin + document[begin..].find('\n')? + 1;
    let end = document.find(&format!("<!-- {name}: end -->"))?;
    Some(format!("{}{contents}{}", document.get(..begin)?, document.get(end..)?))
}

/// Today, as `2026-01-31`.
pub(crate) fn today() -> anyhow::Result<String> {
    Ok(output(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned())
}

/// What was seen in these runs.
pub(crate) fn table(runs: &[Run]) -> anyhow::Result<String> {
    let mut text = format!("Run on {}. The kernels are Debian's for virtual machines, x86-64:\n\n", today()?);
    for Run { name, package, log, .. } in runs {
        let release = log.fact("release").unwrap_or("?");
        writeln!(text, "- {name}: `{release}`, package {}", package.replace('_', " "))?;
    }
    let line = |title: &str, cells: Vec<String>| format!("| {title} | {} |\n", cells.join(" | "));
    text += "\n";
    text += &line("", runs.iter().map(|run| run.name.clone()).collect());
    text += &format!("|---|{}\n", "---|".repeat(runs.len()));
    for (title, cell) in ROWS {
        text += &line(title, runs.iter().map(|run| cell.text(&run.log)).collect());
    }
    Ok(text)
}

impl Cell {
    fn text(&self, log: &Log) -> String {
        let (Self::Passed(start) | Self::Sum(start) | Self::Place(start) | Self::Told(start)) = self;
        let checks = log
            .results()
            .iter()
            .filter(|result| result.name == *start || start.ends_with('/') && result.name.starts_with(start));
        let (mut details, mut skipped) = (Vec::new(), None);
        for result in checks {
            match result.outcome {
                Outcome::Passed => details.push(result.detail.as_str()),
                Outcome::Failed => return "no".to_owned(),
                Outcome::Skipped => skipped = Some(result.detail.as_str()),
            }
        }
        // "xdp.frags needs kernel 5.18": the row's title says of what.
        let without = || match skipped.and_then(|why| why.rsplit_once(' ')) {
            Some((_, since)) => format!("from {since}"),
            None => "?".to_owned(),
        };
        match (self, details.first()) {
            (_, None) => without(),
            (Self::Passed(_), _) => "yes".to_owned(),
            (Self::Told(_), Some(detail)) => (*detail).to_owned(),
            (Self::Place(_), Some(detail)) => place(detail).to_owned(),
            (Self::Sum(_), _) => {
                let numbers =
                    details.iter().filter_map(|detail| detail.split(' ').next()?.parse::<u64>().ok());
                numbers.sum::<u64>().to_string()
            }
        }
    }
}

/// `clsact`, of `at clsact: 28 connections`.
fn place(detail: &str) -> &str {
    let begin = detail.strip_prefix("at ").unwrap_or(detail);
    begin.split(':').next().unwrap_or(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, lines: &str) -> Run {
        let mut log = Log::default();
        lines.lines().for_each(|line| log.add(line));
        Run { name: name.to_owned(), package: "linux-image_1".to_owned(), status: None, log }
    }

    #[test]
    fn cells_say_what_the_log_says() {
        let run = run(
            "5.10",
            "fact release 5.10.0\npass 1 load/xdp/lb_xdp \nskip 0 load/xdp-frags/lb_xdp_frags xdp.frags needs kernel 5.18\n\
             pass 1 rows/tc/a 20 rows\npass 1 rows/tc/b 3 rows\npass 9 traffic/tc-direct at clsact: 28\nfail 1 restart/xdp x",
        );
        let text = |cell: Cell| cell.text(&run.log);
        assert_eq!(text(Cell::Passed("load/xdp/")), "yes");
        assert_eq!(text(Cell::Passed("load/xdp-frags/")), "from 5.18");
        assert_eq!(text(Cell::Sum("rows/tc/")), "23");
        assert_eq!(text(Cell::Place("traffic/tc-direct")), "clsact");
        assert_eq!(text(Cell::Passed("restart/xdp")), "no");
        assert_eq!(text(Cell::Passed("nothing/of/it")), "?");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = "a\n<!-- table: written by x -->\nold\n<!-- table: end -->\nb\n";
        let wanted = "a\n<!-- table: written by x -->\nnew\n<!-- table: end -->\nb\n";
        assert_eq!(replaced(document, "table", "new\n").as_deref(), Some(wanted));
        assert_eq!(replaced(document, "other", "new\n"), None);
    }
}
