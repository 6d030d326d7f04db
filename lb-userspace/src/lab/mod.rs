//! `lb lab`: Services without a cluster, in network namespaces.
//!
//! From ordinary manifests it makes a node, a pod for each replica, a client, and a host outside of the cluster: each a
//! network namespace, wired as [`topology`] says. In each pod a small [`server`] says which pod it is. The agent runs on the node, reads the
//! user's manifests and, beside them, the Pod objects that the lab writes as a cluster would.
//!
//! Everything is found from the lab's name: namespaces `lb-NAME-…`, folder `/run/lb/lab/NAME`, pins
//! `/sys/fs/bpf/lb-lab-NAME`. So `lb lab down` cleans up after a crash too.
//!
//! [`netns`], [`link`] and [`topology`] are also what end-to-end tests build their own networks from.

mod agent;
mod commands;
mod dns;
mod error;
mod explain;
mod find;
mod forward;
mod http;
mod inside;
mod labs;
pub mod link;
mod manifest;
pub mod netns;
mod pods;
pub mod process;
mod ranges;
mod remove;
pub mod server;
mod state;
mod status;
pub mod topology;

pub use commands::{Args, execute};
pub use error::{Error, Result};
pub use labs::{CLIENT, Lab, NODE, OUTSIDE, Options};
pub use pods::{Container, Port, Template};
pub use state::{Places, Pod, State};
pub use status::Status;
