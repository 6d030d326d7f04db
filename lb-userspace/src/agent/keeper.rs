//! Keeps the programs on the interfaces that were asked for, as these come and go.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::iface_flag;
use tracing::{error, info, warn};
use wildmatch::WildMatch;

use super::devices;
use super::network::{Link, Network};
use crate::dataplane::{Attacher, DataplaneError, Hook, HookChoice, PinDir, Target};
use crate::forwarding::{Features, Forwarding};
use crate::maps::MapStore;

/// Names or patterns of interfaces.
#[derive(Clone, Debug)]
struct Patterns(Vec<(String, WildMatch)>);

impl Patterns {
    fn new(patterns: &[String]) -> Self {
        Self(patterns.iter().map(|pattern| (pattern.clone(), WildMatch::new(pattern))).collect())
    }

    fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|(_, pattern)| pattern.matches(name))
    }

    /// Those that are plain names.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(text, _)| text.as_str()).filter(|text| !text.contains(['*', '?']))
    }
}

/// An interface with the programs.
#[derive(Debug)]
struct Held {
    name: String,
    hook: Hook,
    /// As written to the map: flags and hardware address.
    written: (u16, [u8; 6]),
}

/// Keeps the programs where they belong.
pub(super) struct Keeper {
    attacher: Attacher,
    wanted: Patterns,
    external: Patterns,
    choice: HookChoice,
    /// What is wanted where the hook allows.
    forwarding: Forwarding,
    attached: BTreeMap<u32, Held>,
    /// Interfaces that could not be attached to: name and why.
    failed: BTreeMap<u32, (String, String)>,
}

impl Keeper {
    pub(super) fn new(
        attacher: Attacher,
        wanted: &[String],
        external: &[String],
        choice: HookChoice,
        forwarding: Forwarding,
    ) -> Self {
        Self {
            attacher,
            wanted: Patterns::new(wanted),
            external: Patterns::new(external),
            choice,
            forwarding,
            attached: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Attaches to what has appeared and lets go of what has gone. Failures are reported; the same one once.
    pub(super) fn keep(&mut self, store: &mut dyn MapStore, network: &Network) {
        let gone: Vec<_> = self
            .attached
            .iter()
            .filter(|(ifindex, held)| network.links.get(ifindex).is_none_or(|link| link.name != held.name))
            .map(|(ifindex, held)| (*ifindex, held.name.clone()))
            .collect();
        for (ifindex, name) in gone {
            self.attached.remove(&ifindex);
            if let Some(link) = network.links.get(&ifindex).filter(|link| self.wanted.matches(&link.name)) {
                info!("{name}: is called {} now", link.name);
                continue;
            }
            self.release(store, &name, ifindex);
        }
        // Gone while it was attached to: what was in place by then has been left behind.
        let failed_and_gone: Vec<_> =
            self.failed.keys().copied().filter(|ifindex| !network.links.contains_key(ifindex)).collect();
        for ifindex in failed_and_gone {
            if let Some((name, _)) = self.failed.remove(&ifindex) {
                self.release(store, &name, ifindex);
            }
        }
        devices::keep(store, network);
        self.refresh_flags(store, network);
        let new: Vec<&Link> = network
            .links
            .values()
            .filter(|link| self.wanted.matches(&link.name) && !self.attached.contains_key(&link.ifindex))
            .collect();
        if new.is_empty() {
            return;
        }
        if let Err(error) =
            self.attacher.follow(|ifindex| network.links.get(&ifindex).map(|link| link.name.clone()))
        {
            error!("{error}");
        }
        for link in new {
            self.attach(store, link);
        }
    }

    fn release(&mut self, store: &mut dyn MapStore, name: &str, ifindex: u32) {
        match self.attacher.release(store, name, ifindex) {
            Ok(()) => info!("{name}: gone, let go"),
            Err(error) => error!("{error}"),
        }
    }

    fn attach(&mut self, store: &mut dyn MapStore, link: &Link) {
        // Where it will be is not quite known before.
        let hook = match self.choice {
            HookChoice::Xdp => Hook::Xdp,
            HookChoice::XdpGeneric => Hook::XdpGeneric,
            HookChoice::Auto if link.physical => Hook::Xdp,
            HookChoice::Auto | HookChoice::Tc => Hook::Tcx,
        };
        let target = self.target(link, hook);
        let written = (target.flags, target.mac);
        match self.attacher.attach(store, target, self.choice) {
            Ok(attached) => {
                let how = if attached.adopted { "took over" } else { "attached" };
                info!("{}: {how} at {}", attached.iface, attached.hook);
                self.failed.remove(&link.ifindex);
                let mut held = Held { name: link.name.clone(), hook: attached.hook, written };
                self.set_flags(store, link, &mut held);
                self.attached.insert(link.ifindex, held);
            }
            Err(error) => {
                let failure = (link.name.clone(), error.to_string());
                if self.failed.get(&link.ifindex) != Some(&failure) {
                    error!("{error}");
                    self.failed.insert(link.ifindex, failure);
                }
            }
        }
    }

    /// Forwards like this from now on; takes effect with the next [`Keeper::keep`].
    pub(super) fn forward(&mut self, forwarding: Forwarding) {
        self.forwarding = forwarding;
    }

    /// How it forwards where the hook allows.
    pub(super) fn forwarding(&self) -> Forwarding {
        self.forwarding
    }

    fn target<'a>(&self, link: &'a Link, hook: Hook) -> Target<'a> {
        Target {
            iface: &link.name,
            ifindex: link.ifindex,
            physical: link.physical,
            flags: self.flags(link, self.forwarding.at(hook, link.device())),
            mac: link.mac,
        }
    }

    fn flags(&self, link: &Link, forwarding: Forwarding) -> u16 {
        let external = if self.external.matches(&link.name) { iface_flag::EXTERNAL } else { 0 };
        // Put in at the other end, they would go past the queue.
        let peer = if link.to_elsewhere && !link.queue { iface_flag::PEER } else { 0 };
        let card = if link.card { iface_flag::CARD } else { 0 };
        let buffers = if link.xdp.is_some_and(Features::takes_buffers) { iface_flag::BUFFERS } else { 0 };
        external | peer | card | buffers | forwarding.flags()
    }

    /// Brings the flags up to date of the interfaces that have the programs.
    fn refresh_flags(&mut self, store: &mut dyn MapStore, network: &Network) {
        let mut attached = std::mem::take(&mut self.attached);
        for (ifindex, held) in &mut attached {
            if let Some(link) = network.links.get(ifindex) {
                self.set_flags(store, link, held);
            }
        }
        self.attached = attached;
    }

    fn set_flags(&mut self, store: &mut dyn MapStore, link: &Link, held: &mut Held) {
        let target = self.target(link, held.hook);
        let wanted = (target.flags, target.mac);
        if wanted == held.written {
            return;
        }
        match self.attacher.mark(store, target) {
            Ok(()) => held.written = wanted,
            Err(error) => error!("{}: {error}", link.name),
        }
    }

    /// What attaches, for other places than interfaces.
    pub(super) fn attacher(&mut self) -> &mut Attacher {
        &mut self.attacher
    }

    /// What is wrong right after the start: interfaces that could not be attached to.
    pub(super) fn failures(&self) -> impl Iterator<Item = &str> {
        self.failed.values().map(|(_, reason)| reason.as_str())
    }

    /// Names that no interface has yet.
    pub(super) fn missing(&self) -> Vec<&str> {
        let attached: BTreeSet<_> = self.attached.values().map(|held| held.name.as_str()).collect();
        self.wanted.names().filter(|name| !attached.contains(name)).collect()
    }

    /// Whether packets are redirected at XDP, past the kernel's neighbour code.
    pub(super) fn redirects(&self) -> bool {
        self.attached.values().any(|held| held.hook == Hook::Xdp && Forwarding::of(held.written.0).direct)
    }

    /// How many interfaces have the programs.
    pub(super) fn count(&self) -> usize {
        self.attached.len()
    }

    /// Lets go of interfaces that an earlier agent had and this one is not asked for.
    pub(super) fn drop_unwanted(
        &mut self,
        store: &mut dyn MapStore,
        pins: &PinDir,
    ) -> Result<(), DataplaneError> {
        let unwanted: BTreeSet<_> = pins
            .links_found()?
            .into_iter()
            .map(|link| link.iface)
            .filter(|iface| !self.attached.values().any(|held| held.name == *iface))
            .filter(|iface| !self.failed.values().any(|(name, _)| name == iface))
            .collect();
        for iface in unwanted {
            warn!("{iface}: attached by an earlier agent, no longer asked for or no longer there; let go");
            crate::dataplane::detach(pins, &iface)?;
        }
        let (attached, failed) = (&self.attached, &self.failed);
        let keep = |ifindex| attached.contains_key(&ifindex) || failed.contains_key(&ifindex);
        Ok(self.attacher.forget_others(store, keep)?)
    }
}
