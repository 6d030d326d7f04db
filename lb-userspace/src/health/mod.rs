//! HTTP for health checks: `healthCheckNodePort` of Services (H1), and the agent's own `--healthz` (H2).
//!
//! What is answered to load balancers is the business of [`crate::model::health`]; here are the sockets.

mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::model::addresses::node_port_addresses;
use crate::model::desired::Family;
use crate::model::health::{Checks, ServiceHealth};
use crate::model::healthz::{AgentHealth, Page};
use crate::model::{ModelConfig, NodePortAddresses};
use crate::source::kube::Node;

/// Changes may take this long to be in the kernel; kube-proxy's value, two periods of its full synchronisation.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{address}: cannot listen for health checks: {source}")]
pub struct HealthError {
    /// Where.
    pub address: SocketAddr,
    /// The kernel's reason.
    pub source: io::Error,
}

/// What is known when a request comes.
#[derive(Debug)]
struct State {
    services: ServiceHealth,
    agent: AgentHealth,
    /// The first full synchronisation is in the kernel.
    synced: bool,
    /// This node's object has been seen.
    node_seen: bool,
    clock: Clock,
}

/// A calendar that goes on steadily while the agent runs.
#[derive(Debug)]
struct Clock {
    /// Since 1970, when the agent started.
    wall: Duration,
    start: Instant,
}

impl Clock {
    fn now(&self) -> Duration {
        self.wall + self.start.elapsed()
    }
}

type Shared = Arc<Mutex<State>>;

/// State that is whole after every statement is not hurt by a panic elsewhere.
fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends its server when dropped.
#[derive(Debug)]
struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All health checks of an agent. Needs a tokio runtime; nothing listens before it is asked to.
#[derive(Debug)]
pub struct Health {
    state: Shared,
    agent: Option<Server>,
    services: BTreeMap<SocketAddr, Server>,
}

impl Health {
    /// Health of an agent whose changes may take less than `timeout` to be in the kernel.
    pub fn new(timeout: Duration) -> Self {
        let state = State {
            services: ServiceHealth::default(),
            agent: AgentHealth::new(timeout),
            synced: false,
            node_seen: false,
            clock: Clock {
                wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
                start: Instant::now(),
            },
        };
        Self { state: Arc::new(Mutex::new(state)), agent: None, services: BTreeMap::new() }
    }

    /// Serves `/healthz`, `/readyz` and `/livez`; gives the address, whose port is a free one if 0 was asked for.
    ///
    /// # Errors
    /// [`HealthError`].
    pub fn serve_agent(&mut self, address: SocketAddr) -> Result<SocketAddr, HealthError> {
        let error = |source| HealthError { address, source };
        let listener = listen(address).map_err(error)?;
        let bound = listener.local_addr().map_err(error)?;
        let state = Arc::clone(&self.state);
        self.agent = Some(Server(tokio::spawn(http::serve(listener, move |path| lock(&state).page(path)))));
        Ok(bound)
    }

    /// Takes what the model has made of objects: this node's object, counts, and which ports are to be open. Gives the ports that
    /// cannot be opened; the next call tries again. `in_kernel` tells whether it is where it should be.
    pub fn update(
        &mut self,
        config: &ModelConfig,
        node: Option<&Node>,
        checks: &Checks,
        in_kernel: bool,
    ) -> Vec<HealthError> {
        let wanted = {
            let mut state = lock(&self.state);
            state.progress(in_kernel);
            state.node(node);
            state.services.set(checks);
            wanted(config, checks, &state.services)
        };
        self.services.retain(|address, _| wanted.contains(address));
        let mut errors = Vec::new();
        for address in wanted {
            if self.services.contains_key(&address) {
                continue;
            }
            match listen(address) {
                Ok(listener) => {
                    let (state, port) = (Arc::clone(&self.state), address.port());
                    let answer = move |_path: &str| lock(&state).service(port);
                    self.services.insert(address, Server(tokio::spawn(http::serve(listener, answer))));
                }
                Err(source) => errors.push(HealthError { address, source }),
            }
        }
        errors
    }

    /// Where health checks of Services are answered.
    pub fn listening(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.services.keys().copied()
    }
}

/// Where to listen: on the addresses that serve node ports (F6), in the families of the Services.
fn wanted(config: &ModelConfig, checks: &Checks, services: &ServiceHealth) -> BTreeSet<SocketAddr> {
    let mut wanted = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let ports = checks.ports(family);
        match &config.nodeport_addresses {
            NodePortAddresses::Primary => {
                for address in node_port_addresses(config, family) {
                    wanted.extend(ports.iter().map(|port| SocketAddr::new(address, *port)));
                }
            }
            NodePortAddresses::Ranges(ranges) => {
                let all = services.listeners(ranges, &config.node_addresses(), family);
                wanted.extend(all.into_iter().filter(|address| ports.contains(&address.port())));
            }
        }
    }
    wanted
}

/// Opens a socket. IPv6 sockets are for IPv6 alone: all addresses of both families are two sockets.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            setsockopt(&socket.as_fd(), sockopt::Ipv6V6Only, &true)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl State {
    fn progress(&mut self, in_kernel: bool) {
        let now = self.clock.now();
        self.synced |= in_kernel;
        for family in [Family::V4, Family::V6] {
            if in_kernel {
                self.agent.updated(family, now);
            } else {
                self.agent.queued(family, now);
            }
        }
    }

    /// A node that has no object is not on its way out, unless it had one.
    fn node(&mut self, node: Option<&Node>) {
        self.node_seen |= node.is_some();
        if self.node_seen {
            self.agent.set_node(node);
        }
    }

    /// H1: the answer on a port, whatever the path, as kube-proxy does it.
    fn service(&mut self, port: u16) -> http::Answer {
        let healthy = self.agent.report(Page::Healthz, self.clock.now()).healthy;
        self.services.set_healthy(healthy);
        let name = self.services.services().find(|(_, known)| *known == port).map(|(name, _)| name);
        match name.and_then(|name| self.services.reply(name)) {
            Some(reply) => reply.into(),
            None => http::Answer::text(404, "no such Service"),
        }
    }

    /// H2: `/readyz` once the agent has synchronised; the others as the model has it.
    fn page(&self, path: &str) -> http::Answer {
        let report = |page| self.agent.report(page, self.clock.now()).reply(rfc3339).into();
        match path {
            "/livez" => report(Page::Livez),
            "/healthz" => report(Page::Healthz),
            "/readyz" if self.synced => http::Answer::text(200, "ok"),
            "/readyz" => http::Answer::text(503, "the first synchronisation is not in the kernel yet"),
            _ => http::Answer::text(404, "there are /healthz, /readyz and /livez"),
        }
    }
}

/// A time since 1970 in UTC (RFC 3339); none is the first second of the year 1.
fn rfc3339(time: Option<Duration>) -> String {
    let Some(time) = time else {
        return "0001-01-01T00:00:00Z".to_owned();
    };
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Years that begin in March have their leap day at the end; 146,097 days are 400 years.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests;
