//! A client pod, a node and a server pod, each a network namespace, joined by veth pairs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::Context;
use lb_tests::cgroup::{self, TestCgroup};
use lb_userspace::lab::link::Netlink;
use lb_userspace::lab::netns::Namespace;
use lb_userspace::lab::topology::{Node, POD_INTERFACE};
use lb_userspace::sockets::cgroup::mounts;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::contender::Contender;
use super::server::Server;
use crate::agent;
use crate::manifests::POD_PORT;

/// What names of namespaces and folders of pins begin with; then follow the process and a number.
const PREFIX: &str = "lb-bench-";
/// The pods' addresses.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
/// The server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 3);
/// The node.
const NODE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
/// The node's ends of the wires.
const INTERFACES: [&str; 2] = ["veth-c", "veth-s"];

/// The three, gone when dropped.
#[derive(Debug)]
pub(crate) struct Stage {
    name: String,
    node: Node,
    client: Option<Namespace>,
    folder: TempDir,
    server: Option<Server>,
    cgroup: Option<TestCgroup>,
}

impl Stage {
    /// Makes the namespaces, with this MTU everywhere and wired as the contender wants, and starts the server.
    pub(crate) fn new(number: usize, mtu: u32, contender: Contender) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let folder = folder()?;
        let node = Node::create(&node_name(&name), &[IpAddr::V4(NODE)])?
            .for_native_xdp(contender.native_xdp())
            .with_finished_checksums(contender.finished_checksums());
        let mut stage = Self { client: None, name, node, folder, server: None, cgroup: None };
        stage.client = Some(stage.add_pod(INTERFACES[0], CLIENT, mtu)?);
        let server = stage.add_pod(INTERFACES[1], SERVER, mtu)?;
        stage.server = Some(Server::start(&server, SocketAddrV4::new(SERVER, POD_PORT))?);
        // Connections that end leave their ports in use for a minute; so many are made that there would be none left.
        stage.client()?.run(|| {
            sysctl("ipv4/ip_local_port_range", "1024 65535")?;
            sysctl("ipv4/tcp_tw_reuse", "1")
        })??;
        Ok(stage)
    }

    fn add_pod(&self, interface: &str, address: Ipv4Addr, mtu: u32) -> anyhow::Result<Namespace> {
        let pod = self.node.add_pod(&pod_name(&self.name, interface), interface, &[address.into()])?;
        let netlink = self.node.netlink();
        netlink.set_mtu(netlink.link(interface)?.index, mtu)?;
        let inside = Netlink::of(&pod)?;
        inside.set_mtu(inside.link(POD_INTERFACE)?.index, mtu)?;
        Ok(pod)
    }

    /// The node.
    pub(crate) fn node(&self) -> &Namespace {
        self.node.namespace()
    }

    /// The client.
    pub(crate) fn client(&self) -> anyhow::Result<&Namespace> {
        self.client.as_ref().context("the stage has no client")
    }

    /// Makes a cgroup, in which the client's threads are from now on.
    pub(crate) fn make_cgroup(&mut self) -> &Path {
        self.cgroup.insert(TestCgroup::new(&self.name)).path()
    }

    /// Makes the calling thread one of the client's.
    pub(crate) fn enter_client(&self) -> anyhow::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.enter().context("enter the client's cgroup")?;
        }
        Ok(self.client()?.enter()?)
    }

    /// The server.
    pub(crate) fn server(&self) -> anyhow::Result<&Server> {
        self.server.as_ref().context("the stage has no server")
    }

    /// A folder for files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A name for an agent's pins.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn remove(&mut self) -> anyhow::Result<()> {
        drop(self.server.take());
        for interface in INTERFACES {
            self.node.remove_pod(&pod_name(&self.name, interface), interface)?;
        }
        Ok(Namespace::remove(&node_name(&self.name))?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("lb-bench: cannot clean up: {error:#}");
        }
    }
}

/// A folder that a later run removes if this one is killed.
pub(crate) fn folder() -> anyhow::Result<TempDir> {
    TempDir::with_prefix(format!("{PREFIX}{}-", std::process::id())).context("make a folder")
}

fn node_name(stage: &str) -> String {
    format!("{stage}-node")
}

fn pod_name(stage: &str, interface: &str) -> String {
    format!("{stage}-{interface}")
}

/// Writes a sysctl of the network namespace that this thread is in.
pub(crate) fn sysctl(name: &str, value: &str) -> anyhow::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).with_context(|| format!("write {value} to {path}"))
}

/// Removes what a run that was killed has left.
pub(crate) fn sweep() -> anyhow::Result<()> {
    let left = |name: &str| {
        let pid: Option<u32> =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    for name in Namespace::names(PREFIX)?.iter().filter(|name| left(name)) {
        for agent in Namespace::open(name)?.processes()? {
            kill(Pid::from_raw(agent), Signal::SIGKILL)?;
        }
        Namespace::remove(name)?;
    }
    let mut places = vec![
        (PathBuf::from("/sys/fs/bpf"), agent::detach as fn(&Path) -> anyhow::Result<()>),
        (std::env::temp_dir(), |path| fs::remove_dir_all(path).context("remove a folder")),
    ];
    for mount in mounts().context("list mounts")? {
        places.push((cgroup::own(&mount), |path| fs::remove_dir(path).context("remove a cgroup")));
    }
    for (folder, remove) in places {
        let entries = folder.read_dir().with_context(|| format!("read {}", folder.display()))?;
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(left) {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}
