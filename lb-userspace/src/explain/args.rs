//! The command line of `lb explain`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use ipnet::IpNet;

use crate::agent::args::{ExternalClusterIp, NodePortAddress, Switch, parse_nodeport_addresses, parse_ports};
use crate::maps::DEFAULT_PIN_DIR;
use crate::model::allocate::Ranges;
use crate::model::config::{Interface, ModelConfig, NodePortAddresses};
use crate::model::desired::Algorithm;

/// Say what happens to the first packet of a connection, and why.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Who sends: an address or the name of a pod, with `:PORT` if it matters
    #[arg(value_name = "FROM[:PORT]")]
    pub from: String,

    /// What is dialled: an address or the name of a Service (`NAME` or `NAMESPACE/NAME`), the number or name of a port,
    /// and TCP (the default), UDP or SCTP; or ADDRESS/ICMP for a ping
    #[arg(value_name = "TO:PORT/PROTOCOL")]
    pub to: String,

    /// Folder or file of Kubernetes YAML or JSON. May be given several times: of two objects with one name the later
    /// counts
    #[arg(long, required = true, value_name = "DIR")]
    pub manifests: Vec<PathBuf>,

    /// Take Pods, Nodes and the endpoints of Services with selectors from this one of --manifests alone: those in the others
    /// are of another cluster
    #[arg(long, value_name = "DIR")]
    pub pods_from: Option<PathBuf>,

    /// The packet comes in by an interface that packets from outside the cluster come in by
    #[arg(long)]
    pub external: bool,

    /// A TCP packet from the middle of a connection (ACK) of which nothing is known
    #[arg(long)]
    pub mid_flow: bool,

    /// Cut the packet off behind so many bytes, Ethernet header included
    #[arg(long, value_name = "BYTES")]
    pub cut: Option<usize>,

    /// Name of the node that meets the packet, as Pods and EndpointSlices call it
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub node_name: String,

    /// An address of that node, with a prefix length if it matters. May be given several times; the first of each family
    /// is the one on the default route. When left out, those of the Node object
    #[arg(long, value_name = "ADDRESS", value_parser = parse_node_address)]
    pub node_address: Vec<IpNet>,

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

    /// File in which the agent remembers addresses and node ports it gave; it is only read
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,

    /// Give the packet to the kernel's programs as well, without changing their state, and say whether they agree;
    /// needs root, and exits with 1 when they do not
    #[arg(long)]
    pub live: bool,

    /// The agent's directory on a BPF file system, for --live
    #[arg(long, default_value = DEFAULT_PIN_DIR, env = "LB_PIN_DIR", value_name = "DIR")]
    pub pin_dir: PathBuf,

    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Formats of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For machines; field names are stable
    Json,
}

fn parse_node_address(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    address.ok_or_else(|| "an address such as 192.168.1.5 or 192.168.1.5/24 is wanted".to_owned())
}

impl Args {
    /// What there is to give to Services.
    pub(super) fn ranges(&self) -> Ranges {
        Ranges {
            service_cidrs: self.service_cidr.clone(),
            load_balancer_pool: self.load_balancer_pool.clone(),
            node_ports: self.service_node_port_range.clone(),
        }
    }

    /// What the model must know on a node with these interfaces, and these addresses on its default routes.
    pub(super) fn model_config(&self, interfaces: Vec<Interface>, primary: Vec<IpAddr>) -> ModelConfig {
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
