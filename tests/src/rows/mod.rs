//! Packet rows: packets in, services, and for each packet the reason, the whole packet out and the counters.
//!
//! A row is written once and runs on every [`Body`]: the host build of the engine, and each kernel program through
//! `BPF_PROG_TEST_RUN`. Its tables come from the planner that the agent uses. To add one, add a few lines to the file of its
//! rule group in [`cases`]:
//!
//! ```ignore
//! rows.all("S1 backends take turns", |s| {
//!     s.serve(&[s.svc(&[1, 2])]);
//!     s.open(&s.conn(1000, 1));
//!     s.open(&s.conn(1001, 2));
//! });
//! ```
//!
//! Every packet is given as a description ([`Packet`]), the one that must come out as well: its checksums are computed from
//! scratch by code that the engine does not share.

pub mod agree;
pub mod body;
pub mod cases;
pub mod host;
pub mod kernel;
pub mod look;
pub mod net;
pub mod packet;
pub mod row;
pub mod run;
pub mod sequence;
pub mod service;
pub mod sums;
pub mod watch;
pub mod written;

use lb_userspace::maps::MapError;
use lb_userspace::plan::SyncError;

pub use body::{Body, Hook, Outcome};
pub use host::Host;
pub use kernel::Kernel;
pub use packet::Packet;
pub use row::{Row, Rows, Script};

/// Why a row failed, or could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the row is about is not so.
    #[error("{0}")]
    Unexpected(String),
    /// The counters rose otherwise than by this one packet.
    #[error("counters rose otherwise than by one packet: {0}")]
    Counted(String),
    /// At one of the row's steps.
    #[error("step {number} ({step}): {error}")]
    Step {
        /// Its number.
        number: usize,
        /// What it does.
        step: String,
        /// What went wrong.
        error: Box<Error>,
    },
    /// A map cannot be read or written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The tables cannot be made.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The object cannot be loaded.
    #[error("loading maps: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program cannot be loaded or run.
    #[error("loading or running a program: {0:?}")]
    Program(#[from] aya::programs::ProgramError),
    /// The object has no such map.
    #[error("the object has no map {0} of a kind that is used")]
    NoMap(&'static str),
    /// The object has no such program.
    #[error("the object has no program {0} for this")]
    NoProgram(&'static str),
    /// A descriptor cannot be copied.
    #[error("copying a descriptor: {0}")]
    Descriptor(#[from] std::io::Error),
}
