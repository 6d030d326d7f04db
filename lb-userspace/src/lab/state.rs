//! What the lab remembers of itself, in a folder of its own below /run.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::error::{Context, Error, Result};
use super::pods::Template;
use super::process::Process;

/// Folder of all labs.
const DIRECTORY: &str = "/run/lb/lab";
/// Longest name of a lab, in bytes; enough to tell labs apart, short enough for tables.
const NAME_MAX: usize = 20;
/// Format of state.json.
const VERSION: u32 = 1;

/// The whole state of a lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Format.
    pub version: u32,
    /// Name of the lab.
    pub name: String,
    /// The `lb` program that serves in pods and is the agent.
    pub program: PathBuf,
    /// The user's manifests.
    pub manifests: Vec<PathBuf>,
    /// Ranges that pods have their addresses from, at most one for each family.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of ClusterIPs.
    pub service_cidrs: Vec<IpNet>,
    /// Name of the node, as Kubernetes would know it.
    pub node: String,
    /// The node's addresses.
    pub node_addresses: Vec<IpAddr>,
    /// Addresses of the host outside.
    #[serde(default)]
    pub outside_addresses: Vec<IpAddr>,
    /// Ranges of load balancer addresses.
    #[serde(default)]
    pub load_balancer_pool: Vec<IpNet>,
    /// Addresses of the Service that is DNS; none = no DNS.
    #[serde(default)]
    pub dns_addresses: Vec<IpAddr>,
    /// How the agent attaches.
    pub hook: Option<String>,
    /// Who forwards.
    #[serde(default)]
    pub forwarding: Option<String>,
    /// The agent.
    pub agent: Option<Process>,
    /// Pods made so far, also those that are gone: the source of addresses, interface names and pod names.
    pub sequence: u64,
    /// Pods that are there.
    pub pods: Vec<Pod>,
}

/// A pod that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its place among the replicas, from 0.
    pub ordinal: u32,
    /// Its network namespace.
    pub netns: String,
    /// The node's end of its veth pair.
    pub interface: String,
    /// Its addresses, at most one for each family.
    pub addresses: Vec<IpAddr>,
    /// What it is made from.
    pub template: Template,
    /// Processes started in it.
    pub processes: Vec<Process>,
}

impl State {
    /// The state of a lab with nothing in it yet.
    pub fn new(name: &str, program: PathBuf) -> Self {
        Self {
            version: VERSION,
            name: name.to_owned(),
            program,
            manifests: Vec::new(),
            pod_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node: "lab-node".to_owned(),
            node_addresses: Vec::new(),
            outside_addresses: Vec::new(),
            load_balancer_pool: Vec::new(),
            dns_addresses: Vec::new(),
            hook: None,
            forwarding: None,
            agent: None,
            sequence: 0,
            pods: Vec::new(),
        }
    }

    /// Whether the agent redirects packets at native XDP.
    pub fn redirects(&self) -> bool {
        self.native_xdp() && self.forwarding.as_deref() == Some("direct")
    }

    /// Whether the agent attaches by native XDP. `auto` does not on veth pairs.
    pub fn native_xdp(&self) -> bool {
        self.hook.as_deref() == Some("xdp")
    }
}

/// Places of one lab, all found from its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    name: String,
    directory: PathBuf,
}

impl Places {
    /// Those of the lab of this name.
    ///
    /// # Errors
    /// When the name is not one to 20 of a–z and 0–9. A hyphen would make it unclear which lab a namespace belongs
    /// to, and `down` cleans by name.
    pub fn of(name: &str) -> Result<Self> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(good) {
            return Err(Error::invalid(
                format!("lab name {name:?}"),
                format!("must be 1 to {NAME_MAX} of a-z and 0-9"),
            ));
        }
        Ok(Self { name: name.to_owned(), directory: Path::new(DIRECTORY).join(name) })
    }

    /// The lab's folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the names of all its network namespaces begin with.
    pub fn netns_prefix(&self) -> String {
        format!("lb-{}-", self.name)
    }

    /// Network namespace of the node.
    pub fn node_netns(&self) -> String {
        format!("{}node", self.netns_prefix())
    }

    /// Network namespace of the host outside.
    pub fn outside_netns(&self) -> String {
        format!("{}outside", self.netns_prefix())
    }

    /// Network namespace of a pod.
    pub fn pod_netns(&self, namespace: &str, pod: &str) -> String {
        match namespace {
            "default" => format!("{}{pod}", self.netns_prefix()),
            // A Kubernetes name has no underscore: no clash with another pod.
            _ => format!("{}{namespace}_{pod}", self.netns_prefix()),
        }
    }

    /// Folder of the objects that the lab adds to the user's.
    pub fn manifests(&self) -> PathBuf {
        self.directory.join("manifests")
    }

    /// The object of a pod.
    pub fn pod_manifest(&self, namespace: &str, pod: &str) -> PathBuf {
        self.manifests().join(format!("pod-{namespace}_{pod}.json"))
    }

    /// Folder of a pod: its logs, and its `resolv.conf` and `hosts` if it has any.
    pub fn pod_directory(&self, netns: &str) -> PathBuf {
        self.directory.join("pods").join(netns)
    }

    /// Log of the agent.
    pub fn agent_log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// File that the agent makes when the first full sync is in the kernel.
    pub fn agent_ready(&self) -> PathBuf {
        self.directory.join("agent.ready")
    }

    /// State file of the agent.
    pub fn agent_state(&self) -> PathBuf {
        self.directory.join("agent-state.json")
    }

    /// Pin directory of the agent.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(format!("lb-lab-{}", self.name))
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// Makes the folders of a new lab, readable by root alone.
    ///
    /// # Errors
    /// [`Error::Exists`] when the lab is there already.
    pub fn create(&self) -> Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(DIRECTORY).context("create", DIRECTORY)?;
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(self.exists()),
            other => other.context("create", self.directory.display())?,
        }
        for folder in [self.manifests(), self.directory.join("pods")] {
            builder.create(&folder).context("create", folder.display())?;
        }
        Ok(())
    }

    /// The error for a name that is taken.
    pub fn exists(&self) -> Error {
        Error::Exists {
            object: format!("the lab {}", self.name),
            hint: format!("`lb lab down --name {}` removes it, also what a crash left of it", self.name),
        }
    }

    /// Keeps other commands from changing the lab until the returned value is dropped.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such lab.
    pub fn lock(&self) -> Result<Flock<File>> {
        let directory = match File::open(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing()),
            other => other.context("open", self.directory.display())?,
        };
        Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .context("lock", self.directory.display())
    }

    fn missing(&self) -> Error {
        Error::Missing {
            object: format!("lab {}", self.name),
            hint: format!("`lb lab up -f DIR --name {}` makes it", self.name),
        }
    }

    /// Reads the state.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such lab; when the file is damaged.
    pub fn load(&self) -> Result<State> {
        let path = self.state();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let crashed = self.directory.exists();
                return Err(if crashed {
                    Error::Missing {
                        object: format!("state of the lab {}", self.name),
                        hint: format!(
                            "it is being made, or a crash left it: `lb lab down --name {}` removes it",
                            self.name
                        ),
                    }
                } else {
                    self.missing()
                });
            }
            other => other.context("read", path.display())?,
        };
        let state: State = serde_json::from_str(&text)
            .map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))?;
        if state.version != VERSION {
            return Err(Error::invalid(
                path.display().to_string(),
                format!("is of format {}, this program knows {VERSION}", state.version),
            ));
        }
        Ok(state)
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, state: &State) -> Result<()> {
        self.write(&self.state(), state)
    }

    /// Writes a JSON file in one step: readers see the old contents or the new.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, path: &Path, contents: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(contents)
            .map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))?;
        text.push(b'\n');
        // Not beside the target: whoever watches its folder shall not see this one.
        let draft = self.directory.join(".draft");
        fs::write(&draft, text).context("write", draft.display())?;
        fs::rename(&draft, path).context("write", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_hide_another_lab_are_refused() {
        for name in ["", "a-b", "A", "../a", "a_b", "123456789012345678901"] {
            assert!(matches!(Places::of(name), Err(Error::Invalid { .. })), "{name:?}");
        }
        let places = Places::of("a1").unwrap();
        assert_eq!(places.pod_netns("default", "x"), "lb-a1-x");
        assert_eq!(places.pod_netns("shop", "x"), "lb-a1-shop_x");
    }
}
