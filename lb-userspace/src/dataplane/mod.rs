//! Loading the kernel programs, attaching them to interfaces, and the pins that outlive the agent.
//!
//! One pin directory on a bpffs holds everything that stays when the agent goes: `maps/NAME`,
//! `links/IFACE-HOOK` and `sockets/HOOK`.
//! Programs have no pins of their own: the links keep them. A start finds the pins, checks that they fit, loads the
//! programs anew with the maps that are there, and puts them into the links that are there, one atomic exchange each.

mod attach;
mod clsact;
mod complaint;
mod error;
mod hook;
mod load;
mod pins;
mod rehearsal;
mod sockets;

pub use attach::{Attached, Attacher, Target, detach};
pub use clsact::{Filter, filters};
pub use error::DataplaneError;
pub use hook::{Hook, HookChoice};
pub use load::{Programs, Sizes, clock_ticks_per_second, config, for_maps, kernel_at_least};
pub use pins::{Link, LinkKind, Lock, PinDir, meta};
pub use rehearsal::{Outcome, Rehearsal, map_data};
pub use sockets::{SocketHook, SocketLink, detach_sockets, socket_links};
