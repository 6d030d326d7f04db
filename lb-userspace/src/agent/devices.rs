//! Keeps the map of devices that packets may be redirected to at XDP. The kernel takes out what goes.

use std::collections::BTreeSet;

use lb_common::abi::DeviceEntry;
use lb_common::tables::Table;
use tracing::{debug, error};

use super::network::{Link, Network};
use crate::maps::{MapError, MapStore};

/// Brings the map up to date.
pub(super) fn keep(store: &mut dyn MapStore, network: &Network) {
    if let Err(error) = try_keep(store, network) {
        error!("{error}");
    }
}

fn try_keep(store: &mut dyn MapStore, network: &Network) -> Result<(), MapError> {
    let wanted: BTreeSet<u32> =
        network.links.values().filter(|link| may_be_given(link)).map(|link| link.ifindex).collect();
    let mut there = BTreeSet::new();
    store.scan(Table::Devices, &mut |key, _| there.extend(bytemuck::try_pod_read_unaligned::<u32>(key)))?;
    for ifindex in there.difference(&wanted) {
        store.delete(Table::Devices, bytemuck::bytes_of(ifindex))?;
    }
    for &ifindex in wanted.difference(&there) {
        let entry = DeviceEntry { ifindex, program: 0 };
        match store.update(Table::Devices, bytemuck::bytes_of(&ifindex), bytemuck::bytes_of(&entry)) {
            // It has gone meanwhile.
            Err(error) if error.errno() == Some(libc::EINVAL) => debug!("{error}"),
            other => other?,
        }
    }
    Ok(())
}

/// Whether packets may be redirected to it. They go past a queue. On devices made of software somebody has put it there.
pub(super) fn may_be_given(link: &Link) -> bool {
    link.xdp.is_some_and(|xdp| xdp.takes_redirects()) && (link.physical || !link.queue)
}
