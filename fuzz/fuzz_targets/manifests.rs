//! `cargo +nightly fuzz run manifests`

#![no_main]

use lb_tests::fuzz::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let target = Target::named("manifests").expect("a target of that name");
    if let Err(wrong) = target.check(bytes) {
        panic!("{wrong}");
    }
});
