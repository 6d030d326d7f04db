//! The agent's tables as text: the same contents always give the same text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{
    BackendEntry, FrontendEntry, Settings, SlotRange, address_class, backend_flag, frontend_flag,
    settings_flag,
};

use super::layout::{algorithm_of, kind_of, port_name};
use super::tables::Tables;
use super::words::{prefix, v4, v6};
use crate::model::desired::{Algorithm, FrontendKind};

/// Whether numbers are shown in a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Ids, places of slots and generations are shown.
    Shown,
    /// Names stand for ids; what differs only in numbers gives the same text.
    Hidden,
}

/// Lists of more slots than this are shown as shares.
const LONG_LIST: u32 = 64;
/// No table of slots is larger; a run past this is nonsense.
const MOST_SLOTS: u32 = 1 << 24;

fn bits<T: Copy + Into<u32>>(value: T, names: &[(T, &str)]) -> String {
    let set: Vec<&str> =
        names.iter().filter(|(bit, _)| value.into() & (*bit).into() != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "-".to_owned() } else { set.join(",") }
}

/// Names of [`frontend_flag`]s.
pub(super) fn frontend_flags(flags: u32) -> String {
    bits(
        flags,
        &[
            (frontend_flag::OWNER, "owner"),
            (frontend_flag::MASQUERADE_POD, "masquerade-pod"),
            (frontend_flag::MASQUERADE_NODE, "masquerade-node"),
            (frontend_flag::MASQUERADE_EXTERNAL, "masquerade-external"),
            (frontend_flag::DROP_EXTERNAL, "drop-external"),
            (frontend_flag::REJECT_EMPTY, "reject-empty"),
            (frontend_flag::AFFINITY, "affinity"),
            (frontend_flag::SOURCE_RANGES, "source-ranges"),
            (frontend_flag::INTERNAL_LOCAL, "internal-local"),
            (frontend_flag::EXTERNAL_LOCAL, "external-local"),
        ],
    )
}

/// Names of [`backend_flag`]s.
pub(super) fn backend_flags(flags: u16) -> String {
    if flags & backend_flag::ALIVE == 0 {
        return "dead".to_owned();
    }
    bits(
        flags,
        &[
            (backend_flag::ALIVE, "alive"),
            (backend_flag::SERVING, "serving"),
            (backend_flag::USABLE, "usable"),
            (backend_flag::LOCAL_LIST_ONLY, "local-list-only"),
            (backend_flag::LOCAL, "local"),
        ],
    )
}

/// Names of [`address_class`]es.
pub(super) fn class_bits(class: u32) -> String {
    bits(
        class,
        &[
            (address_class::POD, "pod"),
            (address_class::NODE, "node"),
            (address_class::SERVICE_CIDR, "service-cidr"),
        ],
    )
}

/// Name of a kind of frontend, as Kubernetes writes it.
pub(crate) fn kind_name(kind: u8) -> &'static str {
    match kind_of(kind) {
        Some(FrontendKind::ClusterIp) => "ClusterIP",
        Some(FrontendKind::NodePort) => "NodePort",
        Some(FrontendKind::ExternalIp) => "ExternalIP",
        Some(FrontendKind::LoadBalancer) => "LoadBalancer",
        None => "unknown",
    }
}

/// Name of an algorithm, as annotations write it.
pub(crate) fn algorithm_name(algorithm: u8) -> &'static str {
    match algorithm_of(algorithm) {
        Some(Algorithm::RoundRobin) => "round-robin",
        Some(Algorithm::Random) => "random",
        Some(Algorithm::Maglev) => "maglev",
        Some(Algorithm::LeastConnections) => "least-connections",
        Some(Algorithm::Weighted) => "weighted",
        None => "unknown",
    }
}

/// A backend's address and port.
pub(crate) fn backend_addr(entry: &BackendEntry) -> SocketAddr {
    // A dead entry has lost its family bit; an IPv6 address with only its first word set is not one pods have.
    let v6_address = entry.flags & backend_flag::IPV6 != 0 || entry.addr[1..] != [0; 3];
    let addr = if v6_address { IpAddr::V6(v6(entry.addr)) } else { IpAddr::V4(v4(entry.addr[0])) };
    SocketAddr::new(addr, u16::from_be(entry.port_be))
}

/// Settings in one line.
pub(super) fn settings(settings: &Settings) -> String {
    format!(
        "masquerade {} {} ports {}+{}{}",
        if settings.node_v4 == 0 { "-".to_owned() } else { v4(settings.node_v4).to_string() },
        if settings.node_v6 == [0; 4] { "-".to_owned() } else { v6(settings.node_v6).to_string() },
        settings.snat_port_first,
        settings.snat_port_count,
        if settings.flags & settings_flag::NO_VIP_PING != 0 { " no-vip-ping" } else { "" }
    )
}

impl Tables {
    /// The tables as text, sorted by what is shown: services, frontends with their lists, owners, backends, address ranges, source
    /// ranges, settings. Dead backends and slots that nothing refers to are left out unless numbers are shown.
    pub fn dump(&self, numbers: Numbers) -> String {
        let shown = numbers == Numbers::Shown;
        let mut lines = Vec::new();
        for (id, name) in &self.names {
            let tag = if shown { format!(" #{id}") } else { String::new() };
            let family = name.full().family;
            lines.push((0, format!("service {} IPv{family}{tag}", self.service(*id))));
        }
        for (name, entry) in &self.frontends {
            if name.is_owner() {
                lines.push((2, format!("owner {name} {}", frontend_flags(entry.flags))));
            } else {
                lines.push((1, format!("frontend {name} {}", self.frontend(entry, shown))));
            }
        }
        for (id, entry) in (0_u32..).zip(&self.backends) {
            let dead = entry.flags & backend_flag::ALIVE == 0;
            if (dead && !shown) || *entry == BackendEntry::default() {
                continue;
            }
            let mut line = format!(
                "backend {} {} {} weight {}",
                self.service(entry.service_id),
                backend_addr(entry),
                backend_flags(entry.flags),
                entry.weight
            );
            if shown {
                let _ = write!(line, " #{id} generation {}", entry.generation);
            }
            lines.push((3, line));
        }
        for (key, class) in &self.classes {
            let net = prefix(key.addr, key.prefix_len);
            let net = net.map_or_else(|| "unreadable".to_owned(), |net| net.to_string());
            lines.push((4, format!("class {net} {}", class_bits(*class))));
        }
        for key in &self.source_ranges {
            let net = key.prefix_len.checked_sub(32).and_then(|bits| prefix(key.addr, bits));
            let net = net.map_or_else(|| "unreadable".to_owned(), |net| net.to_string());
            lines.push((5, format!("source-range {} {net}", self.service(u32::from_be(key.service_id_be)))));
        }
        if self.settings != Settings::default() {
            lines.push((6, format!("settings {}", settings(&self.settings))));
        }
        lines.sort();
        lines.into_iter().fold(String::new(), |text, (_, line)| text + &line + "\n")
    }

    /// A service's name by number.
    pub fn service(&self, id: u32) -> String {
        match self.names.get(&id).and_then(|name| port_name(&name.full())) {
            Some(name) => name.to_string(),
            None => format!("unknown service #{id}"),
        }
    }

    fn frontend(&self, entry: &FrontendEntry, shown: bool) -> String {
        let kind = kind_name(entry.kind);
        let algorithm = algorithm_name(entry.algorithm);
        let mut line =
            format!("{kind} {} {algorithm} {}", self.service(entry.service_id), frontend_flags(entry.flags));
        if entry.affinity_timeout_s != 0 {
            let _ = write!(line, " affinity {} s", entry.affinity_timeout_s);
        }
        if shown {
            let _ = write!(line, " #{} generation {}", entry.frontend_id, entry.generation);
        }
        let _ = write!(line, "\n  internal{}", self.list(entry.internal, shown));
        let _ = write!(line, "\n  external{}", self.list(entry.external, shown));
        line
    }

    fn list(&self, range: SlotRange, shown: bool) -> String {
        let mut text = if shown { format!(" {}+{}:", range.base, range.count) } else { ":".to_owned() };
        let Some(run) = self.run(range, MOST_SLOTS) else {
            return text + " out of the table";
        };
        if range.count <= LONG_LIST {
            for id in run {
                let _ = write!(text, " {}", self.backend_name(id));
            }
            return text;
        }
        let mut shares: BTreeMap<String, u32> = BTreeMap::new();
        // What the order of slots is, in a few digits.
        let mut order = 0_u64;
        for id in run {
            let name = self.backend_name(id);
            for byte in name.bytes() {
                order = order.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(byte);
            }
            *shares.entry(name).or_default() += 1;
        }
        let _ = write!(text, " {} slots, order {order:016x}:", range.count);
        for (name, share) in shares {
            let _ = write!(text, " {name}×{share}");
        }
        text
    }

    fn backend_name(&self, id: u32) -> String {
        let entry = self.backend(id);
        let dead = if entry.flags & backend_flag::ALIVE == 0 { "(dead)" } else { "" };
        format!("{}{dead}", backend_addr(&entry))
    }
}
