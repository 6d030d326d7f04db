//! Test support.

pub mod cases;
pub mod lab;
pub mod rows;
