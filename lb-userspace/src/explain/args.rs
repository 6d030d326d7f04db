//! The command line of `lb explain`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use ipnet::IpNet;

use crate::maps::DEFAULT_PIN_DIR;
use crate::model::args::ModelArgs;

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

    /// The node, the cluster, and how Services are served.
    #[command(flatten)]
    pub model: ModelArgs,

    /// An address of the node, with a prefix length if it matters. May be given several times; the first of each family
    /// is the one on the default route. When left out, those of the Node object
    #[arg(long, value_name = "ADDRESS", value_parser = parse_node_address)]
    pub node_address: Vec<IpNet>,

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
