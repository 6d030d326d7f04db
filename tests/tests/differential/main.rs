//! Differential proof: random Services, slices and packets; the engine on the host, the kernel programs, and a slow model
//! written straight from the rules agree on all of them. Needs root.
//!
//! A *probe* is a distinct pair of a state and a first packet (source and destination address, port, kind of packet,
//! interface). Each is sent to every body at least once, as often as it takes to see every backend that takes turns.
//!
//! `LB_PROBES` says how many probes a run makes. A failure prints its seed, and the smallest state that still fails; `LB_SEED`
//! repeats that half of a run. Without it the seed is always the same, so that a failure is the change's and not chance's;
//! `LB_SEED=random` looks further.

mod bodies;
mod objects;
mod probe;
mod truth;
mod world;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use lb_tests::rows::Hook;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use bodies::{Bodies, Mismatch};
use probe::Probe;
use world::{Case, World};

/// Probes of a run, over all threads.
const PROBES: usize = 100_000;
/// One in so many of all probes is sent to a state when it is for a frontend there, and when it is for none.
const ONE_IN: (u64, u64) = (3, 200);
/// Seed of a run, unless another is asked for.
const SEED: u64 = 0x6c62_2026;
/// Steps of shrinking, at most.
const SHRINKS: usize = 2_000;

fn number(name: &str, otherwise: impl FnOnce() -> u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => otherwise(),
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The probes of a state: chosen by the seed and the probe alone, so that a smaller state is asked the same.
fn probes<'a>(seed: u64, world: &World, all: &'a [Probe]) -> Vec<&'a Probe> {
    let wanted = |probe: &&Probe| {
        let one_in = if world.is_frontend(probe) { ONE_IN.0 } else { ONE_IN.1 };
        hash((seed, probe)).is_multiple_of(one_in)
    };
    all.iter().filter(wanted).collect()
}

/// Runs a case; how many probes were distinct from all in `seen`.
fn run(bodies: &mut Bodies, case: &Case, all: &[Probe], seen: &mut HashSet<u64>) -> Result<usize, Mismatch> {
    let mut count = 0;
    bodies.clear()?;
    for (number, world) in case.states.iter().enumerate() {
        bodies.sync(&objects::desired(world)).map_err(|wrong| wrong.at(number, None))?;
        for probe in probes(case.seed, world, all) {
            bodies.ask(probe, &world.truth(probe)).map_err(|wrong| wrong.at(number, Some(probe)))?;
            count += usize::from(seen.insert(hash((world, probe))));
        }
    }
    Ok(count)
}

fn report(seed: u64, case: &Case, wrong: &Mismatch) -> String {
    let mut text = format!("{wrong}\nrepeat with LB_SEED={seed}\nsmallest case that fails:\n");
    for (number, world) in case.states.iter().enumerate().take(wrong.state() + 1) {
        let _ = writeln!(text, "state {number}: {:?}", world.around);
        for value in objects::values(world) {
            let _ = writeln!(text, "---\n{value}");
        }
    }
    text
}

/// Makes `wanted` probes with random states.
fn prove(seed: u64, wanted: usize) -> Result<usize, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let strategy = world::case();
    let mut bodies =
        Bodies::load(&[Hook::Xdp, Hook::Tc]).unwrap_or_else(|error| panic!("root needed: {error}"));
    let all = probe::all();
    let mut seen = HashSet::new();
    while seen.len() < wanted {
        let mut tree = strategy.new_tree(&mut runner).map_err(|reason| reason.to_string())?;
        let Err(mut wrong) = run(&mut bodies, &tree.current(), &all, &mut seen) else { continue };
        let mut smallest = tree.current();
        let mut more = tree.simplify();
        for _ in 0..SHRINKS {
            if !more {
                break;
            }
            let case = tree.current();
            more = match run(&mut bodies, &case, &all, &mut HashSet::new()) {
                Err(smaller) => {
                    (wrong, smallest) = (smaller, case);
                    tree.simplify()
                }
                Ok(_) => tree.complicate(),
            };
        }
        return Err(report(seed, &smallest, &wrong));
    }
    eprintln!("{} probes agreed; LB_SEED={seed}; {}", seen.len(), bodies.tally());
    Ok(seen.len())
}

#[test]
fn engine_kernel_programs_and_rules_agree() {
    let wanted = usize::try_from(number("LB_PROBES", || PROBES as u64)).expect("fits");
    let half = wanted.div_ceil(2);
    let both = |seed: u64| {
        std::thread::scope(|scope| {
            let threads = [seed, seed ^ 1].map(|seed| scope.spawn(move || prove(seed, half)));
            threads.map(|thread| thread.join().expect("a thread that does not panic")).to_vec()
        })
    };
    let results = match std::env::var("LB_SEED").as_deref() {
        Err(_) => both(SEED),
        Ok("random") => both(std::time::UNIX_EPOCH.elapsed().map_or(SEED, |time| time.as_nanos() as u64)),
        // The half that failed.
        Ok(_) => vec![prove(number("LB_SEED", || SEED), half)],
    };
    for result in results {
        result.unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}
