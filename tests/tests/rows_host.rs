//! The packet rows on the host build of the engine.

use lb_tests::rows::{Host, cases, run::run_all};

#[test]
fn all() {
    if let Err(failures) = run_all(&mut Host::new(), &cases::all()) {
        panic!("failed rows:\n{failures}");
    }
}
