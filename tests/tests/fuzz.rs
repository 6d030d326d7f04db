//! Every target takes what was once too much for one of them, and some thousand inputs that are always the same. Sequences
//! of packets go through the kernel programs as well (as root), which do what the engine does.

use lb_tests::fuzz::grow::Grower;
use lb_tests::fuzz::{Played, Target};
use lb_tests::rows::agree::{Met, agree};
use lb_tests::rows::{Hook, Kernel};

const SEED: u64 = 20_261_123;

fn check(name: &str, inputs: usize) {
    let target = Target::named(name).expect("a target of that name");
    for (path, bytes) in target.found() {
        target.check(&bytes).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
    }
    let mut grower = Grower::new(&target, SEED);
    for number in 0..inputs {
        let input = grower.next_input();
        target.check(&input).unwrap_or_else(|wrong| panic!("{name}, input {number}: {wrong}\n{input:02x?}"));
    }
}

#[test]
fn packets() {
    check("packets", 400);
}

#[test]
fn sequences() {
    check("sequences", 150);
}

#[test]
fn manifests() {
    check("manifests", 300);
}

#[test]
fn names() {
    check("names", 4_000);
}

#[test]
fn pins() {
    check("pins", 150);
}

#[test]
fn kernel_programs_agree_with_the_engine_on_sequences() {
    let target = Target::named("sequences").expect("a target of that name");
    let mut grower = Grower::new(&target, SEED);
    let mut inputs: Vec<_> = target.found().into_iter().map(|(_, bytes)| bytes).collect();
    inputs.extend((0..120).map(|_| grower.next_input()));
    for hook in [Hook::Xdp, Hook::Tc] {
        let mut kernel = Kernel::load(hook).unwrap_or_else(|error| panic!("root needed: {error}"));
        let mut met = Met::new();
        for input in &inputs {
            let agreed = agree(&mut kernel, &Played::new(input), &mut met);
            let agreed = agreed.unwrap_or_else(|error| panic!("{error}: {input:02x?}"));
            agreed.unwrap_or_else(|wrong| panic!("{hook:?}: {wrong}\n{input:02x?}"));
        }
        // Sequences that meet nothing would agree as well.
        assert!(met.len() > 6 && met.values().sum::<usize>() > 200, "{met:?}");
    }
}
