//! The agent itself: from files to the kernel's maps, and what it takes of memory.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lb_common::abi::FrontendKey;
use lb_common::family::V4Addr;
use lb_common::tables::Table;
use lb_userspace::maps::{KernelMap, KernelStore, MapStore};
use lb_userspace::plan::words::v4_word;

use super::Setting;
use crate::agent::Agent;
use crate::manifests;
use crate::path::contender::Contender;
use crate::path::stage::Stage;
use crate::sample::Spread;

/// Between two changes: longer than the agent waits for the end of a burst.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Two addresses for the endpoint that changes.
pub(super) const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 95, 255, 1), Ipv4Addr::new(10, 95, 255, 2)];
/// A mebibyte.
const MIB: f64 = 1024.0 * 1024.0;

/// What the agent takes.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Live {
    /// From its start until all is in the maps, ms.
    pub(crate) start_ms: f64,
    /// From a file's change of one endpoint to the map, ms.
    pub(crate) change_ms: Spread,
    /// Resident memory of the agent, MiB.
    pub(crate) resident_mib: f64,
    /// The most it has been, MiB.
    pub(crate) peak_mib: f64,
    /// Memory of the maps, as the kernel counts it, MiB.
    pub(crate) maps_mib: f64,
}

/// Measures an agent on the manifests in `manifests`.
pub(crate) fn live(
    setting: Setting,
    number: usize,
    manifests: &Path,
    changes: usize,
) -> anyhow::Result<Live> {
    let stage = Stage::new(number, 1_500, Contender::Direct)?;
    // One Service more, in a file of its own.
    let write = |pod: Ipv4Addr| -> anyhow::Result<()> {
        let draft = stage.folder().join("draft");
        fs::write(&draft, manifests::documents(setting.services, &[pod])).context("write a manifest")?;
        fs::rename(&draft, manifests.join("changing.yaml")).context("rename a manifest")
    };
    write(PODS[0])?;
    let frontends = setting.frontends().to_string();
    let arguments = ["--iface", "veth*", "--hook", "tc", "--max-frontends", &frontends];
    let start = Instant::now();
    let agent = Agent::start(stage.node(), stage.name(), manifests, stage.folder(), &arguments)?;
    let start_ms = start.elapsed().as_secs_f64() * 1e3;
    let store = KernelStore::open_table(agent.pins(), Table::FrontendsV4)?;
    let at = manifests::service(setting.services);
    let key: FrontendKey<V4Addr> =
        FrontendKey { addr: v4_word(*at.ip()), port_be: at.port().to_be(), protocol: 6, _pad: 0 };
    let entry = || store.lookup(Table::FrontendsV4, bytemuck::bytes_of(&key));
    ensure!(entry()?.is_some(), "the agent is ready, but a Service is not in its maps");
    let mut times = Vec::new();
    for change in 0..changes {
        sleep(PAUSE);
        let before = entry()?;
        let start = Instant::now();
        write(PODS[(change + 1) % 2])?;
        while entry()? == before {
            ensure!(start.elapsed() < PATIENCE, "a change did not reach the maps");
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let status =
        fs::read_to_string(format!("/proc/{}/status", agent.pid())).context("read the agent's status")?;
    let kib = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number =
            line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next()?.parse().ok());
        number.map(|kib: f64| kib / 1024.0).with_context(|| format!("the agent's status has no {name}"))
    };
    Ok(Live {
        start_ms,
        change_ms: Spread::of(times),
        resident_mib: kib("VmRSS")?,
        peak_mib: kib("VmHWM")?,
        maps_mib: memory_of_maps(&agent.pins().join("maps"))? / MIB,
    })
}

/// Bytes of all maps pinned in a folder.
fn memory_of_maps(folder: &Path) -> anyhow::Result<f64> {
    let mut bytes = 0.0;
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let map = KernelMap::open(&path).with_context(|| format!("open {}", path.display()))?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))?;
        let memory = info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<f64>().ok());
        bytes += memory.with_context(|| format!("{}: the kernel does not say its size", path.display()))?;
    }
    Ok(bytes)
}
