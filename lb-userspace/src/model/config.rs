//! What the model must know besides the objects.

use std::net::IpAddr;

use ipnet::IpNet;

use super::desired::{Algorithm, Family, Protocol};

/// A network interface of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses, with the prefix of their networks.
    pub addresses: Vec<IpNet>,
}

/// Which addresses of this node serve node ports (`--nodeport-addresses`, F6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The address on the default route, for each family.
    #[default]
    Primary,
    /// The addresses inside these ranges; a family without a range of its own has all of its addresses in.
    Ranges(Vec<IpNet>),
}

/// Settings and surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// Name of this node; empty = nothing is local, unless pods name no node and there are no Node objects.
    pub node_name: String,
    /// Zone of this node, when its Node object shall not tell (B6).
    pub zone: Option<String>,
    /// Interfaces of this node, in order.
    pub interfaces: Vec<Interface>,
    /// Addresses of this node on its default routes, at most one for each family: the sources of masqueraded packets.
    pub primary: Vec<IpAddr>,
    /// Which addresses serve node ports.
    pub nodeport_addresses: NodePortAddresses,
    /// Node ports on 127.0.0.1 as well. kube-proxy's iptables mode has it, F6 has not: off.
    pub localhost_nodeports: bool,
    /// Ranges that ClusterIPs are taken from.
    pub service_cidrs: Vec<IpNet>,
    /// Ranges that pods have their addresses from; when empty, those of the Node objects.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether node hints count (B6).
    pub node_hints: bool,
    /// Masquerade everything (`--masquerade-all`).
    pub masquerade_all: bool,
    /// Let clients from outside dial ClusterIPs (`--external-cluster-ip=allow`, F9).
    pub allow_external_cluster_ip: bool,
    /// Answer ICMP echo to ClusterIPs (V5).
    pub vip_ping: bool,
    /// How backends are chosen, unless a Service says otherwise (S2).
    pub algorithm: Algorithm,
    /// Ports that no frontend on an address of this node may take (F8).
    pub protected_ports: Vec<(Protocol, u16)>,
}

/// The port of secure shell: who loses it is locked out.
const SSH: (Protocol, u16) = (Protocol::Tcp, 22);

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            zone: None,
            interfaces: Vec::new(),
            primary: Vec::new(),
            nodeport_addresses: NodePortAddresses::default(),
            localhost_nodeports: false,
            service_cidrs: Vec::new(),
            pod_cidrs: Vec::new(),
            node_hints: true,
            masquerade_all: false,
            allow_external_cluster_ip: false,
            vip_ping: true,
            algorithm: Algorithm::default(),
            protected_ports: vec![SSH],
        }
    }
}

/// Families of ranges, in the order in which they come first.
pub fn families_of(ranges: &[IpNet]) -> Vec<Family> {
    let mut families = Vec::new();
    for family in ranges.iter().map(|range| Family::of(range.addr())) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    families
}

impl ModelConfig {
    /// All addresses of this node, in order, without duplicates.
    pub fn node_addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<_> =
            self.interfaces.iter().flat_map(|i| i.addresses.iter().map(IpNet::addr)).collect();
        addresses.extend(&self.primary);
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The address on the default route; without one the first that is good for it.
    pub fn primary(&self, family: Family) -> Option<IpAddr> {
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        self.primary.iter().copied().find(of_family).or_else(|| {
            let addresses = self.interfaces.iter().flat_map(|i| i.addresses.iter().map(IpNet::addr));
            addresses.filter(of_family).find(|address| super::addresses::is_global(*address))
        })
    }

    /// The service ranges of one family.
    pub fn service_cidrs(&self, family: Family) -> Vec<IpNet> {
        self.service_cidrs.iter().copied().filter(|range| Family::of(range.addr()) == family).collect()
    }
}
