//! The subcommands of `lb lab`.

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::explain;
use super::forward;
use super::labs::{Lab, Options};
use super::server;
use super::status::Status;

/// Arguments of `lb lab`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands of `lb lab`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a node, a pod for each replica in the manifests, a client and a host outside; start the agent
    Up(Up),
    /// Run a command inside a pod, the client, the node or the host outside
    Exec(Exec),
    /// Kill a pod; another one with another address takes its place
    Kill(Kill),
    /// Say what happens to a packet of the lab, and why; `--live` asks the kernel as well
    Explain(explain::Args),
    /// Carry connections from the loopback of this machine to a Service
    PortForward(forward::Args),
    /// Show the pods and the agent
    Status(StatusArgs),
    /// Remove everything, also what a crash left
    Down(Down),
    /// Be the server inside a pod
    #[command(hide = true)]
    Serve(server::Args),
}

/// Which lab.
#[derive(Debug, ClapArgs)]
pub struct Name {
    /// Name of the lab: a-z and 0-9
    #[arg(long, default_value = "lab", env = "LB_LAB", global = true)]
    pub name: String,
}

/// Arguments of `lb lab up`.
#[derive(Debug, ClapArgs)]
pub struct Up {
    /// Folder or file of Kubernetes manifests, YAML or JSON
    #[arg(short = 'f', long = "manifests", value_name = "DIR", required = true)]
    pub manifests: Vec<PathBuf>,
    /// Which lab.
    #[command(flatten)]
    pub name: Name,
    /// Ranges of pod addresses, one for each family; a family without one is left out
    #[arg(long, value_delimiter = ',', default_values = ["10.244.0.0/24", "fd00:10:244::/64"])]
    pub pod_cidr: Vec<IpNet>,
    /// Ranges of ClusterIPs, one for each family
    #[arg(long, value_delimiter = ',', default_values = ["10.96.0.0/16", "fd00:10:96::/112"])]
    pub service_cidr: Vec<IpNet>,
    /// Addresses of the node
    #[arg(long, value_delimiter = ',', default_values = ["172.31.255.1", "fd00:172:31::1"])]
    pub node_address: Vec<IpAddr>,
    /// Addresses of the host outside of the cluster, `outside`
    #[arg(long, value_delimiter = ',', default_values = ["198.51.100.7", "2001:db8:51::7"])]
    pub outside_address: Vec<IpAddr>,
    /// Ranges that Services of type LoadBalancer get addresses from, one for each family
    #[arg(long, value_delimiter = ',', default_values = ["203.0.113.0/24", "2001:db8:113::/112"])]
    pub load_balancer_pool: Vec<IpNet>,
    /// Addresses of DNS, out of the service ranges [default: the tenth of each]
    #[arg(long, value_delimiter = ',')]
    pub dns_address: Vec<IpAddr>,
    /// How the agent attaches: auto, xdp, xdp-generic or tc
    #[arg(long)]
    pub hook: Option<String>,
    /// Who forwards: auto, kernel or direct
    #[arg(long)]
    pub forwarding: Option<String>,
    /// Make the pods only
    #[arg(long)]
    pub no_agent: bool,
    /// Run the lab's own server in pods instead of the commands of their containers
    #[arg(long)]
    pub ignore_commands: bool,
}

/// Arguments of `lb lab exec`.
#[derive(Debug, ClapArgs)]
pub struct Exec {
    /// Which lab.
    #[command(flatten)]
    pub name: Name,
    /// Pod, `client`, `node`, `outside`, or the beginning of a pod's name
    pub pod: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Arguments of `lb lab kill`.
#[derive(Debug, ClapArgs)]
pub struct Kill {
    /// Which lab.
    #[command(flatten)]
    pub name: Name,
    /// Pod, or the beginning of its name
    pub pod: String,
    /// Ask its processes to end and give them this many seconds; 0 kills them at once
    #[arg(long, default_value_t = 0)]
    pub grace: u64,
}

/// Arguments of `lb lab status`.
#[derive(Debug, ClapArgs)]
pub struct StatusArgs {
    /// Which lab.
    #[command(flatten)]
    pub name: Name,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Arguments of `lb lab down`.
#[derive(Debug, ClapArgs)]
pub struct Down {
    /// Which lab.
    #[command(flatten)]
    pub name: Name,
}

/// Formats of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For machines, with stable field names.
    Json,
}

/// Runs the command.
///
/// # Errors
/// Whatever the subcommand reports.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Up(args) => up(args),
        Command::Exec(args) => exec(args),
        Command::Kill(args) => {
            let (old, new) = Lab::kill(&args.name.name, &args.pod, Duration::from_secs(args.grace))?;
            let lab = Lab::open(&args.name.name)?;
            let address = lab.pod(&new)?.addresses.first().map(ToString::to_string).unwrap_or_default();
            println!("killed {old}; {new} at {address} takes its place");
            Ok(())
        }
        Command::Explain(args) => {
            let mut command = explain::command(&Lab::open(&args.name.name)?, &args.arguments)?;
            Err(command.exec()).context("cannot start lb explain")
        }
        Command::PortForward(args) => forward::run(args),
        Command::Status(args) => {
            let status = Status::of(&Lab::open(&args.name.name)?);
            match args.output {
                Output::Table => print!("{}", status.table()),
                Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
            }
            Ok(())
        }
        Command::Down(args) => {
            let removed = Lab::down(&args.name.name)?;
            if removed.is_empty() {
                println!("there is no lab {}, nothing to remove", args.name.name);
            }
            removed.iter().for_each(|what| println!("removed {what}"));
            Ok(())
        }
        Command::Serve(args) => server::run(args),
    }
}

fn up(args: &Up) -> anyhow::Result<()> {
    let options = Options {
        name: args.name.name.clone(),
        program: std::env::current_exe().context("cannot find this program's own file")?,
        manifests: args.manifests.clone(),
        pod_cidrs: args.pod_cidr.clone(),
        service_cidrs: args.service_cidr.clone(),
        node_addresses: args.node_address.clone(),
        outside_addresses: args.outside_address.clone(),
        load_balancer_pool: args.load_balancer_pool.clone(),
        dns_addresses: args.dns_address.clone(),
        hook: args.hook.clone(),
        forwarding: args.forwarding.clone(),
        agent: !args.no_agent,
        ignore_commands: args.ignore_commands,
    };
    let (lab, notes) = Lab::up(&options)?;
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    print!("{}", Status::of(&lab).table());
    Ok(())
}

/// Becomes the command, so that its exit code, signals and terminal are its own.
fn exec(args: &Exec) -> anyhow::Result<()> {
    let lab = Lab::open(&args.name.name)?;
    let (program, arguments) = args.command.split_first().context("no command given")?;
    let error = lab.exec(&args.pod, program)?.args(arguments).exec();
    eprintln!("lb: cannot run {program} in {}: {error}", args.pod);
    // As shells have it.
    std::process::exit(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
}
