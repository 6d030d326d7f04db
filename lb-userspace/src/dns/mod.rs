//! DNS for the cluster domain (N1–N7), from the same objects as the maps.
//!
//! [`build`] makes a [`Zone`] of objects, [`answer`] makes a response of zone and query, [`forward`] asks others about
//! names outside, [`server`] has the sockets. A change of objects is a new zone in place of the old one, in one step.

pub mod answer;
pub mod build;
mod cache;
pub mod counters;
mod encode;
pub mod forward;
mod headless;
mod listen;
mod names;
pub mod server;
mod zone;

pub use answer::{Context, Response, Step, Transport, answer, answer_bytes};
pub use build::{ZoneConfig, concerned};
pub use names::parse_domain;
pub use server::{Dns, Settings};
pub use zone::Zone;

use std::io;
use std::net::{IpAddr, SocketAddr};

/// The port of DNS.
pub const PORT: u16 = 53;

/// Why names are not served.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A socket cannot be opened.
    #[error("{address}: cannot listen for DNS by {protocol}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// An address that stands for all.
    #[error(
        "--dns-listen {0}: give the addresses one by one: answers must leave from the address that was asked, and a \
         resolver should not listen where it was not told to"
    )]
    Unspecified(SocketAddr),
    /// It would ask itself.
    #[error("--dns-upstream {0}: that is this server itself (--dns-listen)")]
    Loop(SocketAddr),
    /// The counters have no place.
    #[error("cannot make a file in memory for the counters of the DNS server: {0}")]
    Counters(io::Error),
    /// The thread cannot be started.
    #[error("cannot start the DNS server: {0}")]
    Thread(io::Error),
}

/// Reads `IP` or `IP:PORT`; an IPv6 address with a port is in brackets.
///
/// # Errors
/// What is wanted, for people.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, PORT));
    }
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0).ok_or_else(|| {
        "an address is wanted, with or without a port: 10.0.0.1, 10.0.0.1:53, [fd00::1]:53".to_owned()
    })
}

#[cfg(test)]
mod tests;
