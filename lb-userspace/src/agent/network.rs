//! Interfaces, addresses and default routes of the network namespace the agent runs in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use tracing::warn;

use super::neighbours;
use crate::ethtool::Ethtool;
use crate::forwarding::{Device, Devices, Features};
use crate::model::config::Interface;
use crate::model::desired::Family;
use crate::netlink;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) name: String,
    pub(super) physical: bool,
    /// Physical, and what comes in has complete checksums.
    pub(super) card: bool,
    /// A veth whose other end is in another network namespace.
    pub(super) to_elsewhere: bool,
    /// Packets going out wait in a queue, perhaps one that limits them.
    pub(super) queue: bool,
    /// Its hardware address, if it has one of six bytes.
    pub(super) mac: [u8; 6],
    /// Other devices are on top of it.
    pub(super) stacked: bool,
    /// What it does at XDP, if the kernel says.
    pub(super) xdp: Option<Features>,
}

impl Link {
    /// As forwarding sees it.
    pub(super) const fn device(&self) -> Device {
        Device { physical: self.physical, stacked: self.stacked, told: self.xdp.is_some() }
    }
}

/// What there is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// Interfaces by index, loopback left out.
    pub(super) links: BTreeMap<u32, Link>,
    /// Interfaces with their addresses.
    pub(super) interfaces: Vec<Interface>,
    /// The address on the default route of each family.
    pub(super) primary: Vec<IpAddr>,
}

/// Follows the kernel's messages about interfaces, addresses and routes.
pub(super) struct Watcher {
    handle: Handle,
    changes: BoxStream<'static, ()>,
    /// What devices do at XDP, where the kernel says.
    devices: Option<(Devices, netlink::Watcher)>,
}

/// Begins to listen to what devices do at XDP.
fn watch_devices() -> io::Result<Option<(Devices, netlink::Watcher)>> {
    Devices::find()?.map(|devices| Ok((devices, devices.watch()?))).transpose()
}

impl Watcher {
    /// Begins to listen in the current network namespace.
    pub(super) fn new() -> anyhow::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Tc,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, messages) =
            new_multicast_connection(&groups).context("cannot listen to the kernel's interface changes")?;
        tokio::spawn(connection);
        let devices = watch_devices().unwrap_or_else(|error| {
            warn!("the kernel does not say which devices take redirected packets: {error}");
            None
        });
        Ok(Self { handle, changes: messages.map(|_| ()).boxed(), devices })
    }

    /// Waits until something has changed. Never returns once the kernel is silent for good.
    pub(super) async fn changed(&mut self) {
        let devices = async {
            match &mut self.devices {
                Some((_, watcher)) => watcher.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = self.changes.next() => if change.is_none() {
                std::future::pending::<()>().await;
            },
            () = devices => {}
        }
    }

    /// See [`neighbours::keep_in_use`].
    pub(super) async fn use_neighbours(&self, network: &Network) {
        if let Err(error) = neighbours::keep_in_use(&self.handle, network).await {
            warn!("neighbours are not asked for: {error}");
        }
    }

    /// What there is now.
    pub(super) async fn look(&self) -> anyhow::Result<Network> {
        let mut network = Network::default();
        let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
        // Before the interfaces: one that comes in between is not redirected to until its own message is there.
        let features = match &self.devices {
            Some((devices, _)) => devices.features().context("cannot ask what interfaces do at XDP")?,
            None => BTreeMap::new(),
        };
        let mut below = BTreeSet::new();
        let links: Vec<_> =
            self.handle.link().get().execute().try_collect().await.context("cannot list interfaces")?;
        for message in links {
            let ifindex = message.header.index;
            let loopback = message.header.flags.contains(LinkFlags::Loopback);
            let mut link = Link {
                ifindex,
                name: String::new(),
                physical: true,
                card: false,
                to_elsewhere: false,
                queue: false,
                mac: [0; 6],
                stacked: false,
                xdp: features.get(&ifindex).copied(),
            };
            let (mut veth, mut elsewhere, mut on_top, mut under) = (false, false, false, None);
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    // Devices made of software say of which kind they are.
                    LinkAttribute::LinkInfo(infos) => {
                        link.physical = !infos.iter().any(|info| matches!(info, LinkInfo::Kind(_)));
                        veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                        on_top = infos.iter().any(is_on_top);
                    }
                    // Left out where both ends are here.
                    LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                    LinkAttribute::Qdisc(name) => link.queue = name != "noqueue",
                    LinkAttribute::Link(index) => under = Some(index),
                    LinkAttribute::Controller(_) => link.stacked = true,
                    LinkAttribute::Address(bytes) => link.mac = bytes.try_into().unwrap_or_default(),
                    _ => {}
                }
            }
            link.to_elsewhere = veth && elsewhere;
            link.card = link.physical && is_card(&link.name);
            below.extend(under.filter(|_| on_top && !elsewhere));
            interfaces.insert(ifindex, Interface { name: link.name.clone(), addresses: Vec::new() });
            if !loopback {
                network.links.insert(ifindex, link);
            }
        }
        for link in network.links.values_mut() {
            link.stacked |= below.contains(&link.ifindex);
        }
        let addresses: Vec<_> =
            self.handle.address().get().execute().try_collect().await.context("cannot list addresses")?;
        for message in addresses {
            // IPv4: the local address; the other is the far end of a point-to-point link.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            if let (Some(address), Some(interface)) =
                (local.or(any), interfaces.get_mut(&message.header.index))
                && let Ok(net) = IpNet::new(address, message.header.prefix_len)
            {
                interface.addresses.push(net);
            }
        }
        for (family, route) in [
            (Family::V4, RouteMessageBuilder::<std::net::Ipv4Addr>::new().build()),
            (Family::V6, RouteMessageBuilder::<std::net::Ipv6Addr>::new().build()),
        ] {
            network.primary.extend(self.primary(family, route, &interfaces).await);
        }
        network.interfaces = interfaces.into_values().collect();
        Ok(network)
    }

    /// The address on the default route; a family without one has none.
    async fn primary(
        &self,
        family: Family,
        route: RouteMessage,
        interfaces: &BTreeMap<u32, Interface>,
    ) -> Option<IpAddr> {
        let routes: Vec<RouteMessage> = self.handle.route().get(route).execute().try_collect().await.ok()?;
        let wanted = if family == Family::V4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let default = routes.iter().find(|route| {
            route.header.address_family == wanted
                && route.header.destination_prefix_length == 0
                && route.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(_)))
        })?;
        let preferred = default.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(netlink_packet_route::route::RouteAddress::Inet(a)) => {
                Some(IpAddr::V4(*a))
            }
            RouteAttribute::PrefSource(netlink_packet_route::route::RouteAddress::Inet6(a)) => {
                Some(IpAddr::V6(*a))
            }
            _ => None,
        });
        let oif = default.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })?;
        preferred.or_else(|| {
            let addresses = interfaces.get(&oif)?.addresses.iter().map(IpNet::addr);
            addresses
                .filter(|address| Family::of(*address) == family)
                .find(|address| crate::model::addresses::is_global(*address))
        })
    }
}

/// Whether a device with a driver of its own is one to whose packets checksums come complete: Xen's pass on between virtual
/// machines what a socket has left unfinished, also at XDP.
fn is_card(name: &str) -> bool {
    Ethtool::open().and_then(|ethtool| ethtool.driver(name)).is_ok_and(|driver| driver != "vif")
}

/// Whether devices of this kind take packets of the one they are on, in its place.
const fn is_on_top(info: &LinkInfo) -> bool {
    matches!(
        info,
        LinkInfo::Kind(
            InfoKind::Vlan
                | InfoKind::MacVlan
                | InfoKind::MacVtap
                | InfoKind::IpVlan
                | InfoKind::IpVtap
                | InfoKind::MacSec
        )
    )
}
