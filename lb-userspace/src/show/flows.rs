//! `lb get flows`: connections, one line for both directions.

use std::net::SocketAddr;

use clap::Args;
use lb_common::abi::{BackendEntry, FlowEntry, FlowKey, Meta, flow_flag, flow_state, protocol};
use lb_common::engine::state::{elapsed, is_closing};
use lb_common::family::{Address, V4Addr, V6Addr};
use lb_common::tables::Table;
use serde::Serialize;

use super::output::{Listing, table};
use super::{read, wanted};
use crate::maps::{MapStore, scan_flows};
use crate::model::desired::Protocol;
use crate::plan::Tables;
use crate::plan::words::{FrontendName, v4, v6};

/// Which flows.
#[derive(Clone, Debug, Args)]
pub struct Filter {
    /// At most so many, the most recently active first; 0 = all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Only flows of Services whose namespace/name:port contains this
    #[arg(long, value_name = "TEXT")]
    pub service: Option<String>,
    /// Only flows whose client address and port contain this
    #[arg(long, value_name = "TEXT")]
    pub client: Option<String>,
    /// Only flows whose backend address and port contain this
    #[arg(long, value_name = "TEXT")]
    pub backend: Option<String>,
    /// Only flows in this state: opening, established, closing, udp or udp-answered
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { limit: 100, service: None, client: None, backend: None, state: None }
    }
}

/// A flow. The field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    service: String,
    protocol: String,
    client: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
    /// What the backend sees as client, when that is not the client (A2, C6).
    translated_client: Option<SocketAddr>,
    state: &'static str,
    /// Since its last packet, to about a second; absent when the kernel's clock cannot be told.
    idle_seconds: Option<f64>,
}

/// Flows, the most recently active first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Flows {
    /// Flows that met the filter.
    total: usize,
    /// Those shown.
    flows: Vec<Row>,
}

pub(super) fn collect(
    store: &dyn MapStore,
    filter: &Filter,
    clock: impl Fn(u32) -> Option<u32>,
) -> anyhow::Result<Flows> {
    let tables = Tables::read(store)?;
    let meta: Meta = read(store, Table::Meta, 0)?.unwrap_or_default();
    let ticks = meta.ticks_per_second;
    let now = (ticks > 0).then(|| clock(ticks)).flatten();
    let mut rows = Vec::new();
    let age = |last_seen| Some(f64::from(elapsed(now?, last_seen)) / f64::from(ticks));
    scan::<V4Addr>(store, &tables, filter, &age, &mut rows)?;
    scan::<V6Addr>(store, &tables, filter, &age, &mut rows)?;
    rows.sort_by(|a, b| {
        let order = a.idle_seconds.unwrap_or(0.0).total_cmp(&b.idle_seconds.unwrap_or(0.0));
        order.then_with(|| (a.client, a.frontend).cmp(&(b.client, b.frontend)))
    });
    let total = rows.len();
    if filter.limit > 0 {
        rows.truncate(filter.limit);
    }
    Ok(Flows { total, flows: rows })
}

fn socket<A: Address>(addr: A, port_be: u16) -> SocketAddr {
    let ip = if A::WORDS == 1 {
        v4(addr.word(0)).into()
    } else {
        v6([addr.word(0), addr.word(1), addr.word(2), addr.word(3)]).into()
    };
    SocketAddr::new(ip, u16::from_be(port_be))
}

fn scan<A: Address>(
    store: &dyn MapStore,
    tables: &Tables,
    filter: &Filter,
    age: &dyn Fn(u32) -> Option<f64>,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    scan_flows::<A>(store, &mut |key, entry| {
        if entry.flags & flow_flag::REPLY != 0 {
            return;
        }
        let client = socket(key.src, key.sport_be);
        let seen = socket(entry.src, entry.sport_be);
        let row = Row {
            service: service(tables, key, entry),
            protocol: Protocol::from_number(key.protocol)
                .map_or_else(|| key.protocol.to_string(), |protocol| protocol.to_string()),
            client,
            frontend: socket(key.dst, key.dport_be),
            backend: socket(entry.dst, entry.dport_be),
            translated_client: (seen != client).then_some(seen),
            state: state(key.protocol, entry.state),
            idle_seconds: age(entry.last_seen),
        };
        if wanted(filter.service.as_deref(), &row.service)
            && wanted(filter.client.as_deref(), &row.client.to_string())
            && wanted(filter.backend.as_deref(), &row.backend.to_string())
            && filter.state.as_deref().is_none_or(|state| state == row.state)
        {
            rows.push(row);
        }
    })?;
    Ok(())
}

/// The service that the frontend or, when that is gone, the backend belongs to.
fn service<A: Address>(tables: &Tables, key: &FlowKey<A>, entry: &FlowEntry<A>) -> String {
    let frontend = socket(key.dst, key.dport_be);
    let name = FrontendName { addr: frontend.ip(), port: frontend.port(), protocol: key.protocol };
    let backend: BackendEntry = tables.backend(entry.backend_id);
    match tables.frontends.get(&name) {
        Some(frontend) => tables.service(frontend.service_id),
        None if backend.generation == entry.backend_generation => tables.service(backend.service_id),
        None => "unknown".to_owned(),
    }
}

/// The state in a word (C2).
fn state(protocol: u8, state: u8) -> &'static str {
    if protocol == protocol::UDP {
        return if state & flow_state::REPLIED != 0 { "udp-answered" } else { "udp" };
    }
    if is_closing(state) {
        "closing"
    } else if state & flow_state::CONFIRMED != 0 {
        "established"
    } else {
        "opening"
    }
}

impl Listing for Flows {
    fn text(&self) -> String {
        let rows = self.flows.iter().map(|row| {
            [
                row.service.clone(),
                row.protocol.clone(),
                match row.translated_client {
                    Some(seen) => format!("{} (as {seen})", row.client),
                    None => row.client.to_string(),
                },
                row.frontend.to_string(),
                row.backend.to_string(),
                row.state.to_owned(),
                row.idle_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s")),
            ]
        });
        let head = ["SERVICE", "PROTOCOL", "CLIENT", "FRONTEND", "BACKEND", "STATE", "IDLE"];
        let mut text = table(head, rows.collect(), "no flows");
        if self.total > self.flows.len() {
            text += &format!("{} of {} flows, --limit shows more\n", self.flows.len(), self.total);
        }
        text
    }
}
