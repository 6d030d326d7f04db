//! A lab as a whole: up, kill, down.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::error::{Context, Error, Result};
use super::inside::replace_missing_commands;
use super::netns::Namespace;
use super::pods::{Template, node_object};
use super::process;
use super::remove::{kill_inside, remove_all};
use super::state::{Places, Pod, State};
use super::topology::Node;
use super::{agent, dns, manifest, ranges};

/// Name of the pod that nothing runs in, to send requests from.
pub const CLIENT: &str = "client";
/// What the node is called among the pods.
pub const NODE: &str = "node";
/// What the host outside of the cluster is called among the pods.
pub const OUTSIDE: &str = "outside";
/// The node's end of the wire to the host outside.
pub(super) const UPLINK: &str = "uplink";

/// What a new lab shall be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// The `lb` program.
    pub program: PathBuf,
    /// Files and folders of manifests.
    pub manifests: Vec<PathBuf>,
    /// Ranges of pod addresses, at most one for each family; a family without one is left out.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of ClusterIPs.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses of the node.
    pub node_addresses: Vec<IpAddr>,
    /// Addresses of the host outside of the cluster.
    pub outside_addresses: Vec<IpAddr>,
    /// Ranges that Services of type LoadBalancer have their addresses from.
    pub load_balancer_pool: Vec<IpNet>,
    /// Addresses of DNS; none = the usual ones.
    pub dns_addresses: Vec<IpAddr>,
    /// How the agent attaches; `None` leaves it to the agent.
    pub hook: Option<String>,
    /// Who forwards; `None` leaves it to the agent.
    pub forwarding: Option<String>,
    /// Whether to start the agent.
    pub agent: bool,
    /// Run the lab's server in place of containers' commands.
    pub ignore_commands: bool,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    places: Places,
    state: State,
}

impl Lab {
    /// Makes a lab. Returns it with notes for people.
    ///
    /// # Errors
    /// When the name is taken, the manifests or ranges make no sense, or something does not come up. Whatever was made
    /// until then is removed again.
    pub fn up(options: &Options) -> Result<(Self, Vec<String>)> {
        require_root()?;
        let places = Places::of(&options.name)?;
        ranges::check(options)?;
        let mut state = State::new(&options.name, options.program.clone());
        for path in &options.manifests {
            state.manifests.push(fs::canonicalize(path).context("read", path.display())?);
        }
        let mut wanted = manifest::read(&state.manifests)?;
        if options.ignore_commands {
            for container in wanted.workloads.iter_mut().flat_map(|(template, _)| &mut template.containers) {
                container.command.clear();
                container.args.clear();
            }
        }
        for (template, _) in &mut wanted.workloads {
            wanted.notes.extend(replace_missing_commands(template));
            check_name(template)?;
        }
        if !wanted.workloads.iter().any(|(template, _)| is_client(template)) {
            wanted.workloads.push((client_template(), 1));
        }
        state.pod_cidrs.clone_from(&options.pod_cidrs);
        state.service_cidrs.clone_from(&options.service_cidrs);
        let in_use =
            |address: IpAddr| options.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv4() == address.is_ipv4());
        let addresses = |all: &[IpAddr]| all.iter().copied().filter(|&address| in_use(address)).collect();
        state.node_addresses = addresses(&options.node_addresses);
        state.outside_addresses = addresses(&options.outside_addresses);
        state.load_balancer_pool =
            options.load_balancer_pool.iter().copied().filter(|range| in_use(range.addr())).collect();
        if options.agent {
            let ranges: Vec<IpNet> =
                options.service_cidrs.iter().copied().filter(|range| in_use(range.addr())).collect();
            state.dns_addresses = dns::addresses(&options.dns_addresses, &ranges, &wanted.objects)?;
        }
        state.hook.clone_from(&options.hook);
        state.forwarding.clone_from(&options.forwarding);
        if !Namespace::names(&places.netns_prefix())?.is_empty() {
            return Err(places.exists());
        }
        places.create()?;
        let _lock = places.lock()?;
        let mut lab = Self { places, state };
        match lab.build(&wanted.workloads, options.agent) {
            Ok(()) => Ok((lab, wanted.notes)),
            Err(error) => {
                if let Err(second) = remove_all(&lab.places) {
                    eprintln!("lb: while removing what was made: {:#}", anyhow::Error::from(second));
                }
                Err(error)
            }
        }
    }

    /// The lab of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Self> {
        require_root()?;
        let places = Places::of(name)?;
        let state = places.load()?;
        Ok(Self { places, state })
    }

    /// Its state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its places.
    pub fn places(&self) -> &Places {
        &self.places
    }

    fn build(&mut self, workloads: &[(Template, u32)], with_agent: bool) -> Result<()> {
        let node = Node::create(&self.places.node_netns(), &self.state.node_addresses)?
            .for_native_xdp(self.state.native_xdp())
            .with_finished_checksums(self.state.redirects());
        node.add_pod(&self.places.outside_netns(), UPLINK, &self.state.outside_addresses)?;
        let object = node_object(&self.state.node, &self.state.node_addresses, &self.state.pod_cidrs);
        self.places.write(&self.places.manifests().join("node.json"), &object)?;
        if !self.state.dns_addresses.is_empty() {
            self.places.write(&self.places.manifests().join("dns.json"), &dns::object(&self.state))?;
        }
        for (template, replicas) in workloads {
            for ordinal in 0..*replicas {
                self.add_pod(&node, template, ordinal)?;
            }
        }
        if with_agent {
            self.state.agent = Some(agent::start(node.namespace(), &self.places, &self.state)?);
        }
        self.places.save(&self.state)
    }

    /// Makes a pod, and tells the agent about it once it serves.
    fn add_pod(&mut self, node: &Node, template: &Template, ordinal: u32) -> Result<usize> {
        let used: BTreeSet<IpAddr> =
            self.state.pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
        let (sequence, addresses) = ranges::allocate(&self.state.pod_cidrs, &used, self.state.sequence)?;
        self.state.sequence = sequence + 1;
        // Five letters leave 14 million names: among hundreds of pods two may be the same now and then.
        let taken = |netns: &String| self.state.pods.iter().any(|pod| pod.netns == *netns);
        let (name, netns) = (0..)
            .map(|retry: u64| {
                let name = template.pod_name(&self.state.name, ordinal, sequence.wrapping_add(retry << 32));
                let netns = self.places.pod_netns(&template.namespace, &name);
                (name, netns)
            })
            .find(|(_, netns)| template.name_is_fixed() || !taken(netns))
            .unwrap_or_default();
        let interface = format!("veth{sequence}");
        let namespace = node.add_pod(&netns, &interface, &addresses)?;
        let index = self.state.pods.len();
        self.state.pods.push(Pod {
            name,
            ordinal,
            netns,
            interface,
            addresses,
            template: template.clone(),
            processes: Vec::new(),
        });
        // From here on `kill` and `status` know it, even if this command dies.
        self.places.save(&self.state)?;
        let processes = self.start_processes(&self.state.pods[index], &namespace)?;
        self.state.pods[index].processes = processes;
        self.places.save(&self.state)?;
        let pod = &self.state.pods[index];
        let object = template.pod_object(
            &pod.name,
            &self.state.node,
            self.state.node_addresses.first().copied(),
            &pod.addresses,
        );
        self.places.write(&self.places.pod_manifest(&template.namespace, &pod.name), &object)?;
        Ok(index)
    }

    /// Kills a pod; a new one with another address takes its place, as a ReplicaSet would have it. Returns the names of
    /// both.
    ///
    /// As in a cluster, its endpoint goes with the kill, and the endpoint of the new one comes when it serves. With
    /// `grace`, its processes are asked to end first, and have that long. Without, they are killed at once.
    ///
    /// # Errors
    /// When there is no such pod, or the new one does not come up.
    pub fn kill(name: &str, target: &str, grace: Duration) -> Result<(String, String)> {
        require_root()?;
        let places = Places::of(name)?;
        let _lock = places.lock()?;
        let mut lab = Self::open(name)?;
        if target == NODE || target == OUTSIDE {
            return Err(Error::invalid(
                target,
                "is no pod and cannot be killed; `lb lab down` removes the lab",
            ));
        }
        let wanted = lab.pod(target)?.netns.clone();
        let node = Node::open(&lab.places.node_netns())?
            .for_native_xdp(lab.state.native_xdp())
            .with_finished_checksums(lab.state.redirects());
        let position = lab.state.pods.iter().position(|pod| pod.netns == wanted).unwrap_or_default();
        let old = lab.state.pods.remove(position);
        remove_file(&lab.places.pod_manifest(&old.template.namespace, &old.name))?;
        if !grace.is_zero() {
            for process in &old.processes {
                process::terminate(process, grace)?;
            }
        }
        match Namespace::open(&old.netns) {
            Ok(namespace) => kill_inside(&namespace)?,
            // Somebody removed it by hand; the pod comes back all the same.
            Err(Error::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        node.remove_pod(&old.netns, &old.interface)?;
        let directory = lab.places.pod_directory(&old.netns);
        fs::remove_dir_all(&directory).or_else(ignore_missing).context("remove", directory.display())?;
        lab.places.save(&lab.state)?;
        let index = lab.add_pod(&node, &old.template, old.ordinal)?;
        // Where the old one stood, so that tables keep their order.
        let new = lab.state.pods.remove(index);
        let new_name = new.name.clone();
        lab.state.pods.insert(position, new);
        lab.places.save(&lab.state)?;
        Ok((old.name, new_name))
    }

    /// Removes a lab, found by name alone, so also what a crash left of it. Returns what was removed, for people; empty
    /// when there was nothing.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn down(name: &str) -> Result<Vec<String>> {
        require_root()?;
        let places = Places::of(name)?;
        let _lock = match places.lock() {
            Ok(lock) => Some(lock),
            Err(Error::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        remove_all(&places)
    }
}

fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::invalid("this command", "needs root, to make network namespaces; try it with sudo"))
}

/// The namespaces of pods are named after them.
fn check_name(template: &Template) -> Result<()> {
    if template.name_is_fixed()
        && template.namespace == "default"
        && [NODE, OUTSIDE].contains(&&*template.name)
    {
        return Err(Error::invalid(
            format!("{} {}", template.kind, template.name),
            "has a name that the lab itself uses; another name or namespace is wanted",
        ));
    }
    Ok(())
}

pub(super) fn is_client(template: &Template) -> bool {
    template.kind == "Pod" && template.namespace == "default" && template.name == CLIENT
}

fn client_template() -> Template {
    Template {
        kind: "Pod".to_owned(),
        name: CLIENT.to_owned(),
        namespace: "default".to_owned(),
        labels: [("lab".to_owned(), CLIENT.to_owned())].into(),
        ..Template::default()
    }
}

fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).or_else(ignore_missing).context("remove", path.display())
}

pub(super) fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
