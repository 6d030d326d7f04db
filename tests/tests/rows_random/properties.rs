//! What holds for any packets and services, on the host build of the engine.

use lb_common::engine::Position;
use lb_tests::rows::watch::watch;
use lb_tests::rows::{Body, Host};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::actions::{Actions, actions};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence(actions in actions()) {
        watch(&Actions(actions)).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), external: bool, egress: bool) {
        let mut host = Host::new();
        let outcome = host.run(&bytes, Position { external, egress }).expect("the host counts");
        // Without services there is nothing to do for any packet.
        prop_assert_eq!(outcome.frame, bytes);
    }
}
