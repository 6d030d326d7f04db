//! `lb status`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lb_common::abi::{ABI_VERSION, IfaceEntry, Meta, backend_flag};
use lb_common::family::{V4Addr, V6Addr};
use lb_common::tables::Table;
use serde::Serialize;

use super::output::Listing;
use super::read;
use crate::dataplane::{self, LinkKind, PinDir, socket_links};
use crate::dns::counters::{self, Counts};
use crate::forwarding::Forwarding;
use crate::maps::{LinkInfo, MapError, MapStore, link_info, scan_flows};
use crate::plan::Tables;
use crate::sockets::cgroup;

/// How the dataplane is. The field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Status {
    pin_dir: PathBuf,
    /// Of the maps; 0 = not written yet.
    abi_version: u32,
    /// Of this program.
    expected_abi_version: u32,
    agent: Agent,
    /// What its DNS server has done; none when it has none, or does not run.
    dns: Option<Counts>,
    /// Whether the first full synchronisation is in the maps.
    synced: bool,
    links: Vec<Link>,
    /// Where sockets are balanced; none where they are not.
    sockets: Option<Sockets>,
    services: Room,
    frontends: Room,
    backends: Room,
    slots: Room,
    flows: Room,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Agent {
    /// The one that runs, or that was killed; 0 = none, and the last one ended in good order.
    pid: u32,
    running: bool,
}

/// A program at a hook: a pinned link, or a filter at clsact.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Link {
    interface: String,
    /// `xdp`, `tcx` and so on; with `_egress` and `_answer` behind it for what helps the balancing program.
    hook: String,
    /// Number of the link in the kernel; 0 for filters at clsact (kernels before 6.6), which have none.
    id: u32,
    /// Number of the program in it.
    program_id: u32,
    /// The interface's index; 0 when the interface has gone.
    ifindex: u32,
    /// Who sends on what the balancing program has translated.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarding: Option<Forwarding>,
}

/// The programs on a cgroup.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Sockets {
    /// The cgroup's directory; none when it has gone, or cannot be seen from here.
    cgroup: Option<PathBuf>,
    hooks: Vec<SocketHook>,
}

/// A program on a cgroup.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct SocketHook {
    /// `connect4` and so on.
    hook: &'static str,
    /// Number of the link in the kernel.
    id: u32,
    /// Number of the program in it.
    program_id: u32,
    /// Number of the cgroup; 0 when it has gone.
    cgroup_id: u64,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Room {
    used: usize,
    capacity: u64,
}

pub(super) fn collect(store: &dyn MapStore, pin_dir: &Path) -> anyhow::Result<Status> {
    let tables = Tables::read(store)?;
    let meta: Meta = read(store, Table::Meta, 0)?.unwrap_or_default();
    let room = |used, of: &[Table]| -> anyhow::Result<Room> {
        let mut capacity = 0;
        for table in of {
            capacity += u64::from(table.spec().entries(store.capacity(*table)?));
        }
        Ok(Room { used, capacity })
    };
    let mut flows = 0;
    scan_flows::<V4Addr>(store, &mut |_, _| flows += 1)?;
    scan_flows::<V6Addr>(store, &mut |_, _| flows += 1)?;
    let alive = tables.backends.iter().filter(|backend| backend.flags & backend_flag::ALIVE != 0).count();
    let slots: u64 = {
        let mut runs: Vec<_> = tables.frontends.values().flat_map(|f| [f.internal, f.external]).collect();
        runs.sort_by_key(|run| (run.base, run.count));
        runs.dedup();
        runs.iter().map(|run| u64::from(run.count)).sum()
    };
    let holder = PinDir::new(pin_dir).holder();
    Ok(Status {
        pin_dir: pin_dir.to_owned(),
        abi_version: meta.abi_version,
        expected_abi_version: ABI_VERSION,
        dns: holder.and_then(counters::of_agent),
        agent: match holder {
            Some(pid) => Agent { pid, running: true },
            None => Agent { pid: meta.agent_pid, running: false },
        },
        synced: meta.synced != 0,
        links: links(store, pin_dir)?,
        sockets: sockets(pin_dir)?,
        services: room(tables.names.len(), &[Table::ServiceNames])?,
        frontends: room(tables.frontends.len(), &[Table::FrontendsV4, Table::FrontendsV6])?,
        backends: room(alive, &[Table::Backends])?,
        slots: room(slots as usize, &[Table::Slots])?,
        // Each has an entry for either direction.
        flows: room(flows, &[Table::FlowsV4, Table::FlowsV6])?,
    })
}

/// The pinned links, and what is at clsact.
fn links(store: &dyn MapStore, pin_dir: &Path) -> anyhow::Result<Vec<Link>> {
    let mut found = Vec::new();
    for link in PinDir::new(pin_dir).links_found()? {
        let info = link_info(&link.path).map_err(|source| MapError::Open { path: link.path, source })?;
        found.push((link.iface, link.kind, info));
    }
    if !dataplane::kernel_at_least(6, 6) {
        found.extend(at_clsact(store)?);
        found.sort_by(|a, b| a.0.cmp(&b.0));
    }
    let links = found.into_iter().map(|(interface, kind, LinkInfo { id, program_id, ifindex })| {
        let entry: Option<IfaceEntry> = read(store, Table::Ifaces, ifindex)?;
        let forwarding = entry
            .filter(|entry| entry.name() == interface && matches!(kind, LinkKind::Ingress(_)))
            .map(|entry| Forwarding::of(entry.flags));
        Ok(Link { interface, hook: kind.name(), id, program_id, ifindex, forwarding })
    });
    links.collect()
}

/// Filters on the interfaces that the maps know.
fn at_clsact(store: &dyn MapStore) -> anyhow::Result<Vec<(String, LinkKind, LinkInfo)>> {
    let mut names = BTreeMap::new();
    store.scan(Table::Ifaces, &mut |key, value| {
        let ifindex = bytemuck::try_pod_read_unaligned::<u32>(key);
        if let (Ok(ifindex), Ok(entry)) = (ifindex, bytemuck::try_pod_read_unaligned::<IfaceEntry>(value)) {
            names.insert(ifindex, entry.name().to_owned());
        }
    })?;
    let filters = dataplane::filters(&names.keys().copied().collect::<Vec<_>>())?;
    let links = filters.into_iter().map(|(ifindex, filter)| {
        let name = names.get(&ifindex).cloned().unwrap_or_default();
        (name, filter.kind, LinkInfo { id: 0, program_id: filter.program_id, ifindex })
    });
    Ok(links.collect())
}

/// The programs on a cgroup.
fn sockets(pin_dir: &Path) -> anyhow::Result<Option<Sockets>> {
    let links = socket_links(&PinDir::new(pin_dir))?;
    let Some(first) = links.first() else {
        return Ok(None);
    };
    let hooks = links.iter().map(|link| SocketHook {
        hook: link.hook.name(),
        id: link.info.id,
        program_id: link.info.program_id,
        cgroup_id: link.info.cgroup,
    });
    Ok(Some(Sockets { cgroup: cgroup::find(first.info.cgroup), hooks: hooks.collect() }))
}

/// The DNS server's lines.
fn dns_lines(dns: &Counts) -> Vec<(&'static str, String)> {
    let list = |counts: &BTreeMap<String, u64>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let listen: Vec<_> = dns.listen.iter().map(ToString::to_string).collect();
    let mut lines =
        vec![("DNS", format!("on {}; answered {} by UDP, {} by TCP", listen.join(" "), dns.udp, dns.tcp))];
    if dns.udp + dns.tcp > 0 {
        lines.push(("", format!("{}; {}", list(&dns.codes), list(&dns.types))));
    }
    if dns.forwarded + dns.from_cache > 0 {
        let (asked, known, failures) = (dns.forwarded, dns.from_cache, dns.upstream_failures);
        lines.push(("", format!("upstreams asked {asked} times, {known} from memory, {failures} failures")));
    }
    lines
}

impl Listing for Status {
    fn text(&self) -> String {
        let mut lines = vec![
            ("pinned under", self.pin_dir.display().to_string()),
            ("layout of maps", {
                let version = self.abi_version;
                if version == self.expected_abi_version {
                    format!("version {version}")
                } else {
                    format!("version {version}, but this program knows version {}", self.expected_abi_version)
                }
            }),
            (
                "agent",
                match (self.agent.pid, self.agent.running) {
                    (0, _) => "not running; the programs go on with what is in the maps".to_owned(),
                    (pid, true) => format!("running, process {pid}"),
                    (pid, false) => {
                        format!(
                            "not running (was process {pid}); the programs go on with what is in the maps"
                        )
                    }
                },
            ),
            ("synchronised", if self.synced { "yes" } else { "no, not since the maps were made" }.to_owned()),
        ];
        if let Some(dns) = &self.dns {
            lines.extend(dns_lines(dns));
        }
        if self.links.is_empty() {
            lines.push(("attached to", "nothing".to_owned()));
        }
        for (i, link) in self.links.iter().enumerate() {
            let title = if i == 0 { "attached to" } else { "" };
            let gone = if link.ifindex == 0 { ", which has gone" } else { "" };
            let forwarding = link.forwarding.map_or(String::new(), |forwarding| {
                let who = if forwarding.direct { "direct" } else { "kernel" };
                format!(", forwarding {who}: {}", forwarding.reason.text())
            });
            lines.push((title, format!("{} ({}){gone}{forwarding}", link.interface, link.hook)));
        }
        if let Some(sockets) = &self.sockets {
            let place = match (&sockets.cgroup, sockets.hooks.iter().any(|hook| hook.cgroup_id == 0)) {
                (_, true) => "of a cgroup that has gone".to_owned(),
                (Some(cgroup), _) => format!("of {}", cgroup.display()),
                (None, _) => "of a cgroup that cannot be seen from here".to_owned(),
            };
            let complete = sockets.hooks.len() == dataplane::SocketHook::ALL.len();
            let hooks: Vec<_> = sockets.hooks.iter().map(|hook| hook.hook).collect();
            let missing = if complete { String::new() } else { format!(", only {}", hooks.join(" ")) };
            lines.push(("sockets", format!("{place}{missing}")));
        }
        for (title, room) in [
            ("service ports", self.services),
            ("frontends", self.frontends),
            ("backends", self.backends),
            ("slots", self.slots),
            ("flow entries", self.flows),
        ] {
            lines.push((title, format!("{} of {}", room.used, room.capacity)));
        }
        lines.into_iter().fold(String::new(), |text, (title, value)| text + &format!("{title:<16}{value}\n"))
    }
}
