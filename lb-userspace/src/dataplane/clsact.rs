//! What is attached at clsact (kernels before 6.6): filters, which are no links and have no pins. The kernel is asked.

use std::io;

use futures_util::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use rtnetlink::Handle;

use super::pins::LinkKind;
use super::{DataplaneError, Hook};

/// A filter of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What it is for.
    pub kind: LinkKind,
    /// Number of its program in the kernel.
    pub program_id: u32,
}

/// Our filters on these interfaces of the current network namespace, with the index of each. It blocks: not for asynchronous code.
///
/// # Errors
/// [`DataplaneError::Filters`] when the kernel refuses.
pub fn filters(interfaces: &[u32]) -> Result<Vec<(u32, Filter)>, DataplaneError> {
    ask(interfaces).map_err(|source| DataplaneError::Filters { source })
}

fn ask(interfaces: &[u32]) -> io::Result<Vec<(u32, Filter)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let mut found = Vec::new();
        for ifindex in interfaces {
            for filter in on(&handle, *ifindex).await? {
                found.push((*ifindex, filter));
            }
        }
        connection.abort();
        Ok(found)
    })
}

async fn on(handle: &Handle, ifindex: u32) -> io::Result<Vec<Filter>> {
    let of = || handle.traffic_filter(ifindex.cast_signed()).get();
    let mut messages = Vec::new();
    for request in [of().ingress(), of().egress()] {
        match request.execute().try_collect::<Vec<_>>().await {
            Ok(more) => messages.extend(more),
            // The interface has gone, or has no clsact.
            Err(rtnetlink::Error::NetlinkError(message)) if is_absence(&message.to_io()) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(messages.iter().filter_map(ours).collect())
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP))
}

/// What a filter is for, by the name of its program.
fn ours(message: &TcMessage) -> Option<Filter> {
    let mut filter = (None, 0);
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    for option in options.flatten() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.0 = kind(name),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.1 = *id,
            _ => {}
        }
    }
    Some(Filter { kind: filter.0?, program_id: filter.1 })
}

fn kind(program: &str) -> Option<LinkKind> {
    Some(match program {
        "lb_tc_ingress" => LinkKind::Ingress(Hook::Clsact),
        "lb_tc_egress" => LinkKind::Egress(Hook::Clsact),
        "lb_tc_answer" => LinkKind::Answer(Hook::Clsact),
        _ => return None,
    })
}
