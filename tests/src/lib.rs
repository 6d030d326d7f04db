//! Test support.

pub mod capture;
pub mod cases;
pub mod cgroup;
pub mod edits;
pub mod fuzz;
pub mod hosts;
pub mod lab;
pub mod ledger;
pub mod node;
pub mod patience;
pub mod rows;
pub mod scene;
pub mod transcript;
pub mod verifier;
pub mod vm;
