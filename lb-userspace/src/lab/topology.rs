//! The node and the wires to its pods.
//!
//! Routed, not bridged: each pod has a /32 (/128) and its default route through the node's end of its own veth pair,
//! as Calico wires pods. So every packet of a pod, also one to a pod of the same range, crosses a veth of the node and
//! is seen by the hook there. On a bridge the reply of a backend to a client of the same subnet would be switched
//! around the node's network layer, past the hook, and reach the client from an address that it never dialled.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::{Context, Error, Result};
use super::link::{Mac, Netlink};
use super::netns::Namespace;
use crate::ethtool::{Ethtool, Flag};

/// Next hop of a pod's IPv4 default route. Nobody owns it: a permanent neighbour entry says where it is.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Next hop of a pod's IPv6 default route, likewise.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Name of a pod's own interface.
pub const POD_INTERFACE: &str = "eth0";

/// In every namespace, before it gets interfaces: IPv6 addresses at once and no chatter (no duplicate address
/// detection, no router solicitations, no link-local addresses), so that counters see the traffic alone.
const EVERYWHERE: [(&str, &str); 6] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv4/conf/default/send_redirects", "0"),
];

/// On the node: forwarding, and no reverse path filter. A reply that leaves with a ClusterIP as its source would not
/// pass the filter, since that address is routed nowhere. Nor would the kernel forward what comes in with the node's own
/// address as its source, as replies of node ports and masqueraded packets do once they are translated.
const NODE: [(&str, &str); 6] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/accept_local", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
];

/// A node: the namespace that routes between pods.
#[derive(Debug)]
pub struct Node {
    namespace: Namespace,
    netlink: Netlink,
    native_xdp: bool,
    finished: bool,
}

impl Node {
    /// Makes a node with these addresses on its loopback interface.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses. The namespace is removed again.
    pub fn create(name: &str, addresses: &[IpAddr]) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        let made = prepare(&namespace, &NODE).and_then(|netlink| {
            let lo = netlink.link("lo")?.index;
            addresses.iter().try_for_each(|&address| netlink.add_address(lo, address))?;
            Ok(netlink)
        });
        match made {
            Ok(netlink) => Ok(Self { namespace, netlink, native_xdp: false, finished: false }),
            Err(error) => {
                // The first error is the one to report.
                let _ = Namespace::remove(name);
                Err(error)
            }
        }
    }

    /// The node of this name, made before.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Self> {
        let namespace = Namespace::open(name)?;
        let netlink = Netlink::of(&namespace)?;
        Ok(Self { namespace, netlink, native_xdp: false, finished: false })
    }

    /// From now on pods are wired for native XDP on the node's interfaces.
    ///
    /// A node's interface with native XDP takes packets on one CPU now and on another then, and a pod's interface as
    /// veth makes it queues them on the CPU they come from. So two packets of one connection can be worked on at once,
    /// and when these are the last of the handshake and the first data, Linux may answer with a reset (seen on 6.18: 1
    /// connection in 30,000 with 32 clients on two CPUs). A pod's interface that merges packets (GRO) has a queue of
    /// its own instead, and uses it for what comes from an interface that does not do segmentation offload (TSO).
    #[must_use]
    pub fn for_native_xdp(mut self, yes: bool) -> Self {
        self.native_xdp = yes;
        self
    }

    /// From now on pods finish the checksums of their packets themselves, as on a wire between machines: for direct
    /// forwarding at native XDP, which leaves others to the host.
    #[must_use]
    pub fn with_finished_checksums(mut self, yes: bool) -> Self {
        self.finished = yes;
        self
    }

    /// The node's namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A netlink socket of the node.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Makes a pod's namespace and wires it: `interface` on the node's side, [`POD_INTERFACE`] inside.
    ///
    /// # Errors
    /// When a name is taken or the kernel refuses. What was made is removed again.
    pub fn add_pod(&self, name: &str, interface: &str, addresses: &[IpAddr]) -> Result<Namespace> {
        self.add_pod_by(name, interface, addresses, |pod| {
            self.netlink.add_veth(interface, POD_INTERFACE, pod)?;
            self.set_offloads(pod, interface).inspect_err(|_| {
                // The first error is the one to report.
                let _ = self.cut(interface);
            })
        })
    }

    /// The same by way of another wire: `lay` brings its ends, which are down, to the node and into the pod's namespace, and
    /// gives them their names.
    ///
    /// # Errors
    /// As above, and those of `lay`.
    pub fn add_pod_by(
        &self,
        name: &str,
        interface: &str,
        addresses: &[IpAddr],
        lay: impl FnOnce(&Namespace) -> Result<()>,
    ) -> Result<Namespace> {
        let pod = Namespace::create(name)?;
        let made = prepare(&pod, &[]).and_then(|inside| {
            lay(&pod)?;
            self.wire(&inside, interface, addresses).inspect_err(|_| {
                // From here on the interface is this pod's. The first error is the one to report.
                let _ = self.cut(interface);
            })
        });
        match made {
            Ok(()) => Ok(pod),
            Err(error) => {
                let _ = Namespace::remove(name);
                Err(error)
            }
        }
    }

    fn set_offloads(&self, pod: &Namespace, interface: &str) -> Result<()> {
        if self.native_xdp {
            self.namespace.run(|| switch(interface, Flag::Tso, false))??;
            pod.run(|| switch(POD_INTERFACE, Flag::Gro, true))??;
        }
        if self.finished {
            pod.run(|| switch(POD_INTERFACE, Flag::TxChecksum, false))??;
        }
        Ok(())
    }

    fn wire(&self, inside: &Netlink, interface: &str, addresses: &[IpAddr]) -> Result<()> {
        let outer = self.netlink.link(interface)?;
        let inner = inside.link(POD_INTERFACE)?;
        let (outer_mac, inner_mac) = (mac_of(&outer)?, mac_of(&inner)?);
        self.namespace.run(|| {
            // 0 as well where a distribution's defaults for new interfaces say otherwise.
            write_sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0")
        })??;
        self.netlink.set_up(outer.index)?;
        inside.set_up(inner.index)?;
        for &address in addresses {
            inside.add_address(inner.index, address)?;
            self.netlink.add_host_route(outer.index, address)?;
            self.netlink.add_neighbour(outer.index, address, inner_mac)?;
            let gateway = match address {
                IpAddr::V4(_) => IpAddr::V4(GATEWAY_V4),
                IpAddr::V6(_) => IpAddr::V6(GATEWAY_V6),
            };
            inside.add_neighbour(inner.index, gateway, outer_mac)?;
            inside.add_default_route(inner.index, gateway)?;
        }
        Ok(())
    }

    /// Cuts a pod's wire and removes its namespace's name. Its processes are the caller's business.
    ///
    /// # Errors
    /// When the kernel refuses; what is gone already is no error.
    pub fn remove_pod(&self, name: &str, interface: &str) -> Result<()> {
        self.cut(interface)?;
        Namespace::remove(name)
    }

    fn cut(&self, interface: &str) -> Result<()> {
        match self.netlink.find_link(interface)? {
            Some(link) => self.netlink.remove_link(link.index),
            None => Ok(()),
        }
    }
}

/// Sets the sysctls of a new namespace and `lo` up.
fn prepare(namespace: &Namespace, more: &[(&str, &str)]) -> Result<Netlink> {
    namespace
        .run(|| EVERYWHERE.iter().chain(more).try_for_each(|(name, value)| write_sysctl(name, value)))??;
    let netlink = Netlink::of(namespace)?;
    let lo = netlink.link("lo")?;
    netlink.set_up(lo.index)?;
    Ok(netlink)
}

fn mac_of(link: &super::link::Link) -> Result<Mac> {
    link.mac.ok_or_else(|| Error::invalid(format!("interface {}", link.name), "has no hardware address"))
}

/// Switches an offload of an interface of the calling thread's network namespace.
fn switch(interface: &str, flag: Flag, on: bool) -> Result<()> {
    Ethtool::open()
        .and_then(|ethtool| ethtool.set_flag(interface, flag, on))
        .context("switch an offload of", format!("interface {interface}"))
}

/// Writes a sysctl below /proc/sys/net of the calling thread's network namespace. Those of a kernel without IPv6 are
/// left out.
fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    match fs::write(&path, value) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && name.starts_with("ipv6/") => Ok(()),
        other => other.context("write", path),
    }
}
