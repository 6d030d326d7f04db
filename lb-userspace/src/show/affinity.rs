//! `lb get affinity`: which client keeps which backend (S4).

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use lb_common::abi::{AffinityEntry, AffinityKey, Meta, backend_flag};
use lb_common::engine::state::elapsed;
use lb_common::tables::Table;
use serde::Serialize;

use super::output::{Listing, table};
use super::{read, wanted};
use crate::maps::MapStore;
use crate::plan::words::narrow;
use crate::plan::{Tables, backend_addr};

/// Which choices.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only clients of Services whose namespace/name:port contains this
    #[arg(long, value_name = "TEXT")]
    pub service: Option<String>,
    /// Only clients whose address contains this
    #[arg(long, value_name = "TEXT")]
    pub client: Option<String>,
}

/// A remembered choice. The field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    service: String,
    client: IpAddr,
    backend: SocketAddr,
    /// False: the next connection goes to another one.
    backend_usable: bool,
    /// Since the client's last new connection; absent when the kernel's clock cannot be told.
    idle_seconds: Option<f64>,
}

/// Choices by service and client.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Affinity(Vec<Row>);

pub(super) fn collect(
    store: &dyn MapStore,
    filter: &Filter,
    clock: impl Fn(u32) -> Option<u32>,
) -> anyhow::Result<Affinity> {
    let tables = Tables::read(store)?;
    let ticks = read::<Meta>(store, Table::Meta, 0)?.unwrap_or_default().ticks_per_second;
    let now = (ticks > 0).then(|| clock(ticks)).flatten();
    let mut rows = Vec::new();
    store.scan(Table::Affinity, &mut |key, value| {
        let (Ok(key), Ok(entry)) = (
            bytemuck::try_pod_read_unaligned::<AffinityKey>(key),
            bytemuck::try_pod_read_unaligned::<AffinityEntry>(value),
        ) else {
            return;
        };
        let backend = tables.backend(entry.backend_id);
        let row = Row {
            service: tables.service(key.service_id),
            client: narrow(key.client),
            backend: backend_addr(&backend),
            backend_usable: backend.generation == entry.backend_generation
                && backend.flags & backend_flag::USABLE != 0,
            idle_seconds: now.map(|now| f64::from(elapsed(now, entry.last_seen)) / f64::from(ticks)),
        };
        // The number is another backend's by now: there is nothing to say about the one that had it.
        if backend.generation == entry.backend_generation
            && wanted(filter.service.as_deref(), &row.service)
            && wanted(filter.client.as_deref(), &row.client.to_string())
        {
            rows.push(row);
        }
    })?;
    rows.sort_by(|a, b| (&a.service, a.client).cmp(&(&b.service, b.client)));
    Ok(Affinity(rows))
}

impl Listing for Affinity {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|row| {
            [
                row.service.clone(),
                row.client.to_string(),
                row.backend.to_string(),
                if row.backend_usable { "yes" } else { "no" }.to_owned(),
                row.idle_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s")),
            ]
        });
        table(["SERVICE", "CLIENT", "BACKEND", "USABLE", "IDLE"], rows.collect(), "no remembered clients")
    }
}
