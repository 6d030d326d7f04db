//! What `lb` costs beside IPVS.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Context;

use super::document::{Run, today};

/// Checks and what they measure.
const MEASURED: [(&str, &str); 2] =
    [("bench/connect", "connect, ask, close"), ("bench/bulk", "60 kB there and back")];
/// Ways to the servers, as the guest calls them, and for people.
const WAYS: [(&str, &str); 4] = [
    ("no-balancer", "no balancer"),
    ("ipvs", "IPVS"),
    ("lb-direct", "lb, direct forwarding"),
    ("lb-kernel", "lb, forwarding by the kernel"),
];

/// A table of all runs.
pub(crate) fn table(runs: &[Run]) -> anyhow::Result<String> {
    let mut text = format!("Run on {}.\n\n", today()?);
    text += "| kernel | what | ";
    text += &WAYS.map(|(_, title)| title).join(" | ");
    text += " | lb, direct : IPVS | lb, by the kernel : IPVS |\n|---|---|---|---|---|---|---|---|\n";
    for run in runs {
        let release = run.log.fact("release").unwrap_or(&run.name);
        for (check, title) in MEASURED {
            let result = run.log.results().iter().find(|result| result.name == check);
            let told = &result.with_context(|| format!("{}: no {check}", run.name))?.detail;
            let times = times(told);
            let of = |name: &str| {
                times
                    .get(name)
                    .copied()
                    .with_context(|| format!("{}: {check} tells nothing of {name}", run.name))
            };
            write!(text, "| {release} | {title} |")?;
            for (name, _) in WAYS {
                write!(text, " {:.0} |", of(name)? / 1000.0)?;
            }
            let ipvs = of("ipvs")?;
            writeln!(text, " {:.2} | {:.2} |", of("lb-direct")? / ipvs, of("lb-kernel")? / ipvs)?;
        }
    }
    Ok(text)
}

/// Nanoseconds by way, of `ipvs 1200 lb-direct 1100`.
fn times(detail: &str) -> BTreeMap<&str, f64> {
    let words: Vec<&str> = detail.split(' ').collect();
    words.chunks_exact(2).filter_map(|pair| Some((pair[0], pair[1].parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::log::Log;
    use super::*;

    fn run(lines: &str) -> Run {
        let mut log = Log::default();
        lines.lines().for_each(|line| log.add(line));
        Run { name: "6.12".to_owned(), package: String::new(), status: None, log }
    }

    #[test]
    fn ratios_are_to_ipvs() {
        let told = "no-balancer 50000 ipvs 100000 lb-direct 75000 lb-kernel 120000";
        let runs = [run(&format!("pass 1 bench/connect {told}\npass 1 bench/bulk {told}"))];
        let text = table(&runs).unwrap();
        assert!(
            text.contains("| 6.12 | connect, ask, close | 50 | 100 | 75 | 120 | 0.75 | 1.20 |"),
            "{text}"
        );
        let runs = [run("pass 1 bench/connect ipvs 1")];
        assert!(table(&runs).is_err(), "what was not measured is not shown");
    }
}
