//! Where objects come from: files and folders of Kubernetes YAML or JSON, watched (Z1, Z3).
//!
//! [`document`] makes objects of text, [`file`] keeps what one file held last, in compact form ([`packed`]), [`merge`] puts all
//! files together, and [`Source`] does so as they change: what is in force is in the [`Store`].

pub mod address;
pub mod document;
mod file;
mod files;
mod folder;
pub mod kube;
mod lines;
mod memory;
mod merge;
pub mod objects;
mod packed;
pub mod problem;
mod stamp;
mod store;
pub mod validate;
mod watch;

pub use files::{Snapshot, Source};
pub use objects::Objects;
pub use packed::Packed;
pub use problem::{Problem, Severity};
pub use store::{Change, Store};

#[cfg(test)]
mod tests;
