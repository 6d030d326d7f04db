//! `lb get backends`.

use std::net::IpAddr;

use clap::Args;
use lb_common::abi::{BackendEntry, BackendStats, backend_flag};
use lb_common::tables::Table;
use serde::Serialize;

use super::output::{Listing, table};
use super::wanted;
use crate::maps::{MapStore, per_cpu};
use crate::plan::{Tables, backend_addr};

/// Which backends.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only backends of Services whose namespace/name:port contains this
    #[arg(long, value_name = "TEXT")]
    pub service: Option<String>,
    /// Those that are gone as well, as long as their number has not been used again
    #[arg(long)]
    pub dead: bool,
}

/// A backend of one service port. The field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    service: String,
    address: IpAddr,
    port: u16,
    /// `usable`, `serving` (keeps connections, gets no new ones), `not-serving` or `dead`.
    state: &'static str,
    local: bool,
    weight: u16,
    packets_to_backend: u64,
    bytes_to_backend: u64,
    packets_from_backend: u64,
    bytes_from_backend: u64,
    flows_opened: u64,
    flows_closed: u64,
}

/// Backends by service and address.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Backends(Vec<Row>);

/// A backend's state in a word.
pub(super) fn state(flags: u16) -> &'static str {
    if flags & backend_flag::ALIVE == 0 {
        "dead"
    } else if flags & backend_flag::USABLE != 0 {
        "usable"
    } else if flags & backend_flag::SERVING != 0 {
        "serving"
    } else {
        "not-serving"
    }
}

pub(super) fn collect(store: &dyn MapStore, filter: &Filter) -> anyhow::Result<Backends> {
    let tables = Tables::read(store)?;
    let mut rows = Vec::new();
    for (id, entry) in (0_u32..).zip(&tables.backends) {
        let alive = entry.flags & backend_flag::ALIVE != 0;
        let service = tables.service(entry.service_id);
        if *entry == BackendEntry::default()
            || !(alive || filter.dead)
            || !wanted(filter.service.as_deref(), &service)
        {
            continue;
        }
        let stats = stats(store, id)?;
        let addr = backend_addr(entry);
        rows.push(Row {
            service,
            address: addr.ip(),
            port: addr.port(),
            state: state(entry.flags),
            local: entry.flags & backend_flag::LOCAL != 0,
            weight: entry.weight,
            packets_to_backend: stats.to_backend.packets,
            bytes_to_backend: stats.to_backend.bytes,
            packets_from_backend: stats.from_backend.packets,
            bytes_from_backend: stats.from_backend.bytes,
            flows_opened: stats.flows_opened,
            flows_closed: stats.flows_closed,
        });
    }
    rows.sort_by(|a, b| (&a.service, a.address, a.port).cmp(&(&b.service, b.address, b.port)));
    Ok(Backends(rows))
}

/// The sum over all CPUs.
fn stats(store: &dyn MapStore, id: u32) -> anyhow::Result<BackendStats> {
    let value = store.lookup(Table::BackendStats, &id.to_ne_bytes())?.unwrap_or_default();
    let mut sum = BackendStats::default();
    for cpu in per_cpu::<BackendStats>(&value) {
        for (total, part) in
            [(&mut sum.to_backend, cpu.to_backend), (&mut sum.from_backend, cpu.from_backend)]
        {
            total.packets = total.packets.wrapping_add(part.packets);
            total.bytes = total.bytes.wrapping_add(part.bytes);
        }
        sum.flows_opened = sum.flows_opened.wrapping_add(cpu.flows_opened);
        sum.flows_closed = sum.flows_closed.wrapping_add(cpu.flows_closed);
    }
    Ok(sum)
}

impl Listing for Backends {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|row| {
            [
                row.service.clone(),
                std::net::SocketAddr::new(row.address, row.port).to_string(),
                row.state.to_owned(),
                if row.local { "yes" } else { "no" }.to_owned(),
                row.weight.to_string(),
                format!("{} / {}", row.packets_to_backend, row.packets_from_backend),
                format!("{} / {}", row.bytes_to_backend, row.bytes_from_backend),
                row.flows_opened.to_string(),
                row.flows_closed.to_string(),
            ]
        });
        table(
            [
                "SERVICE",
                "BACKEND",
                "STATE",
                "LOCAL",
                "WEIGHT",
                "PACKETS TO/FROM",
                "BYTES TO/FROM",
                "FLOWS OPENED",
                "CLOSED",
            ],
            rows.collect(),
            "no backends",
        )
    }
}
