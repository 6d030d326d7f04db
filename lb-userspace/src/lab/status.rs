//! How a lab is, for people and for machines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use ipnet::IpNet;
use serde::Serialize;

use super::labs::{Lab, UPLINK};

/// A lab. The field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub directory: PathBuf,
    /// The user's manifests.
    pub manifests: Vec<PathBuf>,
    /// Ranges of pod addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of ClusterIPs.
    pub service_cidrs: Vec<IpNet>,
    /// Ranges of load balancer addresses.
    pub load_balancer_pool: Vec<IpNet>,
    /// Addresses of DNS.
    pub dns_addresses: Vec<IpAddr>,
    /// The host outside of the cluster.
    pub outside: OutsideStatus,
    /// The node.
    pub node: NodeStatus,
    /// The agent.
    pub agent: AgentStatus,
    /// The pods.
    pub pods: Vec<PodStatus>,
}

/// The node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Name, as Kubernetes would know it.
    pub name: String,
    /// Network namespace.
    pub netns: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

/// The host outside of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutsideStatus {
    /// Network namespace.
    pub netns: String,
    /// The node's end of the wire to it.
    pub interface: &'static str,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

/// The agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentStatus {
    /// `running`, `dead`, or `none` when the lab was made without one.
    pub state: &'static str,
    /// Its process id.
    pub pid: Option<i32>,
    /// How it attaches; `None` = left to the agent.
    pub hook: Option<String>,
    /// Its log.
    pub log: PathBuf,
    /// Its pin directory.
    pub pin_dir: PathBuf,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodStatus {
    /// Name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// What it belongs to, as in `Deployment/backend`.
    pub owner: String,
    /// Network namespace.
    pub netns: String,
    /// The node's end of its veth pair.
    pub interface: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Processes started in it.
    pub processes: Vec<ProcessStatus>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessStatus {
    /// Name of the container, or `server`.
    pub role: String,
    /// Process id.
    pub pid: i32,
    /// Whether it runs.
    pub alive: bool,
}

impl Status {
    /// How the lab is now.
    pub fn of(lab: &Lab) -> Self {
        let (state, places) = (lab.state(), lab.places());
        let pods = state.pods.iter().map(|pod| PodStatus {
            name: pod.name.clone(),
            namespace: pod.template.namespace.clone(),
            owner: format!("{}/{}", pod.template.kind, pod.template.name),
            netns: pod.netns.clone(),
            interface: pod.interface.clone(),
            addresses: pod.addresses.clone(),
            labels: pod.template.pod_labels(&pod.name),
            processes: pod
                .processes
                .iter()
                .map(|process| ProcessStatus {
                    role: process.role.clone(),
                    pid: process.pid,
                    alive: process.is_alive(),
                })
                .collect(),
        });
        Self {
            name: state.name.clone(),
            directory: places.directory().to_owned(),
            manifests: state.manifests.clone(),
            pod_cidrs: state.pod_cidrs.clone(),
            service_cidrs: state.service_cidrs.clone(),
            load_balancer_pool: state.load_balancer_pool.clone(),
            dns_addresses: state.dns_addresses.clone(),
            outside: OutsideStatus {
                netns: places.outside_netns(),
                interface: UPLINK,
                addresses: state.outside_addresses.clone(),
            },
            node: NodeStatus {
                name: state.node.clone(),
                netns: places.node_netns(),
                addresses: state.node_addresses.clone(),
            },
            agent: AgentStatus {
                state: match &state.agent {
                    None => "none",
                    Some(agent) if agent.is_alive() => "running",
                    Some(_) => "dead",
                },
                pid: state.agent.as_ref().map(|agent| agent.pid),
                hook: state.hook.clone(),
                log: places.agent_log(),
                pin_dir: places.pins(),
            },
            pods: pods.collect(),
        }
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_header([
            "POD",
            "NAMESPACE",
            "ADDRESS",
            "INTERFACE",
            "PROCESS",
            "LABELS",
        ]);
        for pod in &self.pods {
            let processes: Vec<String> = pod.processes.iter().map(ProcessStatus::text).collect();
            let labels: Vec<String> =
                pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            table.add_row([
                pod.name.clone(),
                pod.namespace.clone(),
                join(&pod.addresses),
                pod.interface.clone(),
                if processes.is_empty() { "-".to_owned() } else { processes.join(",") },
                labels.join(","),
            ]);
        }
        let rows: Vec<String> = table.to_string().lines().map(|line| line.trim().to_owned()).collect();
        format!("{}\n{}\n", self.picture(), rows.join("\n"))
    }

    /// Who is wired to whom, and where addresses come from.
    fn picture(&self) -> String {
        let agent = match (self.agent.state, self.agent.pid) {
            ("none", _) | (_, None) => "none".to_owned(),
            (state, Some(pid)) => format!("{state}, pid {pid}, log {}", self.agent.log.display()),
        };
        let parts = [
            ("ClusterIPs", join(&self.service_cidrs)),
            ("load balancers", join(&self.load_balancer_pool)),
            ("DNS", join(&self.dns_addresses)),
        ];
        let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
        let services: String = parts.map(|(what, text)| format!("\n   |     {what} {text}")).collect();
        let (outside, node) = (join(&self.outside.addresses), join(&self.node.addresses));
        let interface = self.outside.interface;
        let pods = join(&self.pod_cidrs);
        format!(
            "lab {}\n\n\
             outside  {outside}\n   |     {interface}\n\
             node     {node}\n   |     agent: {agent}{services}\n   |     veth…\n\
             pods     {pods}\n",
            self.name
        )
    }
}

impl ProcessStatus {
    fn text(&self) -> String {
        format!("{} {}", self.role, if self.alive { self.pid.to_string() } else { "dead".to_owned() })
    }
}

fn join(addresses: &[impl ToString]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
