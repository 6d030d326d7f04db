//! Links, addresses, routes and neighbours through rtnetlink, one call at a time.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::runtime::Runtime;

use super::error::{Context, Error, Result};
use super::netns::Namespace;

/// Longest interface name: IFNAMSIZ of Linux less the final zero.
pub const NAME_MAX: usize = 15;

/// Hardware address of an Ethernet interface.
pub type Mac = [u8; 6];

/// What a link looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Hardware address; `None` for links without one.
    pub mac: Option<Mac>,
    /// Whether it is administratively up.
    pub up: bool,
}

/// A netlink socket of one network namespace.
///
/// It blocks: do not use it from asynchronous code.
pub struct Netlink {
    runtime: Runtime,
    handle: Handle,
    place: String,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Netlink {
    /// A socket of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses to enter it or to make the socket.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        namespace.run(|| Self::open(namespace.name()))?
    }

    /// A socket of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// When the kernel refuses to make it.
    pub fn here() -> Result<Self> {
        Self::open("this network namespace")
    }

    fn open(place: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("start a netlink client for", place)?;
        let handle = {
            let _guard = runtime.enter();
            let (connection, handle, _) =
                rtnetlink::new_connection().context("open a netlink socket in", place)?;
            runtime.spawn(connection);
            handle
        };
        Ok(Self { runtime, handle, place: place.to_owned() })
    }

    fn wait<T>(
        &self,
        operation: &'static str,
        object: impl std::fmt::Display,
        request: impl Future<Output = std::result::Result<T, rtnetlink::Error>>,
    ) -> Result<T> {
        self.runtime
            .block_on(request)
            .map_err(into_io)
            .context(operation, format!("{object} in {}", self.place))
    }

    /// The link of this name.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none.
    pub fn link(&self, name: &str) -> Result<Link> {
        self.find_link(name)?.ok_or_else(|| Error::Missing {
            object: format!("interface {name} in {}", self.place),
            hint: "it may have gone with its peer".to_owned(),
        })
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn find_link(&self, name: &str) -> Result<Option<Link>> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match self.runtime.block_on(links.try_next()).map_err(into_io) {
            Ok(message) => Ok(message.map(|message| describe(&message))),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(error).context("look up", format!("interface {name} in {}", self.place)),
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn links(&self) -> Result<Vec<Link>> {
        let links = self.handle.link().get().execute();
        let messages: Vec<LinkMessage> = self.wait("list", "interfaces", links.try_collect())?;
        Ok(messages.iter().map(describe).collect())
    }

    /// Makes a veth pair: `name` here, `peer` in the namespace `there`. Both stay down.
    ///
    /// # Errors
    /// When a name is too long or taken.
    pub fn add_veth(&self, name: &str, peer: &str, there: &Namespace) -> Result<()> {
        check_name(name)?;
        check_name(peer)?;
        let descriptor = there.descriptor()?;
        let peer =
            LinkMessageBuilder::<LinkUnspec>::new().name(peer).setns_by_fd(descriptor.as_raw_fd()).build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.wait("create", format_args!("interface {name}"), self.handle.link().add(message).execute())
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.wait("set up", format_args!("interface {index}"), self.handle.link().change(message).execute())
    }

    /// Moves a link into another namespace, where it has this name and is down. Its addresses and routes are gone then.
    ///
    /// # Errors
    /// When the name is too long or taken there, or the kernel refuses: devices made of software may have to stay.
    pub fn move_link(&self, index: u32, to: BorrowedFd<'_>, name: &str) -> Result<()> {
        check_name(name)?;
        let message = LinkUnspec::new_with_index(index).name(name).setns_by_fd(to.as_raw_fd()).build();
        self.wait("move", format_args!("interface {index}"), self.handle.link().change(message).execute())
    }

    /// Sets the MTU of a link, in bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        let request = self.handle.link().change(message).execute();
        self.wait("set the MTU of", format_args!("interface {index}"), request)
    }

    /// Removes a link, and with it its peer, addresses, routes and neighbours.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_link(&self, index: u32) -> Result<()> {
        self.wait("remove", format_args!("interface {index}"), self.handle.link().del(index).execute())
    }

    /// Gives a link an address of full length (/32 or /128), usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_address(&self, index: u32, address: IpAddr) -> Result<()> {
        let mut request = self.handle.address().add(index, address, full_length(address));
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        self.wait("add address", address, request.execute())
    }

    /// Routes one address to a link, on which it is a neighbour.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_host_route(&self, index: u32, address: IpAddr) -> Result<()> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, full_length(address))
            .map_err(|error| Error::invalid(address.to_string(), error.to_string()))?
            .output_interface(index)
            .build();
        self.wait("add route to", address, self.handle.route().add(route).execute())
    }

    /// Routes everything of the gateway's family through it, whether or not it is on a connected subnet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_default_route(&self, index: u32, gateway: IpAddr) -> Result<()> {
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .onlink()
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .onlink()
                .build(),
        };
        self.wait("add default route via", gateway, self.handle.route().add(message).execute())
    }

    /// Tells a link for good at which hardware address a neighbour is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac).replace();
        self.wait("add neighbour", address, request.execute())
    }
}

fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::invalid(
            format!("interface name {name:?}"),
            format!("must have 1 to {NAME_MAX} bytes"),
        ));
    }
    Ok(())
}

fn describe(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().ok(),
            _ => {}
        }
    }
    link
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
