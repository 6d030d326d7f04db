//! Attaching to interfaces and letting go of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, XdpMode};
use aya_log::EbpfLogger;
use lb_common::abi::{Config, Counter, IfaceEntry};
use lb_common::reason::REASON_SLOTS;
use lb_common::tables::{MAX_IFINDEX, SOCKET_SLOT, Table};
use serde::Serialize;

use super::load::kernel_at_least;
use super::pins::LinkKind;
use super::{DataplaneError, Hook, HookChoice, PinDir, Programs, complaint};
use crate::maps::{MapError, MapStore, detach_link, link_info};

/// Priority and handle of our clsact filters: fixed, so that a restarted agent finds and replaces its own.
const CLSACT_PRIORITY: u16 = 0x6c62;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// An interface with programs attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// Its name.
    pub iface: String,
    /// Its index in this network namespace.
    pub ifindex: u32,
    /// Where packets are met on their way in.
    pub hook: Hook,
    /// True: the link was there before, its program has been exchanged under the traffic.
    pub adopted: bool,
}

/// An interface to attach to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its name.
    pub iface: &'a str,
    /// Its index.
    pub ifindex: u32,
    /// A device with a driver of its own, not made of software.
    pub physical: bool,
    /// As in [`IfaceEntry::flags`].
    pub flags: u16,
    /// As in [`IfaceEntry::mac`].
    pub mac: [u8; 6],
}

/// Attaches programs and keeps what stays in the pin directory.
#[derive(Debug)]
pub struct Attacher {
    pub(super) programs: Programs,
    pub(super) pins: PinDir,
    slots: BTreeMap<u32, u16>,
}

impl Attacher {
    /// Loads the object and takes up what an earlier agent left.
    ///
    /// # Errors
    /// [`DataplaneError`]: the object or a map is refused.
    pub fn new(pins: &PinDir, config: &Config, store: &dyn MapStore) -> Result<Self, DataplaneError> {
        let mut slots = BTreeMap::new();
        store.scan(Table::Ifaces, &mut |key, value| {
            let entry: Option<IfaceEntry> = bytemuck::try_pod_read_unaligned(value).ok();
            let ifindex = bytemuck::try_pod_read_unaligned::<u32>(key).ok();
            if let (Some(ifindex), Some(entry)) = (ifindex, entry)
                && entry.slot != 0
            {
                slots.insert(ifindex, entry.slot);
            }
        })?;
        Ok(Self { programs: Programs::load(pins, config)?, pins: pins.clone(), slots })
    }

    /// See [`Programs::kernel_log`].
    ///
    /// # Errors
    /// As there.
    pub fn kernel_log(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, DataplaneError> {
        self.programs.kernel_log()
    }

    /// Attaches to an interface, or puts this agent's programs into the links that are there.
    ///
    /// # Errors
    /// [`DataplaneError::Attach`] names interface, hook, the kernel's reason and what to do.
    pub fn attach(
        &mut self,
        store: &mut dyn MapStore,
        target: Target<'_>,
        choice: HookChoice,
    ) -> Result<Attached, DataplaneError> {
        self.mark(store, target)?;
        let tc = if kernel_at_least(6, 6) { Hook::Tcx } else { Hook::Clsact };
        let (hook, adopted) = match choice {
            HookChoice::Tc => (tc, self.ingress(target, tc)?),
            HookChoice::Xdp => (Hook::Xdp, self.ingress(target, Hook::Xdp)?),
            HookChoice::XdpGeneric => (Hook::XdpGeneric, self.ingress(target, Hook::XdpGeneric)?),
            HookChoice::Auto if target.physical => match self.ingress(target, Hook::Xdp) {
                Ok(adopted) => (Hook::Xdp, adopted),
                Err(error) => {
                    tracing::info!("{error}; taking {tc}");
                    (tc, self.ingress(target, tc)?)
                }
            },
            HookChoice::Auto => (tc, self.ingress(target, tc)?),
        };
        self.put_tc(target, LinkKind::Egress(tc), "lb_tc_egress")?;
        if hook.is_xdp() {
            self.put_tc(target, LinkKind::Answer(tc), "lb_tc_answer")?;
        }
        self.drop_others(target.iface, hook, tc)?;
        Ok(Attached { iface: target.iface.to_owned(), ifindex: target.ifindex, hook, adopted })
    }

    /// Lets go of an interface, whether it is still there or not.
    ///
    /// # Errors
    /// [`DataplaneError::Detach`] or [`DataplaneError::PinDir`].
    pub fn release(
        &mut self,
        store: &mut dyn MapStore,
        iface: &str,
        ifindex: u32,
    ) -> Result<(), DataplaneError> {
        detach(&self.pins, iface)?;
        if self.slots.remove(&ifindex).is_some() {
            store.delete(Table::Ifaces, bytemuck::bytes_of(&ifindex))?;
        }
        Ok(())
    }

    /// Gives an interface its flags, and counters of its own if it has none, starting from zero. When all are given away
    /// it shares slot 0.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn mark(&mut self, store: &mut dyn MapStore, target: Target<'_>) -> Result<(), MapError> {
        if target.ifindex > MAX_IFINDEX {
            return Ok(());
        }
        let slot = match self.slots.get(&target.ifindex) {
            Some(slot) => *slot,
            None => {
                let free = (1..SOCKET_SLOT).find(|slot| !self.slots.values().any(|taken| taken == slot));
                let slot = free.unwrap_or(0);
                if slot != 0 {
                    let zero = bytemuck::bytes_of(&Counter { packets: 0, bytes: 0 }).to_vec();
                    for reason in 0..REASON_SLOTS {
                        let index = u32::from(slot) * REASON_SLOTS + reason;
                        store.update(Table::IfaceStats, bytemuck::bytes_of(&index), &zero)?;
                    }
                    self.slots.insert(target.ifindex, slot);
                }
                slot
            }
        };
        let entry = IfaceEntry::new(target.iface, slot, target.flags).with_mac(target.mac);
        store.update(Table::Ifaces, bytemuck::bytes_of(&target.ifindex), bytemuck::bytes_of(&entry))
    }

    /// Puts the balancing program at `hook`; whether its link was there before.
    fn ingress(&mut self, target: Target<'_>, hook: Hook) -> Result<bool, DataplaneError> {
        let kind = LinkKind::Ingress(hook);
        let mode = match hook {
            Hook::Xdp => XdpMode::Driver,
            Hook::XdpGeneric => XdpMode::Skb,
            Hook::Tcx | Hook::Clsact => return self.put_tc(target, kind, "lb_tc_ingress"),
        };
        self.make_way(target, hook)?;
        let pin = self.pins.link(target.iface, kind);
        // Generic XDP always has the packet in one piece.
        let frags = hook == Hook::Xdp && kernel_at_least(5, 18);
        let program = self.programs.xdp(if frags { "lb_xdp_frags" } else { "lb_xdp" })?;
        let failed = |error: &ProgramError| attach_error(target.iface, hook, error, None);
        if let Some(pinned) = pinned_to(&pin, target.ifindex)? {
            let link = FdLink::from(pinned).try_into().ok();
            match link.map(|link| program.attach_to_link(link)) {
                Some(Ok(id)) => {
                    // Dropping it closes a descriptor; the pin keeps the link.
                    drop(program.take_link(id).map_err(|error| failed(&error))?);
                    return Ok(true);
                }
                // The interface has gone meanwhile.
                _ => remove_pin(&pin)?,
            }
        }
        let id = program.attach_to_if_index(target.ifindex, mode).map_err(|error| {
            let native = program.fd().ok().filter(|_| hook == Hook::Xdp);
            let words = native.and_then(|program| complaint::of(target.ifindex, program.as_fd()));
            attach_error(target.iface, hook, &error, words)
        })?;
        let link = program.take_link(id).map_err(|error| failed(&error))?;
        let link = FdLink::try_from(link).map_err(|_| DataplaneError::Attach {
            iface: target.iface.to_owned(),
            hook: hook.name(),
            reason: "the kernel has no links for XDP (5.9 and later have)".to_owned(),
            advice: Some("use --hook tc"),
        })?;
        link.pin(&pin).map_err(|error| pin_error(&pin, &error))?;
        Ok(false)
    }

    /// Puts a tc program at its place; whether its link was there before.
    fn put_tc(
        &mut self,
        target: Target<'_>,
        kind: LinkKind,
        name: &'static str,
    ) -> Result<bool, DataplaneError> {
        let direction =
            if matches!(kind, LinkKind::Egress(_)) { TcAttachType::Egress } else { TcAttachType::Ingress };
        let pin = self.pins.link(target.iface, kind);
        let program = self.programs.tc(name)?;
        if kind.hook() == Hook::Clsact {
            return put_clsact(program, target.iface, direction);
        }
        let failed = |error: &ProgramError| attach_error(target.iface, kind.hook(), error, None);
        if let Some(pinned) = pinned_to(&pin, target.ifindex)? {
            let link = SchedClassifierLink::try_from(FdLink::from(pinned)).ok();
            match link.map(|link| program.attach_to_link(link)) {
                Some(Ok(id)) => {
                    drop(program.take_link(id).map_err(|error| failed(&error))?);
                    return Ok(true);
                }
                _ => remove_pin(&pin)?,
            }
        }
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id =
            program.attach_with_options(target.iface, direction, order).map_err(|error| failed(&error))?;
        let link = program.take_link(id).map_err(|error| failed(&error))?;
        let link = FdLink::try_from(link).map_err(|_| failed(&ProgramError::NotAttached))?;
        link.pin(&pin).map_err(|error| pin_error(&pin, &error))?;
        Ok(false)
    }

    /// Native and generic XDP exclude each other: while one takes the place of the other, tc does the work.
    fn make_way(&mut self, target: Target<'_>, hook: Hook) -> Result<(), DataplaneError> {
        let other = if hook == Hook::Xdp { Hook::XdpGeneric } else { Hook::Xdp };
        let pin = self.pins.link(target.iface, LinkKind::Ingress(other));
        if !link_info(&pin).is_ok_and(|info| info.ifindex == target.ifindex) {
            return Ok(());
        }
        let tc = if kernel_at_least(6, 6) { Hook::Tcx } else { Hook::Clsact };
        self.put_tc(target, LinkKind::Ingress(tc), "lb_tc_ingress")?;
        drop_link(&pin)
    }

    /// Gives pins the names that their interfaces have now. Interfaces are renamed while they carry traffic, also
    /// while no agent runs.
    ///
    /// # Errors
    /// [`DataplaneError::PinDir`].
    pub fn follow(&self, name_of: impl Fn(u32) -> Option<String>) -> Result<(), DataplaneError> {
        for link in self.pins.links_found()? {
            let ifindex = link_info(&link.path).map_or(0, |info| info.ifindex);
            if let Some(name) = name_of(ifindex)
                && name != link.iface
            {
                fs::rename(&link.path, self.pins.link(&name, link.kind))
                    .map_err(|source| DataplaneError::PinDir { path: link.path, source })?;
            }
        }
        Ok(())
    }

    /// Takes the counters back from interfaces that are not among these.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn forget_others(
        &mut self,
        store: &mut dyn MapStore,
        keep: impl Fn(u32) -> bool,
    ) -> Result<(), MapError> {
        let gone: Vec<u32> = self.slots.keys().copied().filter(|ifindex| !keep(*ifindex)).collect();
        for ifindex in gone {
            self.slots.remove(&ifindex);
            store.delete(Table::Ifaces, bytemuck::bytes_of(&ifindex))?;
        }
        Ok(())
    }

    /// Lets go of what another choice of hook left on the interface. Until then both run, which is harmless: what one
    /// has rewritten is not the other's.
    fn drop_others(&self, iface: &str, hook: Hook, tc: Hook) -> Result<(), DataplaneError> {
        for link in self.pins.links_found()? {
            let wanted = match link.kind {
                LinkKind::Ingress(other) => other == hook,
                LinkKind::Egress(other) => other == tc,
                LinkKind::Answer(other) => other == tc && hook.is_xdp(),
            };
            if link.iface == iface && !wanted {
                drop_link(&link.path)?;
            }
        }
        Ok(())
    }
}

/// The link pinned there, if it is one to this interface. The interface may have gone and another have its name, or two
/// may have changed names: then the link is of no use here, and its pin is removed.
fn pinned_to(pin: &std::path::Path, ifindex: u32) -> Result<Option<PinnedLink>, DataplaneError> {
    if link_info(pin).is_ok_and(|info| info.ifindex == ifindex)
        && let Ok(pinned) = PinnedLink::from_pin(pin)
    {
        return Ok(Some(pinned));
    }
    remove_pin(pin)?;
    Ok(None)
}

/// Attaches a filter to a clsact qdisc, or replaces ours (kernels before 6.6). It stays when the agent goes.
fn put_clsact(
    program: &mut SchedClassifier,
    iface: &str,
    direction: TcAttachType,
) -> Result<bool, DataplaneError> {
    let failed = |error: &ProgramError| attach_error(iface, Hook::Clsact, error, None);
    // EEXIST when it is there; any other failure shows below.
    let _exists = qdisc_add_clsact(iface);
    let ours = SchedClassifierLink::attached(iface, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None);
    let replaced = ours.ok().and_then(|link| program.attach_to_link(link).ok());
    let adopted = replaced.is_some();
    let id: SchedClassifierLinkId = match replaced {
        Some(id) => id,
        None => {
            let options = NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, classid: None };
            program
                .attach_with_options(iface, direction, TcAttachOptions::Netlink(options))
                .map_err(|error| failed(&error))?
        }
    };
    // Dropping the link would remove the filter.
    std::mem::forget(program.take_link(id).map_err(|error| failed(&error))?);
    Ok(adopted)
}

/// Removes everything from one interface.
///
/// # Errors
/// [`DataplaneError::Detach`] or [`DataplaneError::PinDir`].
pub fn detach(pins: &PinDir, iface: &str) -> Result<(), DataplaneError> {
    for link in pins.links_found()?.into_iter().filter(|link| link.iface == iface) {
        drop_link(&link.path)?;
    }
    if kernel_at_least(6, 6) {
        return Ok(());
    }
    for (direction, name) in [
        (TcAttachType::Ingress, "lb_tc_ingress"),
        (TcAttachType::Ingress, "lb_tc_answer"),
        (TcAttachType::Egress, "lb_tc_egress"),
    ] {
        // Not there, or the interface is gone: nothing to remove.
        let _absent = qdisc_detach_program(iface, direction, name);
    }
    Ok(())
}

pub(super) fn drop_link(path: &std::path::Path) -> Result<(), DataplaneError> {
    // The interface has gone, or the kernel cannot: the link goes with its pin.
    let _void = detach_link(path);
    remove_pin(path)
}

pub(super) fn remove_pin(path: &std::path::Path) -> Result<(), DataplaneError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DataplaneError::PinDir { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

pub(super) fn pin_error(path: &std::path::Path, error: &dyn std::error::Error) -> DataplaneError {
    DataplaneError::PinDir { path: path.to_owned(), source: io::Error::other(error.to_string()) }
}

/// The kernel's reason, perhaps with words of its own, and what to do about it.
fn attach_error(iface: &str, hook: Hook, error: &ProgramError, words: Option<String>) -> DataplaneError {
    let errno = errno_of(error);
    let advice = match (hook, errno) {
        (_, Some(libc::EPERM | libc::EACCES)) => Some("run as root, or with CAP_BPF and CAP_NET_ADMIN"),
        (_, Some(libc::ENODEV)) => Some("the interface has gone"),
        (Hook::Xdp | Hook::XdpGeneric, Some(libc::EBUSY | libc::EEXIST)) => Some(
            "another XDP program is there: `ip link show` tells which; remove it, or use --hook tc, which shares",
        ),
        (Hook::Xdp, Some(libc::EOPNOTSUPP)) => Some(
            "its driver has no native XDP, or not with its settings as they are: use --hook xdp-generic or tc",
        ),
        (Hook::Xdp, Some(libc::ENOMEM | libc::ENOSPC)) => Some(
            "its driver may want one more queue for each CPU than the device has: have it use fewer for packets \
             (ethtool -L), give the device more, or use --hook tc",
        ),
        (Hook::Xdp, Some(libc::ERANGE | libc::EINVAL)) => {
            Some("its MTU may be too large for native XDP: lower it, or use --hook tc")
        }
        (Hook::XdpGeneric, Some(libc::EINVAL)) if !kernel_at_least(5, 15) => Some(
            "before kernel 5.15 generic XDP takes no program that may redirect to devices: use --hook tc",
        ),
        _ => None,
    };
    let reason = match errno {
        Some(errno) => complaint::with_words(&io::Error::from_raw_os_error(errno), words),
        None => error.to_string(),
    };
    DataplaneError::Attach { iface: iface.to_owned(), hook: hook.name(), reason, advice }
}

/// The error number at the bottom of a chain of causes.
pub(super) fn errno_of(error: &ProgramError) -> Option<i32> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}
