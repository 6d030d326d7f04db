//! Neighbours that packets are redirected to at XDP, past the kernel's neighbour code.
//!
//! The kernel asks a neighbour whether it is still there while its own packets go there. A redirected packet takes the hardware
//! address as it was last known: a neighbour that has changed it without a word would be sent to the old one for ever.

use futures_util::TryStreamExt;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState};
use rtnetlink::Handle;

use super::devices;
use super::network::Network;

/// Has the kernel ask neighbours that it has not heard of for a while (`NTF_USE`), as a packet of its own would. Who does not
/// answer is forgotten, and the next packet is left to the host, which looks for it anew.
pub(super) async fn keep_in_use(handle: &Handle, network: &Network) -> Result<(), rtnetlink::Error> {
    let neighbours: Vec<_> = handle.neighbours().get().execute().try_collect().await?;
    for neighbour in neighbours {
        let ifindex = neighbour.header.ifindex;
        if neighbour.header.state != NeighbourState::Stale
            || !network.links.get(&ifindex).is_some_and(devices::may_be_given)
        {
            continue;
        }
        let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        });
        if let Some(address) = address {
            let request = handle.neighbours().add(ifindex, address).state(NeighbourState::Stale);
            request.flags(NeighbourFlags::Use).replace().execute().await?;
        }
    }
    Ok(())
}
