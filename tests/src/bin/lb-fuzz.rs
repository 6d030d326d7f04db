//! `lb-fuzz MINUTES [TARGET] [--seed N]`: runs targets for so long, one after another; what is found is written to
//! `tests/crashes/<target>/`. `cargo xtask fuzz` calls it.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use lb_tests::fuzz::grow::Grower;
use lb_tests::fuzz::{TARGETS, Target};

#[derive(Debug, Parser)]
struct Args {
    /// Minutes for each target
    minutes: f64,
    /// One target only
    target: Option<String>,
    /// Where random numbers begin; by default the time
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs one target; how much it found.
fn fuzz(target: &Target, time: Duration, seed: u64) -> anyhow::Result<usize> {
    let (mut inputs, mut found) = (0_u64, 0);
    let mut grower = Grower::new(target, seed);
    let start = Instant::now();
    while start.elapsed() < time && found < 10 {
        let input = grower.next_input();
        inputs += 1;
        if let Err(wrong) = target.check(&input) {
            found += 1;
            let folder = target.crashes();
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            let path = folder.join(format!("{seed:x}-{inputs}"));
            fs::write(&path, &input).with_context(|| format!("write {}", path.display()))?;
            println!("{}: {}: {wrong}", target.name, path.display());
        }
    }
    println!("{}: {inputs} inputs, {found} found, seed {seed}", target.name);
    Ok(found)
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let time = Duration::try_from_secs_f64(args.minutes * 60.0).context("the minutes")?;
    let seed = args.seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()));
    let targets: Vec<Target> = match &args.target {
        Some(name) => {
            let known = || TARGETS.map(|target| target.name).join(", ");
            vec![Target::named(name).with_context(|| format!("no target {name}: there are {}", known()))?]
        }
        None => TARGETS.to_vec(),
    };
    let mut found = 0;
    for target in targets {
        found += fuzz(&target, time, seed)?;
    }
    Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
