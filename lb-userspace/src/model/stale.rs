//! Which flows must be forgotten when endpoints change (C4).

use std::net::IpAddr;

use super::desired::Protocol;
use super::endpoints::EndpointsMap;
use super::services::ServiceMap;

/// A flow as it was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFlow {
    /// Protocol.
    pub protocol: Protocol,
    /// The address the client dialled; `None`: some address of this node.
    pub frontend: Option<IpAddr>,
    /// The port the client dialled.
    pub port: u16,
    /// Who answers.
    pub backend: IpAddr,
}

/// True for a UDP flow through a frontend we know to a backend that does not serve (any more): only serving counts, not
/// readiness, termination or policies. TCP is left to its ends, and flows that are not through our frontends to others.
pub fn is_stale(services: &ServiceMap, endpoints: &EndpointsMap, flow: KnownFlow) -> bool {
    if flow.protocol != Protocol::Udp {
        return false;
    }
    let by_address = services.iter().find(|(name, info)| {
        name.protocol == flow.protocol
            && info.port == flow.port
            && flow.frontend.is_some_and(|address| {
                info.cluster_ip == address
                    || info.external_ips.contains(&address)
                    || info.lb_vips.contains(&address)
            })
    });
    let by_node_port = || {
        services.iter().find(|(name, info)| {
            name.protocol == flow.protocol
                && info.node_port == flow.port
                && name.family == super::desired::Family::of(flow.backend)
        })
    };
    let Some((name, _)) = by_address.or_else(by_node_port) else { return false };
    let list = endpoints.get(name).map_or(&[][..], Vec::as_slice);
    !list.iter().any(|endpoint| endpoint.backend.serving && endpoint.backend.addr == flow.backend)
}
