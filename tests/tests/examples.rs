//! Every example is run as its README says. Needs root.

use std::collections::BTreeSet;
use std::fs;

use lb_tests::lab::examples;
use lb_tests::transcript;

/// A test for each folder.
macro_rules! examples {
    ($($test:ident $folder:literal)*) => {
        $(
            #[test]
            fn $test() {
                transcript::run(&examples().join($folder).join("README.md"));
            }
        )*
        const TESTED: &[&str] = &[$($folder),*];
    };
}

examples! {
    affinity "affinity"
    clusterip "clusterip"
    dual_stack "dual-stack"
    externalname "externalname"
    headless "headless"
    loadbalancer "loadbalancer"
    multi_port "multi-port"
    nodeport "nodeport"
    statefulset "statefulset"
}

#[test]
fn every_example_is_tested() {
    let folders = fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap());
    let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
    let folders: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(folders, TESTED.iter().map(|&folder| folder.to_owned()).collect());
}
