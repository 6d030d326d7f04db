//! Wires between two network cards (virtio-net) of the machine, each end of which goes where a check wants it.

use std::fs::File;
use std::os::fd::AsFd;

use lb_userspace::lab::link::{Link, Mac, Netlink};
use lb_userspace::lab::netns::Namespace;
use lb_userspace::lab::topology::POD_INTERFACE;
use lb_userspace::lab::{self, Error};

/// Of the process that brought them up, and of this one.
const HOME: &str = "/proc/1/ns/net";

/// A wire; its ends come home when it is dropped.
#[derive(Debug)]
pub struct Wire {
    number: u8,
    laid: Option<[Namespace; 2]>,
}

impl Wire {
    /// The wire with this number, from 1 on, as `xtask/src/vm/qemu.rs` counts them.
    pub const fn new(number: u8) -> Self {
        Self { number, laid: None }
    }

    /// Lays it from the node, where its end gets this name, to a pod.
    ///
    /// # Errors
    /// The machine has no such wire, or the kernel refuses.
    pub fn lay(&mut self, node: &Namespace, interface: &str, pod: &Namespace) -> lab::Result<()> {
        let home = Netlink::here()?;
        let at = [Namespace::open(node.name())?, Namespace::open(pod.name())?];
        for (index, name) in [interface, POD_INTERFACE].into_iter().enumerate() {
            let card = self.find(&home, index)?;
            home.move_link(card.index, at[index].descriptor()?.as_fd(), name)?;
        }
        self.laid = Some(at);
        Ok(())
    }

    /// The card at this end.
    fn find(&self, netlink: &Netlink, index: usize) -> lab::Result<Link> {
        let mac: Mac = [2, 0, 0, 0, self.number, index as u8 + 1];
        netlink.links()?.into_iter().find(|link| link.mac == Some(mac)).ok_or_else(|| Error::Missing {
            object: format!("card {} of wire {}", index + 1, self.number),
            hint: "`cargo xtask vm` gives machines such cards".to_owned(),
        })
    }

    fn bring_home(&self, at: &[Namespace; 2]) -> lab::Result<()> {
        let failed = |source| Error::System { operation: "open", object: HOME.to_owned(), source };
        let home = File::open(HOME).map_err(failed)?;
        for (index, place) in at.iter().enumerate() {
            let netlink = Netlink::of(place)?;
            let card = self.find(&netlink, index)?;
            netlink.move_link(card.index, home.as_fd(), &format!("wire{}end{}", self.number, index + 1))?;
        }
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(at) = self.laid.take()
            && let Err(error) = self.bring_home(&at)
        {
            eprintln!("wire {} is lost: {error}", self.number);
        }
    }
}
