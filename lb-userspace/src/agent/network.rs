//! Interfaces, addresses and default routes of the network namespace the agent runs in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};

use crate::model::config::Interface;
use crate::model::desired::Family;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) name: String,
    pub(super) physical: bool,
    /// A veth whose other end is in another network namespace.
    pub(super) to_elsewhere: bool,
    /// Packets going out wait in a queue, perhaps one that limits them.
    pub(super) queue: bool,
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
        Ok(Self { handle, changes: messages.map(|_| ()).boxed() })
    }

    /// Waits until something has changed. Never returns once the kernel is silent for good.
    pub(super) async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// What there is now.
    pub(super) async fn look(&self) -> anyhow::Result<Network> {
        let mut network = Network::default();
        let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
        let links: Vec<_> =
            self.handle.link().get().execute().try_collect().await.context("cannot list interfaces")?;
        for message in links {
            let ifindex = message.header.index;
            let loopback = message.header.flags.contains(LinkFlags::Loopback);
            let mut link =
                Link { ifindex, name: String::new(), physical: true, to_elsewhere: false, queue: false };
            let (mut veth, mut elsewhere) = (false, false);
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    // Devices made of software say of which kind they are.
                    LinkAttribute::LinkInfo(infos) => {
                        link.physical = !infos.iter().any(|info| matches!(info, LinkInfo::Kind(_)));
                        veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                    }
                    // Left out where both ends are here.
                    LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                    LinkAttribute::Qdisc(name) => link.queue = name != "noqueue",
                    _ => {}
                }
            }
            link.to_elsewhere = veth && elsewhere;
            interfaces.insert(ifindex, Interface { name: link.name.clone(), addresses: Vec::new() });
            if !loopback {
                network.links.insert(ifindex, link);
            }
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
