//! The user side of `lb`: Services and endpoints in, maps out.
//!
//! [`source`] → [`model`] → [`plan`] → [`maps`]; [`dataplane`] loads and attaches the programs that read them.

pub mod agent;
pub mod cli;
pub mod dataplane;
pub mod detach;
pub mod dns;
pub mod doctor;
mod ethtool;
pub mod explain;
pub mod forwarding;
pub mod health;
pub mod lab;
pub mod maps;
pub mod model;
mod netlink;
pub mod object;
pub mod plan;
mod private_file;
pub mod show;
pub mod sockets;
pub mod source;
