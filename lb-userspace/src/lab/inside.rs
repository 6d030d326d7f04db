//! What runs inside pods: their processes, and what people run there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::dns;
use super::error::{Context, Result};
use super::labs::{Lab, NODE, OUTSIDE, is_client};
use super::netns::Namespace;
use super::pods::Template;
use super::process::{self, Process};
use super::state::Pod;

/// How long a pod's server may take until its ports are open.
const PATIENCE: Duration = Duration::from_secs(20);

impl Lab {
    /// Starts what runs in a new pod, and waits until its server is ready.
    ///
    /// # Errors
    /// When something does not start.
    pub(super) fn start_processes(&self, pod: &Pod, namespace: &Namespace) -> Result<Vec<Process>> {
        let directory = self.places().pod_directory(&pod.netns);
        fs::create_dir_all(&directory).context("create", directory.display())?;
        write_hosts(&directory, pod)?;
        if !self.state().dns_addresses.is_empty() {
            dns::write_resolv_conf(&directory, &self.state().dns_addresses, &pod.template.namespace)?;
        }
        let mut processes = Vec::new();
        if is_client(&pod.template) && pod.template.containers.is_empty() {
            return Ok(processes);
        }
        if pod.template.has_server() {
            let log = directory.join("server.log");
            let ready = directory.join("ready");
            let mut command = self.command(namespace, pod, &self.state().program)?;
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
    fn command(&self, namespace: &Namespace, pod: &Pod, program: impl AsRef<OsStr>) -> Result<Command> {
        let directory = self.places().pod_directory(&pod.netns);
        let files: Vec<(PathBuf, PathBuf)> = ["resolv.conf", "hosts"]
            .into_iter()
            .map(|name| (directory.join(name), Path::new("/etc").join(name)))
            .filter(|(own, target)| own.exists() && target.exists())
            .collect();
        let mut command = namespace.command_with_files(program, &files)?;
        command.env("HOSTNAME", &pod.name);
        Ok(command)
    }

    /// A command inside a pod, the node or the host outside. It finds the lab and what its agent has pinned by its
    /// environment, and this program by `PATH`.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn exec(&self, target: &str, program: &str) -> Result<Command> {
        let mut command = match target {
            NODE => Namespace::open(&self.places().node_netns())?.command(program)?,
            OUTSIDE => Namespace::open(&self.places().outside_netns())?.command(program)?,
            _ => {
                let pod = self.pod(target)?;
                self.command(&Namespace::open(&pod.netns)?, pod, program)?
            }
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(self.state().program.parent().map(Path::to_owned));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        command.env("LB_LAB", &self.state().name).env("LB_PIN_DIR", self.places().pins());
        Ok(command)
    }
}

/// Puts the lab's server in place of programs that this machine does not have. Returns notes for people.
pub(super) fn replace_missing_commands(template: &mut Template) -> Vec<String> {
    let mut notes = Vec::new();
    for container in &mut template.containers {
        let Some(program) = container.command.first() else { continue };
        let found = if program.contains('/') {
            Path::new(program).exists()
        } else {
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join(program).is_file())
        };
        if !found {
            notes.push(format!(
                "{} {}: container {}: its command {program} is not on this machine, and the lab runs no images: the lab's \
                 server runs instead",
                template.kind, template.name, container.name
            ));
            container.command.clear();
        }
    }
    notes
}

fn write_hosts(directory: &Path, pod: &Pod) -> Result<()> {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for address in &pod.addresses {
        text.push_str(&format!("{address} {}\n", pod.name));
    }
    let path = directory.join("hosts");
    fs::write(&path, text).context("write", path.display())
}
