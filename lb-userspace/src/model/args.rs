//! Options from which the model follows: the agent's, and those of whoever asks what an agent would do.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::allocate::{DEFAULT_NODE_PORTS, Ranges};
use super::config::{Interface, ModelConfig, NodePortAddresses};
use super::desired::Algorithm;

/// The node, the cluster's addresses, and how Services are served.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// Name of the node, as Pods and EndpointSlices call it
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub node_name: String,

    /// Range that Services without a clusterIP get one from; one for each family
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    pub service_cidr: Vec<IpNet>,

    /// Range that pods have their addresses from; tells clients in the cluster from those outside
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Vec<IpNet>,

    /// Range that Services of type NodePort get their ports from
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_ports, default_value = "30000-32767")]
    pub service_node_port_range: RangeInclusive<u16>,

    /// Range that Services of type LoadBalancer get an address from when nobody else gave one; one for each family
    #[arg(long, value_name = "CIDR")]
    pub load_balancer_pool: Vec<IpNet>,

    /// Addresses of the node that serve node ports: `primary` (the one on the default route) or ranges
    #[arg(long, value_name = "CIDR", default_value = "primary", value_parser = parse_nodeport_addresses)]
    pub nodeport_addresses: Vec<NodePortAddress>,

    /// What to do with packets from outside to a ClusterIP
    #[arg(long, value_enum, default_value_t)]
    pub external_cluster_ip: ExternalClusterIp,

    /// Answer ping to ClusterIPs
    #[arg(long, value_enum, default_value_t)]
    pub vip_ping: Switch,

    /// Make the node the source of everything sent to a ClusterIP
    #[arg(long)]
    pub masquerade_all: bool,

    /// How backends are chosen, unless a Service says otherwise with the annotation `lb.io/algorithm`
    #[arg(long, value_enum, default_value_t)]
    pub algorithm: Algorithm,
}

/// One of `--nodeport-addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    /// The address on the default route.
    Primary,
    /// A range.
    Range(IpNet),
}

/// `--external-cluster-ip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExternalClusterIp {
    /// Drop them: a ClusterIP is for the cluster (F9).
    #[default]
    Drop,
    /// Balance them, as kube-proxy does.
    Allow,
}

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    #[default]
    On,
    /// No.
    Off,
}

/// `FIRST-LAST`.
pub(crate) fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text.split_once('-').and_then(|(first, last)| {
        let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
        (*range.start() > 0 && !range.is_empty()).then_some(range)
    });
    range.ok_or_else(|| {
        let default = format!("{}-{}", DEFAULT_NODE_PORTS.start(), DEFAULT_NODE_PORTS.end());
        format!("two ports between 1 and 65535 are wanted, the smaller first, as in {default}")
    })
}

fn parse_nodeport_addresses(text: &str) -> Result<NodePortAddress, String> {
    if text == "primary" {
        return Ok(NodePortAddress::Primary);
    }
    text.parse()
        .map(NodePortAddress::Range)
        .map_err(|_| "`primary` or a range such as 192.168.0.0/24 is wanted".to_owned())
}

impl ModelArgs {
    /// What there is to give to Services.
    pub fn ranges(&self) -> Ranges {
        Ranges {
            service_cidrs: self.service_cidr.clone(),
            load_balancer_pool: self.load_balancer_pool.clone(),
            node_ports: self.service_node_port_range.clone(),
        }
    }

    /// What the model must know, on a node with these interfaces, and these addresses on its default routes.
    pub fn config(&self, interfaces: Vec<Interface>, primary: Vec<IpAddr>) -> ModelConfig {
        let ranges: Vec<IpNet> = self
            .nodeport_addresses
            .iter()
            .filter_map(|address| match address {
                NodePortAddress::Range(range) => Some(*range),
                NodePortAddress::Primary => None,
            })
            .collect();
        ModelConfig {
            node_name: self.node_name.clone(),
            interfaces,
            primary,
            nodeport_addresses: if ranges.is_empty() {
                NodePortAddresses::Primary
            } else {
                NodePortAddresses::Ranges(ranges)
            },
            service_cidrs: self.service_cidr.clone(),
            pod_cidrs: self.pod_cidr.clone(),
            masquerade_all: self.masquerade_all,
            allow_external_cluster_ip: self.external_cluster_ip == ExternalClusterIp::Allow,
            vip_ping: self.vip_ping == Switch::On,
            algorithm: self.algorithm,
            ..ModelConfig::default()
        }
    }
}
