//! How much fits, and what is said about things that do not.

use lb_common::tables::Table;

use super::words::FrontendName;
use crate::maps::{MapError, MapStore};
use crate::model::desired::ServicePortName;

/// The option of `lb run` that makes a table larger.
pub const fn size_option(table: Table) -> &'static str {
    match table {
        Table::FrontendsV4 | Table::FrontendsV6 | Table::Turns => "--max-frontends",
        Table::Slots => "--max-slots",
        Table::Backends | Table::BackendStats | Table::OpenFlows => "--max-backends",
        Table::ServiceNames => "--max-services",
        Table::Classes => "--max-classes",
        Table::SourceRanges => "--max-source-ranges",
        Table::FlowsV4 | Table::FlowsV6 => "--max-flows",
        Table::Affinity => "--max-affinity",
        Table::Fragments => "--max-fragments",
        Table::Sockets => "--max-sockets",
        Table::Ifaces
        | Table::Devices
        | Table::Netns
        | Table::IfaceStats
        | Table::Settings
        | Table::Meta
        | Table::Filter
        | Table::Locks => "nothing: its size is fixed",
    }
}

/// Sizes the planner stays within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the IPv4 frontends, owners of ClusterIPs included.
    pub frontends_v4: u32,
    /// Entries of the IPv6 frontends, owners of ClusterIPs included.
    pub frontends_v6: u32,
    /// Frontends of both families, without owners: each has two counters in `TURNS`. Number 0 is not used.
    pub frontend_ids: u32,
    /// Service ports. Number 0 is not used.
    pub services: u32,
    /// Backends of all service ports. Number 0 is not used.
    pub backends: u32,
    /// Backends of one service port.
    pub backends_per_service: u32,
    /// Slots of all lists.
    pub slots: u32,
    /// Ranges in `CLASSES`.
    pub classes: u32,
    /// Ranges in `SOURCE_RANGES`.
    pub source_ranges: u32,
}

impl Limits {
    /// What a store has room for.
    ///
    /// # Errors
    /// [`MapError`] when the store lacks a table.
    pub fn of(store: &dyn MapStore) -> Result<Self, MapError> {
        Ok(Self {
            frontends_v4: store.capacity(Table::FrontendsV4)?,
            frontends_v6: store.capacity(Table::FrontendsV6)?,
            frontend_ids: store.capacity(Table::Turns)? / 2,
            services: store.capacity(Table::ServiceNames)?,
            // A number is an index into all three.
            backends: store
                .capacity(Table::Backends)?
                .min(store.capacity(Table::BackendStats)?)
                .min(store.capacity(Table::OpenFlows)?),
            backends_per_service: 16_384,
            slots: store.capacity(Table::Slots)?,
            classes: store.capacity(Table::Classes)?,
            source_ranges: store.capacity(Table::SourceRanges)?,
        })
    }
}

/// Something wanted that the plan leaves out. Everything else is planned as if it were not there, and what is in place stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Two services claim one frontend.
    #[error("{frontend} of {loser} is already taken by {winner}, which comes first by name")]
    Taken {
        /// The frontend.
        frontend: FrontendName,
        /// Who has it.
        winner: Box<ServicePortName>,
        /// Who goes without.
        loser: Box<ServicePortName>,
    },
    /// A service does not fit.
    #[error(
        "{service} left as it is: it needs {needed} more {what}, and fewer of {capacity} are free; make room with {}",
        size_option(*.table)
    )]
    ServiceTooMuch {
        /// The service port.
        service: Box<ServicePortName>,
        /// Of what there is not enough.
        what: &'static str,
        /// The table that is full.
        table: Table,
        /// How many more it needs.
        needed: u32,
        /// How many there are in all.
        capacity: u32,
    },
    /// A service has more backends than one may have.
    #[error("{service} left as it is: it has {found} backends, one service port may have {limit}")]
    TooManyBackends {
        /// The service port.
        service: Box<ServicePortName>,
        /// Backends found.
        found: usize,
        /// Backends allowed.
        limit: u32,
    },
    /// A frontend does not fit.
    #[error(
        "{frontend} of {service} left out: the table of frontends is full ({capacity}); make room with {}",
        size_option(Table::FrontendsV4)
    )]
    FrontendTooMuch {
        /// The frontend.
        frontend: FrontendName,
        /// Its service port.
        service: Box<ServicePortName>,
        /// How many there may be.
        capacity: u32,
    },
    /// An owner's entry does not fit.
    #[error(
        "owner of ClusterIP {frontend} left out, its other ports are not rejected: the table of frontends is full ({capacity}); \
         make room with {}",
        size_option(Table::FrontendsV4)
    )]
    OwnerTooMuch {
        /// The address.
        frontend: FrontendName,
        /// How many entries there may be.
        capacity: u32,
    },
    /// A pod range, node address or service range does not fit.
    #[error(
        "address range {range} left out: {capacity} ranges are the limit; make room with {}",
        size_option(Table::Classes)
    )]
    ClassTooMuch {
        /// The range.
        range: String,
        /// How many there may be.
        capacity: u32,
    },
}

impl Problem {
    /// Whether it may go away by itself once what was freed has rested.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Taken { .. } | Self::TooManyBackends { .. })
    }
}
