//! Runs a folder of cases: a line for each failing row, then the totals.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use lb_tests::cases::{self, Prober, Reference};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cases: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    let (mut area, mut json) = (None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| anyhow::anyhow!("{arg} wants a value"));
        match arg.as_str() {
            "--dir" => folder = PathBuf::from(value()?),
            "--area" => area = Some(value()?),
            "--output" => match value()?.as_str() {
                "json" => json = true,
                "text" => json = false,
                other => bail!("output {other} is not known: json or text"),
            },
            other => bail!("argument {other} is not known: --dir DIR, --area AREA, --output json|text"),
        }
    }
    let mut probers: Vec<Box<dyn Prober>> = vec![Box::new(Reference::default())];
    probers.extend(cases::everywhere()?);
    let report = cases::run(&folder, area.as_deref(), &mut probers)?;
    let (passed, failed) = report.totals();
    if json {
        let failures: Vec<_> = report.failures().collect();
        println!("{}", serde_json::json!({"passed": passed, "failed": failed, "failures": failures}));
    } else {
        for row in report.failures() {
            println!("{row}");
        }
        println!("{passed} passed, {failed} failed");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
