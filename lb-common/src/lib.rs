//! Types and packet logic shared by the kernel programs and the user side of `lb`.
//!
//! - [`abi`]: what lies in the maps, byte for byte.
//! - [`tables`]: the list of maps: name, kind, sizes, who writes.
//! - [`reason`]: why a packet met its verdict; one list for kernel, metrics, CLI and docs.
//! - [`family`]: IPv4 and IPv6 as a type parameter.
//! - [`engine`]: the packet logic, generic over how packet bytes and tables are reached.
//! - `memory` (feature `std`): tables and packets in ordinary memory, for the host build of the engine.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod abi;
pub mod engine;
pub mod family;
#[cfg(feature = "std")]
pub mod memory;
#[cfg(feature = "std")]
pub mod memory_flows;
pub mod reason;
pub mod tables;
