//! The loop: a change of manifests or interfaces becomes a change in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, bail};
use aya_log::EbpfLogger;
use lb_common::abi::{ABI_VERSION, Meta};
use lb_common::tables::Table;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::Args;
use super::keeper::Keeper;
use super::memory;
use super::network::{Network, Watcher};
use super::rules::{Changes, report};
use super::sockets::Sockets;
use super::wanted::Wanted;
use crate::dataplane::{self, Attacher, PinDir};
use crate::dns::Dns;
use crate::doctor::{self, Machine};
use crate::forwarding::Forwarding;
use crate::health::{self, Health};
use crate::maps::{KernelStore, MapStore};
use crate::model::allocate::Allocator;
use crate::object::OBJECT;
use crate::plan::{self, Limits, Planner};
use crate::sockets::namespaces::Found;
use crate::source::{Severity, Source};

/// Interface messages come in bursts: wait for the end of one before looking.
const NETWORK_PAUSE: Duration = Duration::from_millis(20);
/// Between two tries to attach where something stood in the way: the kernel does not say when it goes.
const ATTACH_AGAIN: Duration = Duration::from_secs(2);
/// After a port for health checks could not be opened: somebody else has it, perhaps not for ever.
const HEALTH_RETRY: Duration = Duration::from_secs(5);
/// After the state file could not be written: the disk is full, perhaps not for ever.
const STATE_RETRY: Duration = Duration::from_secs(5);
/// After a failed write to the maps.
const RETRY: Duration = Duration::from_millis(500);

/// From the start until the filter is tidied: what an earlier agent left is in order by then.
const FIRST_TIDY: Duration = Duration::from_secs(60);
/// Between two tidyings of the filter. In an hour, even 10,000 replaced pods make it mistake one foreign address in a hundred more.
const TIDY_AGAIN: Duration = Duration::from_secs(3600);

/// A plan of more operations leaves much memory behind.
const MANY: usize = 1_000;

/// Between two looks at neighbours: of the order of what the kernel itself takes for one to be in doubt.
const NEIGHBOURS_AGAIN: Duration = Duration::from_secs(5);

/// Time between looks at what the programs have logged.
const TRACE_LOOKS: Duration = Duration::from_millis(100);

/// The agent's state between changes.
struct Agent<'a> {
    args: &'a Args,
    store: KernelStore,
    planner: Planner,
    wanted: Wanted,
    keeper: Keeper,
    network: Network,
    health: Health,
    dns: Option<Dns>,
    sockets: Option<Sockets>,
    said: BTreeSet<String>,
    synced: bool,
    /// Of the flow table, kept over restarts.
    flow_seed: u32,
    retry_at: Option<Instant>,
    tidy_at: Instant,
}

/// Runs until a signal.
pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    if let Some((pool, service)) = args.model.ranges().overlap() {
        bail!("--load-balancer-pool {pool} and --service-cidr {service} overlap; move one of them");
    }
    let ports = doctor::masquerade_ports(&Machine::this(), &args.masquerade_ports);
    if ports.status == doctor::Status::Warning {
        warn!("--masquerade-ports: {}", ports.found);
    }
    memory::prepare();
    let pins = PinDir::new(&args.pin_dir);
    let _lock = pins.lock()?;
    let (store, found) = pins.maps_or_new(&args.sizes())?;
    if found {
        info!("taking over what is pinned in {}", args.pin_dir.display());
    }
    let config = dataplane::for_maps(args.config(dataplane::config()), &store)?;
    let planner = Planner::adopt(&store, Limits::of(&store)?, args.plan(), plan::steady_clock())?;
    let mut attacher = Attacher::new(&pins, &config, &store)?;
    if args.trace {
        tokio::spawn(follow(attacher.kernel_log()?));
    }
    let (allocator, complaint) = Allocator::open(args.model.ranges(), Some(args.state_file.clone()));
    if let Some(complaint) = complaint {
        warn!("{complaint}");
    }
    let mut source = Source::new(&args.manifests).with_pods_from(args.pods_from.clone());
    if let Err(problem) = source.remember_in(args.state_file.with_extension("kept.json")) {
        warn!("{problem}");
    }
    let mut watcher = Watcher::new()?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
    let network = watcher.look().await?;
    let mut health = Health::new(health::TIMEOUT);
    if let Some(address) = args.healthz {
        let address = health.serve_agent(address)?;
        info!("answering /healthz, /readyz and /livez on {address}");
    }
    let dns = args.dns().map(|settings| Dns::start(settings, seconds_since_1970())).transpose()?;
    for address in &args.dns_listen {
        info!("answering DNS on {address}");
    }
    let mut rule_changes = Changes::of(args.forwarding);
    let (chosen, rules) = Forwarding::decide(args.forwarding);
    report(chosen, &rules);
    let mut agent = Agent {
        args,
        store,
        planner,
        wanted: Wanted::new(source, allocator),
        keeper: Keeper::new(attacher, &args.iface, &args.external_iface, args.hook, chosen),
        network,
        health,
        dns,
        sockets: None,
        said: BTreeSet::new(),
        synced: false,
        flow_seed: config.flow_seed,
        retry_at: None,
        tidy_at: Instant::now() + FIRST_TIDY,
    };
    agent.write_meta(config.ticks_per_second, std::process::id())?;
    agent.sync();
    agent.keep_interfaces();
    let sockets = Sockets::start(
        &args.sockets,
        agent.keeper.attacher(),
        &pins,
        &mut agent.store,
        &agent.network.primary,
    );
    let mut failures: Vec<_> = agent.keeper.failures().map(str::to_owned).collect();
    if agent.keeper.count() > 0 {
        failures.clear();
    }
    match sockets {
        Ok(sockets) => agent.sockets = sockets,
        Err(error) => failures.push(format!("{error:#}")),
    }
    if !failures.is_empty() {
        if found {
            agent.write_meta(config.ticks_per_second, 0)?;
        } else {
            // Nothing was there before, nothing stays.
            for link in pins.links_found()? {
                dataplane::detach(&pins, &link.iface)?;
            }
            dataplane::detach_sockets(&pins)?;
            pins.remove();
        }
        bail!("{}", failures.join("\n"));
    }
    agent.keeper.drop_unwanted(&mut agent.store, &pins)?;
    for name in agent.keeper.missing() {
        warn!("{name}: there is no such interface yet; it is attached to when it appears");
    }
    let mut announced = false;
    let mut neighbours_at = Instant::now();
    loop {
        if agent.synced && !announced {
            agent.write_meta(config.ticks_per_second, std::process::id())?;
            announce(args.ready_file.as_deref())?;
            info!("ready: {} interfaces, {} service ports", agent.keeper.count(), agent.wanted.count());
            announced = true;
            memory::give_back();
            memory::give_back_file(OBJECT);
        }
        let retry_at = agent.retry_at;
        let tidy_at = agent.tidy_at;
        let incomplete = agent.keeper.failures().next().is_some();
        tokio::select! {
            () = agent.wanted.changed() => agent.sync(),
            () = watcher.changed() => {
                tokio::time::sleep(NETWORK_PAUSE).await;
                match watcher.look().await {
                    Ok(network) => agent.network_changed(network),
                    Err(error) => error!("{error:#}"),
                }
            }
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => agent.sync(),
            () = sleep_until(tidy_at) => agent.tidy(),
            () = sleep_until(neighbours_at), if agent.keeper.redirects() => {
                watcher.use_neighbours(&agent.network).await;
                neighbours_at = Instant::now() + NEIGHBOURS_AGAIN;
            }
            () = rule_changes.next() => agent.rules_changed(),
            found = looked(&mut agent.sockets) => agent.namespaces_looked_at(found),
            () = tokio::time::sleep(ATTACH_AGAIN), if incomplete => agent.keep_interfaces(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("stopping; the kernel goes on forwarding (`lb detach` ends that)");
    agent.write_meta(config.ticks_per_second, 0)?;
    if let Some(path) = &args.ready_file {
        let _absent = fs::remove_file(path);
    }
    Ok(())
}

impl Agent<'_> {
    /// Brings what the manifests say into the maps.
    fn sync(&mut self) {
        let config = self.args.model_config(self.network.interfaces.clone(), self.network.primary.clone());
        let mut now = BTreeSet::new();
        self.retry_at = None;
        if let Err(error) = self.wanted.follow(&config) {
            now.insert((false, error.to_string()));
            self.retry_at = Some(Instant::now() + STATE_RETRY);
        }
        for problem in self.wanted.problems() {
            now.insert((problem.severity == Severity::Error, problem.to_string()));
        }
        now.extend(self.wanted.notes().map(|note| (false, note.to_string())));
        let result =
            self.planner.sync_edits(&mut self.store, self.wanted.surroundings(), self.wanted.edits());
        let in_kernel = result.is_ok();
        match result {
            Ok(report) => {
                self.wanted.done();
                now.extend(report.problems.iter().map(|problem| (true, problem.to_string())));
                if let Some(after) = report.retry_after {
                    self.retry_at = Some(Instant::now() + after);
                }
                self.synced = true;
                if report.applied.operations > 0 {
                    if let Some(sockets) = &self.sockets {
                        sockets.backends_changed();
                    }
                    info!(
                        "{} map operations in {} calls: planned in {:.1} ms, written in {:.1} ms",
                        report.applied.operations,
                        report.applied.calls,
                        report.planning.as_secs_f64() * 1e3,
                        report.writing.as_secs_f64() * 1e3,
                    );
                }
                if report.applied.operations > MANY {
                    memory::give_back();
                }
            }
            Err(error) => {
                error!("{error}; trying again");
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
        // Names in the same step as the maps, and whatever became of those: the old ones are no better.
        if let Some(dns) = &mut self.dns {
            self.wanted.update_names(dns, &config);
        }
        for error in self.health.update(&config, self.wanted.node(&config), self.wanted.checks(), in_kernel) {
            now.insert((true, error.to_string()));
            self.retry_at.get_or_insert(Instant::now() + HEALTH_RETRY);
        }
        for (is_error, text) in &now {
            if !self.said.contains(text) {
                self.say(if *is_error { Severity::Error } else { Severity::Warning }, text.clone());
            }
        }
        for text in &self.said {
            if !now.iter().any(|(_, said)| said == text) {
                info!("mended: {text}");
            }
        }
        self.said = now.into_iter().map(|(_, text)| text).collect();
    }

    fn say(&self, severity: Severity, text: String) {
        match severity {
            Severity::Error => error!("{text}"),
            Severity::Warning => warn!("{text}"),
        }
    }

    /// Lets the filter forget addresses that nobody needs any more.
    fn tidy(&mut self) {
        self.tidy_at = Instant::now() + TIDY_AGAIN;
        if let Err(error) = self.planner.tidy_filter(&mut self.store) {
            error!("the filter keeps addresses that are gone: {error}");
            self.retry_at.get_or_insert(Instant::now() + RETRY);
        }
    }

    fn keep_interfaces(&mut self) {
        self.keeper.keep(&mut self.store, &self.network);
    }

    /// Looks at the host's packet rules again; they decide who forwards.
    fn rules_changed(&mut self) {
        let (chosen, rules) = Forwarding::decide(self.args.forwarding);
        if chosen != self.keeper.forwarding() {
            report(chosen, &rules);
            self.keeper.forward(chosen);
            self.keep_interfaces();
        }
    }

    /// Tells the programs at sockets about network namespaces.
    fn namespaces_looked_at(&mut self, found: io::Result<Vec<Found>>) {
        let Some(sockets) = &mut self.sockets else { return };
        let result = match found {
            Ok(found) => sockets.write(&mut self.store, found, &self.network.primary).map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            error!("the programs at sockets do not know all network namespaces: {error:#}");
        }
    }

    fn network_changed(&mut self, network: Network) {
        if let Some(sockets) = &self.sockets {
            sockets.network_changed();
        }
        if network == self.network {
            return;
        }
        let addresses =
            network.interfaces != self.network.interfaces || network.primary != self.network.primary;
        self.network = network;
        self.keep_interfaces();
        if addresses {
            self.sync();
        }
    }

    fn write_meta(&mut self, ticks_per_second: u32, agent_pid: u32) -> anyhow::Result<()> {
        let meta = Meta {
            abi_version: ABI_VERSION,
            synced: u32::from(self.synced),
            ticks_per_second,
            agent_pid,
            flow_seed: self.flow_seed,
        };
        self.store
            .update(Table::Meta, bytemuck::bytes_of(&0u32), bytemuck::bytes_of(&meta))
            .context("cannot write who is running")
    }
}

/// Waits until network namespaces have been looked at; for ever where nobody does.
async fn looked(sockets: &mut Option<Sockets>) -> io::Result<Vec<Found>> {
    match sockets {
        Some(sockets) => sockets.looked().await,
        None => std::future::pending().await,
    }
}

/// A number that is greater after a restart, if it may wrap.
fn seconds_since_1970() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() & u64::from(u32::MAX)).unwrap_or_default()
}

/// Hands what the kernel programs log on to the log.
async fn follow(mut log: EbpfLogger<&'static dyn log::Log>) {
    let mut looks = tokio::time::interval(TRACE_LOOKS);
    loop {
        looks.tick().await;
        log.flush();
    }
}

/// Says in the ready file that the first full synchronisation is in the kernel.
fn announce(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let mut file = fs::File::create(path).with_context(|| format!("{}: cannot write", path.display()))?;
    writeln!(file, "{}", std::process::id()).with_context(|| format!("{}: cannot write", path.display()))
}

/// Mounts a BPF file system where the pin directory is to be, if it is the usual place and nobody has done it.
pub(super) fn mount_bpffs(pin_dir: &Path) -> anyhow::Result<()> {
    const USUAL: &str = "/sys/fs/bpf";
    if !pin_dir.starts_with(USUAL) {
        return Ok(());
    }
    let mounted = nix::sys::statfs::statfs(USUAL)
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC);
    if mounted {
        return Ok(());
    }
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("bpf"), USUAL, Some("bpf"), flags, None::<&str>).with_context(|| {
        format!("{USUAL}: no BPF file system is mounted there, and mounting one failed; run as root")
    })?;
    info!("mounted a BPF file system at {USUAL}");
    Ok(())
}
