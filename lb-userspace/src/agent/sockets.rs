//! Balancing at sockets, as the agent keeps it: programs on the cgroup, and what they must know of network namespaces.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::{error, info, warn};

use crate::dataplane::{Attacher, PinDir, detach_sockets};
use crate::maps::{MapError, MapStore};
use crate::sockets::namespaces::{self, Found};
use crate::sockets::stale::{self, StaleError};
use crate::sockets::{Choice, Namespaces, SocketArgs, SocketError, cgroup_of};

/// After something has changed: at once, and when addresses of what is being set up have been given.
const TIMES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];
/// Otherwise: namespaces come and go without a message; what could not be closed may be closed later.
const AGAIN: Duration = Duration::from_secs(30);

/// Balancing at sockets, where it is on.
pub(super) struct Sockets {
    namespaces: Namespaces,
    lookout: Repeated,
    found: UnboundedReceiver<io::Result<Vec<Found>>>,
    sweeper: Repeated,
}

impl Sockets {
    /// Attaches to the cgroup that is asked for; where nothing is asked for, lets go of what an earlier agent had.
    pub(super) fn start(
        args: &SocketArgs,
        attacher: &mut Attacher,
        pins: &PinDir,
        store: &mut dyn MapStore,
        primary: &[IpAddr],
    ) -> anyhow::Result<Option<Self>> {
        if args.socket_lb != Choice::Off {
            match Self::attach(args, attacher, pins, store, primary) {
                Ok(this) => return Ok(Some(this)),
                Err(error) if args.socket_lb == Choice::Auto => {
                    warn!("sockets are not balanced, their packets are: {error:#}");
                }
                Err(error) => return Err(error),
            }
        }
        if detach_sockets(pins)? {
            warn!("sockets: balanced by an earlier agent, no longer; let go");
        }
        Ok(None)
    }

    fn attach(
        args: &SocketArgs,
        attacher: &mut Attacher,
        pins: &PinDir,
        store: &mut dyn MapStore,
        primary: &[IpAddr],
    ) -> anyhow::Result<Self> {
        let cgroup = cgroup_of(args)?;
        let mut namespaces = Namespaces::adopt(&args.socket_lb_exclude, store)?;
        for path in namespaces.missing() {
            warn!("{}: no network namespace yet; its sockets are left alone when it appears", path.display());
        }
        let found = namespaces::look(namespaces.excluded()).map_err(SocketError::Namespaces)?;
        namespaces.write(store, &found, primary)?;
        let adopted = attacher.attach_sockets(&cgroup)?;
        let how = if adopted > 0 { "took over" } else { "attached" };
        info!("{}: {how} at sockets", cgroup.display());
        let (tell, found) = unbounded_channel();
        let excluded = namespaces.excluded().to_vec();
        let look = move || tell.send(namespaces::look(&excluded)).is_ok();
        let lookout = Repeated::start("namespaces", look).context("cannot start a thread")?;
        let sweeper = Repeated::start("stale sockets", sweeper(pins)?).context("cannot start a thread")?;
        Ok(Self { namespaces, lookout, found, sweeper })
    }

    /// Interfaces have changed: namespaces may have, too.
    pub(super) fn network_changed(&self) {
        self.lookout.ask();
    }

    /// Backends may have gone.
    pub(super) fn backends_changed(&self) {
        self.sweeper.ask();
    }

    /// Waits until namespaces have been looked at.
    pub(super) async fn looked(&mut self) -> io::Result<Vec<Found>> {
        match self.found.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }

    /// Tells the programs what has been found.
    pub(super) fn write(
        &mut self,
        store: &mut dyn MapStore,
        found: Vec<Found>,
        primary: &[IpAddr],
    ) -> Result<(), MapError> {
        self.namespaces.write(store, &found, primary)
    }
}

/// Closes UDP sockets whose backend has gone. A failure is reported once for as long as it lasts.
fn sweeper(pins: &PinDir) -> anyhow::Result<impl FnMut() -> bool + Send + 'static> {
    let store = pins.open_checked()?;
    let mut said = String::new();
    // They stay in the table until their process has done with them.
    let mut done = BTreeSet::new();
    Ok(move || {
        let mut close = || {
            let stale = stale::find(&store)?;
            let closed = stale::close(stale.difference(&done))?;
            done = stale;
            Ok::<_, StaleError>(closed)
        };
        let complaint = match close() {
            Ok(0) => String::new(),
            Ok(count) => {
                info!("closed {count} UDP sockets whose backend has gone");
                String::new()
            }
            Err(error) => error.to_string(),
        };
        if complaint != said {
            if !complaint.is_empty() {
                error!("{complaint}");
            }
            said = complaint;
        }
        true
    })
}

/// Something that is done when asked for and now and then, on a thread of its own, for it may take a while.
struct Repeated(mpsc::Sender<()>);

impl Repeated {
    /// `body` is run for the first time at once, and for the last time when it returns false.
    fn start(name: &str, mut body: impl FnMut() -> bool + Send + 'static) -> io::Result<Self> {
        let (ask, asked) = mpsc::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut times = TIMES.iter();
            loop {
                match asked.recv_timeout(times.next().copied().unwrap_or(AGAIN)) {
                    Ok(()) => times = TIMES.iter(),
                    Err(RecvTimeoutError::Timeout) if body() => {}
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self(ask))
    }

    fn ask(&self) {
        // The thread ends with this value only, or with the agent.
        let _gone = self.0.send(());
    }
}
