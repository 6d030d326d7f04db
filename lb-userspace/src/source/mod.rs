//! Where objects come from: files and folders of Kubernetes YAML or JSON, watched (Z1, Z3).
//!
//! [`document`] makes objects of text, [`files`] keeps what each file held last, [`Source`] merges the files and watches
//! them.

pub mod address;
pub mod document;
mod files;
pub mod kube;
mod lines;
mod memory;
pub mod objects;
pub mod problem;
mod stamp;
pub mod validate;
mod watch;

pub use files::{Snapshot, Source};
pub use objects::Objects;
pub use problem::{Problem, Severity};

#[cfg(test)]
mod tests;
