//! Random little clusters: Services, slices and the node, small enough that names and addresses meet often.

use lb_tests::rows::net::Net;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Pods that may be backends: `Net::pod(1)` to `Net::pod(PODS)`.
pub(crate) const PODS: u8 = 5;
/// Addresses that the outside world may route here: `Net::public(1)` to `Net::public(PUBLIC)`.
pub(crate) const PUBLIC: u8 = 3;
/// Service ports that are dialled.
pub(crate) const PORTS: [u16; 3] = [53, 80, 443];
/// Most Services of a world.
pub(crate) const SERVICES: usize = 4;

/// A transport protocol, as the API writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Proto {
    Tcp,
    Udp,
    Sctp,
}

/// What is around the Services.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Around {
    pub(crate) masquerade_all: bool,
    pub(crate) external_cluster_ip: bool,
    pub(crate) vip_ping: bool,
    pub(crate) pods_known: bool,
    /// Node ports on both addresses of the node, not on the primary one alone.
    pub(crate) all_node_addresses: bool,
    /// The node is in zone `z1`, not in an unknown one.
    pub(crate) zone_known: bool,
}

/// What sort of Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sort {
    ClusterIp,
    NodePort,
    LoadBalancer,
    Headless,
    ExternalName,
    /// Another proxy's (F4).
    Foreign,
}

/// One of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Port {
    pub(crate) protocol: Proto,
    pub(crate) port: u16,
}

/// One of `status.loadBalancer.ingress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    Unset,
    Vip,
    Proxy,
}

/// Whose addresses a source range holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Range {
    Clients,
    Outside,
    Node,
}

/// Where an endpoint says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Here,
    There,
    Unset,
}

/// One of a slice's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) pod: u8,
    pub(crate) place: Place,
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
    /// A second address, which does not count (B2).
    pub(crate) second: bool,
    /// Its address is of the other family (B2).
    pub(crate) stray: bool,
}

/// One of a slice's ports: which one by its name, protocol, number.
pub(crate) type SlicePort = (usize, Proto, Option<u16>);

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slice {
    pub(crate) v6: bool,
    /// All ports of the Service, with this number, before those of its own.
    pub(crate) whole: Option<u16>,
    /// By name (`p0` to `p2`), protocol and number.
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Marked headless: not ours (F4).
    pub(crate) headless: bool,
    pub(crate) weight: Option<u8>,
}

/// Whom a pod's endpoints are meant for (B6): the same in all slices of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hints {
    pub(crate) zones: Vec<&'static str>,
    pub(crate) nodes: Vec<&'static str>,
}

/// A Service and its slices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) sort: Sort,
    /// Of IPv4, of IPv6.
    pub(crate) families: [bool; 2],
    pub(crate) ports: Vec<Port>,
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    pub(crate) affinity: bool,
    pub(crate) algorithm: &'static str,
    pub(crate) external_ips: Vec<u8>,
    pub(crate) ingress: Vec<(u8, Mode)>,
    pub(crate) ranges: Vec<(Range, Net)>,
    pub(crate) slices: Vec<Slice>,
    /// By pod.
    pub(crate) hints: Vec<Hints>,
}

impl Service {
    /// The ports of a slice, as it has them.
    pub(crate) fn slice_ports(&self, slice: &Slice) -> Vec<SlicePort> {
        let all = self.ports.iter().enumerate();
        let whole = slice
            .whole
            .into_iter()
            .flat_map(|number| all.clone().map(move |(index, port)| (index, port.protocol, Some(number))));
        whole.chain(slice.ports.iter().copied()).collect()
    }

    /// Name of a port; the only one has none.
    pub(crate) fn port_name(&self, index: usize) -> String {
        if self.ports.len() == 1 { String::new() } else { format!("p{index}") }
    }
}

/// The port of nodes for a Service's port.
pub(crate) fn node_port(service: usize, port: usize) -> u16 {
    30_000 + 10 * service as u16 + port as u16
}

/// The last byte of a Service's ClusterIPs.
pub(crate) fn vip(service: usize) -> u8 {
    10 + service as u8
}

/// One state: Services by number; some are gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) around: Around,
    pub(crate) services: Vec<Option<Service>>,
}

/// A state, and the one that follows.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) states: [World; 2],
    /// Which probes are sent.
    pub(crate) seed: u64,
}

fn around() -> impl Strategy<Value = Around> {
    let rare = || prop::bool::weighted(0.15);
    (rare(), prop::bool::weighted(0.4), rare(), rare(), any::<bool>(), any::<bool>()).prop_map(
        |(masquerade_all, external_cluster_ip, silent, pods_unknown, all_node_addresses, zone_known)| {
            Around {
                masquerade_all,
                external_cluster_ip,
                vip_ping: !silent,
                pods_known: !pods_unknown,
                all_node_addresses,
                zone_known,
            }
        },
    )
}

fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![4 => Just(Proto::Tcp), 3 => Just(Proto::Udp), 1 => Just(Proto::Sctp)]
}

fn condition() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![2 => Just(None), 2 => Just(Some(true)), 1 => Just(Some(false))]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let place = select(vec![Place::Here, Place::There, Place::Unset]);
    let odd = || prop::bool::weighted(0.05);
    let conditions = prop_oneof![
        3 => (condition(), condition(), condition()),
        2 => Just((Some(true), None, None)),
        // Serving until it is gone.
        2 => Just((Some(false), Some(true), Some(true))),
    ];
    (1..=PODS, place, conditions, odd(), odd()).prop_map(
        |(pod, place, (ready, serving, terminating), second, stray)| Endpoint {
            pod,
            place,
            ready,
            serving,
            terminating,
            second,
            stray,
        },
    )
}

fn slice() -> impl Strategy<Value = Slice> {
    let number = prop_oneof![8 => select(vec![Some(8080), Some(80)]), 1 => Just(None), 1 => Just(Some(0))];
    let whole = prop::option::weighted(0.75, select(vec![8080, 8080, 80]));
    let ports = prop::collection::vec((0..3_usize, proto(), number), 0..=2);
    let weight = prop::option::weighted(0.3, 1..=3_u8);
    let endpoints = prop::collection::vec(endpoint(), 0..=4);
    (any::<bool>(), whole, ports, endpoints, prop::bool::weighted(0.05), weight).prop_map(
        |(v6, whole, ports, endpoints, headless, weight)| Slice {
            v6,
            whole,
            ports,
            endpoints,
            headless,
            weight,
        },
    )
}

fn hints() -> impl Strategy<Value = Hints> {
    let some = prop_oneof![
        1 => Just((vec![], vec![])),
        4 => (subsequence(vec!["z1", "z2"], 0..=2), subsequence(vec!["here", "there"], 0..=2)),
    ];
    some.prop_map(|(zones, nodes)| Hints { zones, nodes })
}

fn service() -> impl Strategy<Value = Service> {
    let sort = prop_oneof![
        4 => Just(Sort::ClusterIp),
        4 => Just(Sort::NodePort),
        5 => Just(Sort::LoadBalancer),
        1 => Just(Sort::Headless),
        1 => Just(Sort::ExternalName),
        1 => Just(Sort::Foreign),
    ];
    let families = select(vec![[true, false], [false, true], [true, true], [true, true]]);
    let ports = prop::collection::vec((proto(), select(PORTS.to_vec())), 1..=3).prop_map(|ports| {
        let mut unique: Vec<Port> = Vec::new();
        for (protocol, port) in ports {
            let port = Port { protocol, port };
            if !unique.contains(&port) {
                unique.push(port);
            }
        }
        unique
    });
    let algorithm = select(vec!["", "round-robin", "random", "maglev", "least-connections", "weighted"]);
    let public = || 1..=PUBLIC;
    let external_ips = prop::collection::vec(public(), 0..=2);
    let mode = select(vec![Mode::Unset, Mode::Vip, Mode::Proxy]);
    let ingress = prop::collection::vec((public(), mode), 0..=2);
    let range = (select(vec![Range::Clients, Range::Outside, Range::Node]), select(Net::BOTH.to_vec()));
    let ranges = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(range, 1..=3)];
    let no_hints = Just(vec![Hints { zones: vec![], nodes: vec![] }; PODS as usize]);
    let hints = prop_oneof![1 => no_hints, 1 => prop::collection::vec(hints(), PODS as usize)];
    let policy = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.3), algorithm);
    let outside = (external_ips, ingress, ranges);
    (sort, families, ports, policy, outside, prop::collection::vec(slice(), 0..=6), hints).prop_map(
        |(sort, families, ports, policy, (external_ips, ingress, ranges), slices, hints)| Service {
            sort,
            families,
            ports,
            internal_local: policy.0,
            external_local: policy.1,
            affinity: policy.2,
            algorithm: policy.3,
            external_ips,
            ingress,
            ranges,
            slices,
            hints,
        },
    )
}

/// What becomes of a Service in the second state.
#[derive(Clone, Debug)]
enum Change {
    None,
    Gone,
    Slices(Vec<Slice>),
    Other(Box<Service>),
}

/// Cases.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    let change = prop_oneof![
        2 => Just(Change::None),
        1 => Just(Change::Gone),
        3 => prop::collection::vec(slice(), 0..=4).prop_map(Change::Slices),
        2 => service().prop_map(|service| Change::Other(Box::new(service))),
    ];
    let services = prop::collection::vec((prop::option::weighted(0.9, service()), change), 1..=SERVICES);
    (around(), services, any::<u64>().no_shrink()).prop_map(|(around, services, seed)| {
        let first = services.iter().map(|(service, _)| service.clone()).collect();
        let second = services
            .into_iter()
            .map(|(service, change)| match change {
                Change::None => service,
                Change::Gone => None,
                Change::Slices(slices) => service.map(|service| Service { slices, ..service }),
                Change::Other(other) => Some(*other),
            })
            .collect();
        let states = [World { around: around.clone(), services: first }, World { around, services: second }];
        Case { states, seed }
    })
}
