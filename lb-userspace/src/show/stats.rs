//! `lb get stats`: what became of packets.

use std::collections::BTreeMap;

use clap::Args;
use lb_common::abi::{Counter, IfaceEntry};
use lb_common::reason::{REASON_SLOTS, Reason};
use lb_common::tables::{SOCKET_SLOT, Table};
use serde::Serialize;

use super::output::{Listing, table};
use super::wanted;
use crate::maps::{MapStore, per_cpu};

/// Where calls of sockets are counted, in place of an interface.
const SOCKETS: &str = "(sockets)";

/// Which counters.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only interfaces whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub iface: Option<String>,
}

/// Packets of one interface that met one verdict for one reason. The field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    interface: String,
    /// `forwarded`, `passed`, `answered` or `dropped`.
    class: &'static str,
    reason: &'static str,
    /// The rule of the semantics that decided.
    rule: &'static str,
    packets: u64,
    bytes: u64,
    text: &'static str,
}

/// Counters that are not zero.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Stats(Vec<Row>);

pub(super) fn collect(store: &dyn MapStore, filter: &Filter) -> anyhow::Result<Stats> {
    let mut interfaces: BTreeMap<u32, String> = BTreeMap::new();
    store.scan(Table::Ifaces, &mut |key, value| {
        let index = bytemuck::try_pod_read_unaligned::<u32>(key);
        let entry = bytemuck::try_pod_read_unaligned::<IfaceEntry>(value);
        if let (Ok(index), Ok(entry)) = (index, entry)
            && entry.slot != 0
        {
            let name = if entry.name().is_empty() { format!("#{index}") } else { entry.name().to_owned() };
            interfaces.insert(u32::from(entry.slot), name);
        }
    })?;
    let mut rows = Vec::new();
    store.scan(Table::IfaceStats, &mut |key, value| {
        let Ok(index) = bytemuck::try_pod_read_unaligned::<u32>(key) else { return };
        let (slot, number) = (index / REASON_SLOTS, index % REASON_SLOTS);
        let sum = per_cpu::<Counter>(value).fold(Counter::default(), |sum, cpu| Counter {
            packets: sum.packets.wrapping_add(cpu.packets),
            bytes: sum.bytes.wrapping_add(cpu.bytes),
        });
        let name = match interfaces.get(&slot) {
            Some(name) => name.clone(),
            None if slot == 0 => "(others)".to_owned(),
            None if slot == u32::from(SOCKET_SLOT) => SOCKETS.to_owned(),
            None => format!("(slot {slot})"),
        };
        if sum.packets == 0 || !wanted(filter.iface.as_deref(), &name) {
            return;
        }
        let reason = u8::try_from(number).ok().and_then(Reason::from_number);
        rows.push((
            slot,
            number,
            Row {
                interface: name,
                class: reason.map_or("unknown", |reason| reason.class().name()),
                reason: reason.map_or("unknown", Reason::name),
                rule: reason.map_or("", Reason::rule),
                packets: sum.packets,
                bytes: sum.bytes,
                text: reason.map_or("", Reason::text),
            },
        ));
    })?;
    rows.sort_by(|a, b| (&a.2.interface, a.0, a.1).cmp(&(&b.2.interface, b.0, b.1)));
    Ok(Stats(rows.into_iter().map(|(_, _, row)| row).collect()))
}

impl Listing for Stats {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|row| {
            [
                row.interface.clone(),
                row.class.to_owned(),
                row.reason.to_owned(),
                row.rule.to_owned(),
                row.packets.to_string(),
                row.bytes.to_string(),
                row.text.to_owned(),
            ]
        });
        let head = ["INTERFACE", "CLASS", "REASON", "RULE", "PACKETS", "BYTES", "MEANING"];
        table(head, rows.collect(), "no packets yet")
    }
}
