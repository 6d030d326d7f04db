//! Test support.

pub mod cases;
pub mod lab;
