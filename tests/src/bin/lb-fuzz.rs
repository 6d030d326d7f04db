//! `lb-fuzz MINUTES [TARGET] [--seed N]`: runs targets for so long, one after another; what is found is written to
//! `tests/crashes/<target>/`. `cargo xtask fuzz` calls it.
//!
//! `lb-fuzz --seeds fuzz/corpus` writes the inputs to begin with where `cargo fuzz run` looks for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use lb_tests::fuzz::grow::Grower;
use lb_tests::fuzz::{TARGETS, Target};

#[derive(Debug, Parser)]
struct Args {
    /// Minutes for each target
    #[arg(required_unless_present = "seeds")]
    minutes: Option<f64>,
    /// One target only
    target: Option<String>,
    /// Where random numbers begin; by default the time
    #[arg(long)]
    seed: Option<u64>,
    /// Only writes the inputs to begin with to DIR/<target>/, for other fuzzers
    #[arg(long, value_name = "DIR")]
    seeds: Option<PathBuf>,
}

/// Writes inputs to begin with, and what was found.
fn write_seeds(target: &Target, folder: &Path) -> anyhow::Result<()> {
    let folder = folder.join(target.name);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let found = target.found().into_iter().map(|(_, bytes)| bytes);
    for (number, seed) in (target.seeds)().into_iter().chain(found).enumerate() {
        let path = folder.join(format!("seed-{number}"));
        fs::write(&path, seed).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
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
    let time = Duration::try_from_secs_f64(args.minutes.unwrap_or_default() * 60.0).context("the minutes")?;
    let seed = args.seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()));
    let targets: Vec<Target> = match &args.target {
        Some(name) => {
            let known = || TARGETS.map(|target| target.name).join(", ");
            vec![Target::named(name).with_context(|| format!("no target {name}: there are {}", known()))?]
        }
        None => TARGETS.to_vec(),
    };
    if let Some(folder) = &args.seeds {
        targets.iter().try_for_each(|target| write_seeds(target, folder))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut found = 0;
    for target in targets {
        found += fuzz(&target, time, seed)?;
    }
    Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
