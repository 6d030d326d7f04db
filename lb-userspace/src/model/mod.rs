//! Kubernetes objects to desired state.
//!
//! [`services`] and [`endpoints`] read the objects, [`topology`] chooses the backends that each policy may use,
//! [`addresses`] the node addresses that serve node ports, [`allocate`] gives what objects leave out; [`build`] puts it all
//! together.

pub mod addresses;
pub mod allocate;
pub mod args;
pub mod build;
pub mod changes;
mod claims;
pub mod config;
pub mod desired;
pub mod dump;
pub mod endpoints;
mod frontends;
pub mod health;
pub mod healthz;
pub mod kept;
pub mod labels;
pub mod metrics;
pub mod services;
pub mod stale;
pub mod timestamp;
pub mod topology;

pub use allocate::Allocations;
pub use build::{Built, Note, build};
pub use config::{Interface, ModelConfig, NodePortAddresses};
pub use kept::{Basis, Model, News};
