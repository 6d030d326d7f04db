//! A lab as a whole: up, kill, down.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;

use super::error::{Context, Error, Result};
use super::netns::Namespace;
use super::pods::{Template, node_object};
use super::process::{self, Process};
use super::state::{Places, Pod, State};
use super::topology::Node;
use super::{agent, manifest, ranges};

/// How long a pod's server may take until its ports are open.
const PATIENCE: Duration = Duration::from_secs(20);
/// Name of the pod that nothing runs in, to send requests from.
pub const CLIENT: &str = "client";
/// What the node is called among the pods.
pub const NODE: &str = "node";

/// What a new lab shall be like.
#[derive(Clone, Debug, PartialEq)]
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
    /// How the agent attaches; `None` leaves it to the agent.
    pub hook: Option<String>,
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
        ranges::check(&options.pod_cidrs, &options.service_cidrs, &options.node_addresses)?;
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
        for (template, _) in &wanted.workloads {
            check_commands(template)?;
        }
        if !wanted.workloads.iter().any(|(template, _)| is_client(template)) {
            wanted.workloads.push((client_template(), 1));
        }
        state.pod_cidrs.clone_from(&options.pod_cidrs);
        state.service_cidrs.clone_from(&options.service_cidrs);
        let in_use =
            |address: &&IpAddr| state.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv4() == address.is_ipv4());
        state.node_addresses = options.node_addresses.iter().filter(in_use).copied().collect();
        state.hook.clone_from(&options.hook);
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
        let node = Node::create(&self.places.node_netns(), &self.state.node_addresses)?;
        let object = node_object(&self.state.node, &self.state.node_addresses, &self.state.pod_cidrs);
        self.places.write(&self.places.manifests().join("node.json"), &object)?;
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

    fn start_processes(&self, pod: &Pod, namespace: &Namespace) -> Result<Vec<Process>> {
        let directory = self.places.pod_directory(&pod.netns);
        fs::create_dir_all(&directory).context("create", directory.display())?;
        write_hosts(&directory, pod)?;
        let mut processes = Vec::new();
        if is_client(&pod.template) && pod.template.containers.is_empty() {
            return Ok(processes);
        }
        if pod.template.has_server() {
            let log = directory.join("server.log");
            let ready = directory.join("ready");
            let mut command = self.command(namespace, pod, &self.state.program)?;
            command.args(["lab", "serve", "--pod", &pod.name, "--namespace", &pod.template.namespace]);
            for (protocol, option) in [("TCP", "--tcp"), ("UDP", "--udp")] {
                for port in pod.template.served_ports(protocol) {
                    command.args([option, &port.to_string()]);
                }
            }
            command.arg("--ready-file").arg(&ready);
            let mut child = process::start(command, &log)?;
            let what = format!("the server of pod {}", pod.name);
            process::wait_ready(&what, &mut child, &ready, &log, PATIENCE)?;
            processes.push(Process::of("server", child.id().cast_signed())?);
        }
        for container in &pod.template.containers {
            let Some((program, arguments)) = container.command.split_first() else { continue };
            let mut command = self.command(namespace, pod, program)?;
            command.args(arguments).args(&container.args).envs(&container.env);
            let child = process::start(command, &directory.join(format!("{}.log", container.name)))?;
            processes.push(Process::of(&container.name, child.id().cast_signed())?);
        }
        Ok(processes)
    }

    /// A command inside a pod, with the pod's own `/etc/resolv.conf` and `/etc/hosts`.
    fn command(
        &self,
        namespace: &Namespace,
        pod: &Pod,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> Result<Command> {
        let directory = self.places.pod_directory(&pod.netns);
        let files: Vec<(PathBuf, PathBuf)> = ["resolv.conf", "hosts"]
            .into_iter()
            .map(|name| (directory.join(name), Path::new("/etc").join(name)))
            .filter(|(own, target)| own.exists() && target.exists())
            .collect();
        let mut command = namespace.command_with_files(program, &files)?;
        command.env("HOSTNAME", &pod.name).env("LB_LAB", &self.state.name);
        Ok(command)
    }

    /// The pod that `text` means: its name, `namespace/name`, or the unambiguous beginning of either.
    ///
    /// # Errors
    /// When it means none, or more than one.
    pub fn pod(&self, text: &str) -> Result<&Pod> {
        let full = |pod: &Pod| format!("{}/{}", pod.template.namespace, pod.name);
        let matching = |test: &dyn Fn(&Pod) -> bool| -> Vec<&Pod> {
            self.state.pods.iter().filter(|pod| test(pod)).collect()
        };
        let mut found = matching(&|pod| pod.name == text || full(pod) == text);
        if found.is_empty() {
            found = matching(&|pod| pod.name.starts_with(text) || full(pod).starts_with(text));
        }
        match found.as_slice() {
            [pod] => Ok(pod),
            [] => Err(Error::Missing {
                object: format!("pod {text} in the lab {}", self.state.name),
                hint: format!("there are {}", self.names(&self.state.pods.iter().collect::<Vec<_>>())),
            }),
            several => Err(Error::invalid(
                format!("pod {text}"),
                format!("may be any of {}; give more of the name", self.names(several)),
            )),
        }
    }

    fn names(&self, pods: &[&Pod]) -> String {
        let namespaces: BTreeSet<&str> = pods.iter().map(|pod| pod.template.namespace.as_str()).collect();
        let name = |pod: &&Pod| match namespaces.len() {
            0 | 1 => pod.name.clone(),
            _ => format!("{}/{}", pod.template.namespace, pod.name),
        };
        let names: Vec<String> = pods.iter().map(name).collect();
        names.join(", ")
    }

    /// A command inside a pod or the node.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn exec(&self, target: &str, program: &str) -> Result<Command> {
        if target == NODE {
            return Namespace::open(&self.places.node_netns())?.command(program);
        }
        let pod = self.pod(target)?;
        self.command(&Namespace::open(&pod.netns)?, pod, program)
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
        if target == NODE {
            return Err(Error::invalid("node", "cannot be killed; `lb lab down` removes the lab"));
        }
        let wanted = lab.pod(target)?.netns.clone();
        let node = Node::open(&lab.places.node_netns())?;
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

fn remove_all(places: &Places) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in Namespace::names(&places.netns_prefix())? {
        match Namespace::open(&name) {
            Ok(namespace) => kill_inside(&namespace)?,
            Err(Error::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        Namespace::remove(&name)?;
        removed.push(format!("network namespace {name}"));
    }
    for directory in [places.pins(), places.directory().to_owned()] {
        match fs::remove_dir_all(&directory) {
            Ok(()) => removed.push(format!("directory {}", directory.display())),
            Err(error) => ignore_missing(error).context("remove", directory.display())?,
        }
    }
    Ok(removed)
}

/// Kills all processes of a namespace, also those that start meanwhile.
fn kill_inside(namespace: &Namespace) -> Result<()> {
    if namespace.is_own()? {
        return Err(Error::invalid(
            format!("network namespace {}", namespace.name()),
            "is the one this command runs in; run it from outside the lab",
        ));
    }
    // A process forks faster than it is found only if it means to; ten rounds are for those.
    for _ in 0..10 {
        let pids = namespace.processes()?;
        if pids.is_empty() {
            return Ok(());
        }
        process::kill_all(&pids)?;
    }
    Err(Error::NotReady {
        object: format!("network namespace {}", namespace.name()),
        reason: "has processes that come back faster than they are killed".to_owned(),
    })
}

fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::invalid("this command", "needs root, to make network namespaces; try it with sudo"))
}

/// A program that is not there would only show in a log.
fn check_commands(template: &Template) -> Result<()> {
    for container in &template.containers {
        let Some(program) = container.command.first() else { continue };
        let found = if program.contains('/') {
            Path::new(program).exists()
        } else {
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join(program).is_file())
        };
        if !found {
            return Err(Error::invalid(
                format!("{} {}, container {}", template.kind, template.name, container.name),
                format!(
                    "its command {program} is not on this machine, and the lab runs no images; \
                     `--ignore-commands` runs the lab's server instead"
                ),
            ));
        }
    }
    Ok(())
}

fn is_client(template: &Template) -> bool {
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

fn write_hosts(directory: &Path, pod: &Pod) -> Result<()> {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for address in &pod.addresses {
        text.push_str(&format!("{address} {}\n", pod.name));
    }
    let path = directory.join("hosts");
    fs::write(&path, text).context("write", path.display())
}

fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).or_else(ignore_missing).context("remove", path.display())
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
