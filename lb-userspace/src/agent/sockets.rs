//! Balancing at sockets, as the agent keeps it: programs on the cgroup, and what they must know of network namespaces.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::{info, warn};

use crate::dataplane::{Attacher, PinDir, detach_sockets};
use crate::maps::{MapError, MapStore};
use crate::sockets::namespaces::{self, Found};
use crate::sockets::{Choice, Namespaces, SocketArgs, SocketError, cgroup_of};

/// After something has changed: at once, and when addresses of what is being set up have been given.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];
/// Otherwise: namespaces come and go without a message.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Balancing at sockets, where it is on.
pub(super) struct Sockets {
    namespaces: Namespaces,
    lookout: Lookout,
    /// The last look.
    found: Vec<Found>,
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
            match Self::attach(args, attacher, store, primary) {
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
        let lookout = Lookout::start(namespaces.excluded().to_vec()).context("cannot start a thread")?;
        Ok(Self { namespaces, lookout, found })
    }

    /// Interfaces have changed: namespaces may have, too.
    pub(super) fn network_changed(&self) {
        self.lookout.look();
    }

    /// Waits until namespaces have been looked at.
    pub(super) async fn looked(&mut self) -> io::Result<Vec<Found>> {
        match self.lookout.found.recv().await {
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
        self.found = found;
        self.namespaces.write(store, &self.found, primary)
    }
}

/// Looks at namespaces, on a thread of its own: there may be many processes.
struct Lookout {
    ask: mpsc::Sender<()>,
    found: UnboundedReceiver<io::Result<Vec<Found>>>,
}

impl Lookout {
    fn start(excluded: Vec<PathBuf>) -> io::Result<Self> {
        let (ask, asked) = mpsc::channel();
        let (tell, found) = unbounded_channel();
        thread::Builder::new().name("namespaces".to_owned()).spawn(move || {
            let mut looks = LOOKS.iter();
            loop {
                match asked.recv_timeout(looks.next().copied().unwrap_or(LOOK_AGAIN)) {
                    Ok(()) => looks = LOOKS.iter(),
                    Err(RecvTimeoutError::Timeout) => {
                        if tell.send(namespaces::look(&excluded)).is_err() {
                            return;
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self { ask, found })
    }

    fn look(&self) {
        // The thread ends with this value only.
        let _gone = self.ask.send(());
    }
}
