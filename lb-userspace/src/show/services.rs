//! `lb get services`: frontends.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::Args;
use lb_common::abi::{FrontendEntry, SlotRange, algorithm, frontend_flag};
use lb_common::tables::Table;
use serde::Serialize;

use super::output::{Listing, table};
use super::{read, wanted};
use crate::maps::MapStore;
use crate::model::desired::Protocol;
use crate::plan::words::FrontendName;
use crate::plan::{Tables, algorithm_name, kind_name};

/// Which services.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only Services whose namespace/name:port contains this
    #[arg(long, value_name = "TEXT")]
    pub service: Option<String>,
}

/// A frontend. The field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// `namespace/name:port/PROTOCOL`.
    service: String,
    #[serde(rename = "type")]
    kind: &'static str,
    address: IpAddr,
    port: u16,
    protocol: String,
    algorithm: &'static str,
    internal_policy: &'static str,
    external_policy: &'static str,
    affinity_seconds: Option<u32>,
    /// Backends for pods and this node.
    backends: usize,
    /// Backends for everyone else.
    external_backends: usize,
    /// What happens when there is no backend for the client.
    when_empty: &'static str,
    /// New connections by turns taken; absent for algorithms that take none.
    new_connections: Option<u64>,
}

/// Frontends in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Services(Vec<Row>);

pub(super) fn collect(store: &dyn MapStore, filter: &Filter) -> anyhow::Result<Services> {
    let tables = Tables::read(store)?;
    let capacity = store.capacity(Table::Slots)?;
    let mut rows = Vec::new();
    for (name, entry) in tables.frontends.iter().filter(|(name, _)| !name.is_owner()) {
        let service = tables.service(entry.service_id);
        if wanted(filter.service.as_deref(), &service) {
            rows.push(row(store, &tables, capacity, service, name, entry)?);
        }
    }
    rows.sort_by(|a, b| (&a.service, a.address, a.port).cmp(&(&b.service, b.address, b.port)));
    Ok(Services(rows))
}

fn row(
    store: &dyn MapStore,
    tables: &Tables,
    capacity: u32,
    service: String,
    name: &FrontendName,
    entry: &FrontendEntry,
) -> anyhow::Result<Row> {
    let count = |run: SlotRange| {
        tables.run(run, capacity).map_or(0, |backends| backends.collect::<BTreeSet<u32>>().len())
    };
    let policy = |flag| if entry.flags & flag != 0 { "Local" } else { "Cluster" };
    let takes_turns = matches!(entry.algorithm, algorithm::ROUND_ROBIN | algorithm::WEIGHTED);
    let mut turns = 0;
    for list in 0..2 {
        turns += read::<u64>(store, Table::Turns, 2 * entry.frontend_id + list)?.unwrap_or(0);
    }
    Ok(Row {
        service,
        kind: kind_name(entry.kind),
        address: name.addr,
        port: name.port,
        protocol: Protocol::from_number(name.protocol)
            .map_or_else(|| name.protocol.to_string(), |protocol| protocol.to_string()),
        algorithm: algorithm_name(entry.algorithm),
        internal_policy: policy(frontend_flag::INTERNAL_LOCAL),
        external_policy: policy(frontend_flag::EXTERNAL_LOCAL),
        affinity_seconds: (entry.flags & frontend_flag::AFFINITY != 0).then_some(entry.affinity_timeout_s),
        backends: count(entry.internal),
        external_backends: count(entry.external),
        when_empty: if entry.flags & frontend_flag::REJECT_EMPTY != 0 { "reject" } else { "drop" },
        new_connections: takes_turns.then_some(turns),
    })
}

impl Row {
    fn policy(&self) -> String {
        let mut policy = self.internal_policy.to_owned();
        if self.external_policy != self.internal_policy {
            policy = format!("{policy}, outside {}", self.external_policy);
        }
        if let Some(seconds) = self.affinity_seconds {
            policy += &format!(", affinity {seconds} s");
        }
        policy
    }

    fn backend_counts(&self) -> String {
        if self.backends == self.external_backends {
            self.backends.to_string()
        } else {
            format!("{}, outside {}", self.backends, self.external_backends)
        }
    }
}

impl Listing for Services {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|row| {
            [
                row.service.clone(),
                row.kind.to_owned(),
                format!("{}/{}", std::net::SocketAddr::new(row.address, row.port), row.protocol),
                row.algorithm.to_owned(),
                row.policy(),
                row.backend_counts(),
                row.new_connections.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            ]
        });
        table(
            ["SERVICE", "TYPE", "FRONTEND", "ALGORITHM", "POLICY", "BACKENDS", "NEW CONNECTIONS"],
            rows.collect(),
            "no services",
        )
    }
}
