//! The command line of `lb run`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use hickory_proto::rr::Name;
use lb_common::abi::{Config, WAYS, config_flag};
use lb_common::tables::Table;

use crate::dataplane::{HookChoice, Sizes};
use crate::dns;
use crate::forwarding::ForwardingChoice;
use crate::maps::DEFAULT_PIN_DIR;
use crate::model::args::{ModelArgs, parse_ports};
use crate::model::config::{Interface, ModelConfig};
use crate::model::desired::Protocol;
use crate::plan;
use crate::sockets::SocketArgs;

/// Run the agent.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Folder or file of Kubernetes YAML or JSON; watched. May be given several times: of two objects with one name the
    /// later counts
    #[arg(long, required = true, value_name = "DIR")]
    pub manifests: Vec<PathBuf>,

    /// Take Pods, Nodes and the endpoints of Services with selectors from this one of --manifests alone: those in the others
    /// are of another cluster
    #[arg(long, value_name = "DIR")]
    pub pods_from: Option<PathBuf>,

    /// Interface to attach to, by name or pattern (`veth*`); those that appear later are taken too. May be given several times
    #[arg(long, required = true, value_name = "NAME")]
    pub iface: Vec<String>,

    /// Interfaces (among those of --iface) that packets from outside the cluster come in by, by name or pattern
    #[arg(long, value_name = "NAME")]
    pub external_iface: Vec<String>,

    /// Where on an interface packets are met
    #[arg(long, value_enum, default_value_t)]
    pub hook: HookChoice,

    /// Who sends translated packets on: the host (kernel), or at tc the program, past the host's packet rules (direct)
    #[arg(long, value_enum, default_value_t)]
    pub forwarding: ForwardingChoice,

    /// The node, the cluster, and how Services are served.
    #[command(flatten)]
    pub model: ModelArgs,

    /// Source ports for masqueraded flows: so many to one backend at the same time. None that local sockets take by
    /// themselves (net.ipv4.ip_local_port_range), nor node ports
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_ports, default_value = "61000-65535")]
    pub masquerade_ports: RangeInclusive<u16>,

    /// Balancing at sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,

    /// Directory on a BPF file system for what outlives the agent
    #[arg(long, default_value = DEFAULT_PIN_DIR, env = "LB_PIN_DIR", value_name = "DIR")]
    pub pin_dir: PathBuf,

    /// File that remembers which addresses and node ports were given to Services
    #[arg(long, default_value = "/var/lib/lb/state.json", value_name = "FILE")]
    pub state_file: PathBuf,

    /// File to write the process id to once the first full synchronisation is in the kernel
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// Log every first packet from inside the kernel: for looking closely, not for keeps
    #[arg(long)]
    pub trace: bool,

    /// Address to answer /healthz, /readyz and /livez on; nothing is answered unless it is given
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub healthz: Option<SocketAddr>,

    /// Address of this node to answer DNS on, by UDP and TCP; port 53 unless given. May be given several times; nothing
    /// listens unless it is
    #[arg(long, value_name = "IP[:PORT]", value_parser = dns::parse_address)]
    pub dns_listen: Vec<SocketAddr>,

    /// Domain of the names of Services
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = dns::parse_domain)]
    pub cluster_domain: Name,

    /// DNS server to ask about names outside the cluster domain. May be given several times: the next is asked when one
    /// does not answer
    #[arg(long, value_name = "IP[:PORT]", value_parser = dns::parse_address)]
    pub dns_upstream: Vec<SocketAddr>,

    /// Seconds that answers about Services may be remembered
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=3600))]
    pub dns_ttl: u32,

    /// Seconds that a TCP or SCTP flow may be idle before it is established
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = idle_seconds())]
    pub timeout_opening: u32,
    /// Seconds that an established TCP or SCTP flow may be idle
    #[arg(long, value_name = "SECONDS", default_value_t = 8000, value_parser = idle_seconds())]
    pub timeout_established: u32,
    /// Seconds that a TCP or SCTP flow is remembered after it has ended
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = idle_seconds())]
    pub timeout_closing: u32,
    /// Seconds that a UDP flow may be idle before it is answered
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = idle_seconds())]
    pub timeout_udp: u32,
    /// Seconds that an answered UDP flow may be idle
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = idle_seconds())]
    pub timeout_udp_replied: u32,

    /// Entries of the frontend tables, for each family
    #[arg(long, value_name = "N")]
    pub max_frontends: Option<u32>,
    /// Entries of the slots table
    #[arg(long, value_name = "N")]
    pub max_slots: Option<u32>,
    /// Entries of the backends table
    #[arg(long, value_name = "N")]
    pub max_backends: Option<u32>,
    /// Entries of the services table
    #[arg(long, value_name = "N")]
    pub max_services: Option<u32>,
    /// Entries of the flow tables, two for each connection, for each family
    #[arg(long, value_name = "N")]
    pub max_flows: Option<u32>,
    /// Entries of the affinity table
    #[arg(long, value_name = "N")]
    pub max_affinity: Option<u32>,
    /// Entries of the source ranges table
    #[arg(long, value_name = "N")]
    pub max_source_ranges: Option<u32>,
    /// Entries of the address classes table
    #[arg(long, value_name = "N")]
    pub max_classes: Option<u32>,
    /// Entries of the sockets table: one for each connection, two for each frontend that an unconnected socket sends to
    #[arg(long, value_name = "N")]
    pub max_sockets: Option<u32>,
    /// Entries of the fragments table
    #[arg(long, value_name = "N")]
    pub max_fragments: Option<u32>,
}

/// At least a second, at most a week: the clock of flows wraps after 49 days at 1000 ticks a second.
fn idle_seconds() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=7 * 24 * 3600)
}

impl Args {
    /// What the planner is told.
    pub fn plan(&self) -> plan::Options {
        plan::Options::default().with_masquerade_ports(&self.masquerade_ports)
    }

    /// Sizes of the maps.
    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes::default();
        let mut set = |entries: Option<u32>, tables: &[Table]| {
            for table in tables {
                if let Some(entries) = entries {
                    sizes.set(*table, entries.max(1));
                }
            }
        };
        set(self.max_frontends, &[Table::FrontendsV4, Table::FrontendsV6]);
        set(self.max_frontends.map(|n| n.saturating_mul(2)), &[Table::Turns]);
        set(self.max_slots, &[Table::Slots]);
        set(self.max_backends, &[Table::Backends, Table::BackendStats, Table::OpenFlows]);
        set(self.max_services, &[Table::ServiceNames]);
        // Sets: a power of two, with room for as many at least.
        let sets = |flows: u32| flows.div_ceil(WAYS as u32).clamp(2, 1 << 26).next_power_of_two();
        set(self.max_flows.map(sets), &[Table::FlowsV4, Table::FlowsV6]);
        set(self.max_affinity, &[Table::Affinity]);
        set(self.max_source_ranges, &[Table::SourceRanges]);
        set(self.max_classes, &[Table::Classes]);
        set(self.max_fragments, &[Table::Fragments]);
        set(self.max_sockets, &[Table::Sockets]);
        sizes
    }

    /// Constants for the kernel programs, from those for this kernel (C2).
    pub fn config(&self, kernel: Config) -> Config {
        let ticks = |seconds: u32| seconds.saturating_mul(kernel.ticks_per_second);
        Config {
            lifetime_opening: ticks(self.timeout_opening),
            lifetime_established: ticks(self.timeout_established),
            lifetime_closing: ticks(self.timeout_closing),
            lifetime_udp: ticks(self.timeout_udp),
            lifetime_udp_replied: ticks(self.timeout_udp_replied),
            flags: kernel.flags | if self.trace { config_flag::TRACE } else { 0 },
            ..kernel
        }
    }

    /// What the DNS server is to be; none when it is not to listen.
    pub fn dns(&self) -> Option<dns::Settings> {
        (!self.dns_listen.is_empty()).then(|| dns::Settings {
            listen: self.dns_listen.clone(),
            upstreams: self.dns_upstream.clone(),
            attempt: dns::forward::ATTEMPT,
            zone: dns::ZoneConfig {
                domain: self.cluster_domain.clone(),
                ttl: self.dns_ttl,
                servers: Vec::new(),
            },
        })
    }

    /// What the model must know, on a node with these interfaces and primary addresses.
    pub fn model_config(&self, interfaces: Vec<Interface>, primary: Vec<IpAddr>) -> ModelConfig {
        let mut config = self.model.config(interfaces, primary);
        // Who watches the agent must not be taken for its death.
        config.protected_ports.extend(self.healthz.map(|address| (Protocol::Tcp, address.port())));
        config
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn config(options: &[&str]) -> Config {
        let line = ["lb", "--manifests", "x", "--iface", "y"].iter().chain(options);
        Command::try_parse_from(line).unwrap().args.config(Config::with_ticks_per_second(250))
    }

    #[test]
    fn c2_lifetimes_are_those_of_the_rule_unless_asked_otherwise() {
        assert_eq!(config(&[]), Config::with_ticks_per_second(250));
        let config = config(&["--timeout-udp", "7", "--timeout-established", "60"]);
        assert_eq!((config.lifetime_udp, config.lifetime_established), (7 * 250, 60 * 250));
    }

    #[test]
    fn c2_no_lifetime_of_zero() {
        let line = ["lb", "--manifests", "x", "--iface", "y", "--timeout-closing", "0"];
        assert!(Command::try_parse_from(line).is_err());
    }
}
