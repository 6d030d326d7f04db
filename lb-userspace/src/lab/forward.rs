//! `lb lab port-forward`: from the loopback of this machine to a Service of a lab.
//!
//! Each connection is dialled anew from the lab's client, so the Service balances it like any other client's.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use lb_common::abi::frontend_kind;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::commands::Name as LabName;
use super::labs::{CLIENT, Lab};
use super::netns::Namespace;
use crate::model::desired::Protocol;
use crate::plan::Tables;
use crate::plan::words::FrontendName;
use crate::show;
use crate::source::Source;
use crate::source::kube::Name;

/// After a failed accept: out of descriptors, say. Connections get time to end.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Arguments of `lb lab port-forward`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which lab.
    #[command(flatten)]
    pub name: LabName,
    /// The Service: svc/NAME or svc/NAME.NAMESPACE
    #[arg(value_name = "svc/NAME[.NAMESPACE]", value_parser = parse_service)]
    pub service: Name,
    /// Port on 127.0.0.1 and ::1 (0 or none: any free one), and port of the Service by number or name; PORT alone is for both
    #[arg(required = true, value_name = "LOCAL:PORT")]
    pub ports: Vec<Ports>,
}

/// A port here and a port there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Port to listen on; 0 = any.
    pub local: u16,
    /// Port of the Service: number or name.
    pub remote: String,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("LOCAL:PORT is wanted, as in 8080:80, :http or 0:80, not {text:?}");
        let (local, remote) = match text.split_once(':') {
            Some(("", remote)) => (0, remote),
            Some((local, remote)) => (local.parse().map_err(|_| wrong())?, remote),
            // A name says nothing about a port here.
            None => (text.parse().map_err(|_| wrong())?, text),
        };
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if remote.is_empty() || remote == "0" || !remote.bytes().all(good) {
            return Err(wrong());
        }
        Ok(Self { local, remote: remote.to_owned() })
    }
}

fn parse_service(text: &str) -> Result<Name, String> {
    let name = text.split_once('/').filter(|(kind, _)| ["svc", "service", "services"].contains(kind));
    let Some((_, name)) = name.filter(|(_, name)| !name.is_empty() && !name.contains('/')) else {
        return Err(format!("svc/NAME or svc/NAME.NAMESPACE is wanted, not {text:?}"));
    };
    let (name, namespace) = name.split_once('.').unwrap_or((name, "default"));
    Ok(Name::new(namespace, name))
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When there is no such lab, Service or port, or a local port is taken.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let lab = Lab::open(&args.name.name)?;
    let client = Arc::new(Namespace::open(&lab.pod(&format!("default/{CLIENT}"))?.netns)?);
    let mut forwards = Vec::new();
    for ports in &args.ports {
        forwards.push((ports.local, find(&lab, &args.service, &ports.remote)?));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals")?;
        for (local, remote) in forwards {
            for listener in listen(local).await? {
                let address = listener.local_addr().context("cannot tell the local address")?;
                println!("forwarding {address} to Service {} at {remote}", args.service);
                tokio::spawn(accept(listener, client.clone(), remote));
            }
        }
        io::stdout().flush().context("cannot print")?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

/// The Service's own address and port, as the lab's agent has it in the kernel.
fn find(lab: &Lab, service: &Name, port: &str) -> anyhow::Result<SocketAddr> {
    let store = show::open(&lab.places().pins()).context("the lab has no agent that balances anything")?;
    let tables = Tables::read(&store)?;
    let frontends: Vec<Frontend> = tables
        .frontends
        .iter()
        .filter(|(name, entry)| !name.is_owner() && entry.kind == frontend_kind::CLUSTER_IP)
        .filter_map(|(name, entry)| Frontend::of(name, &tables.service(entry.service_id)))
        .collect();
    let own: Vec<&Frontend> = frontends.iter().filter(|frontend| frontend.service == *service).collect();
    if own.is_empty() {
        bail!("Service {service} {}", why_none(lab, service, &frontends));
    }
    let wanted = |frontend: &&&Frontend| {
        frontend.protocol == Protocol::Tcp
            && (frontend.port_name == port || frontend.address.port().to_string() == port)
    };
    // IPv4 comes first in the tables.
    own.iter().find(wanted).map(|frontend| frontend.address).with_context(|| {
        let ports: BTreeSet<String> = own.iter().map(|frontend| frontend.text()).collect();
        let ports: Vec<String> = ports.into_iter().collect();
        format!("Service {service} has no TCP port {port}; it has {}", ports.join(", "))
    })
}

/// Why a Service has no address of its own.
fn why_none(lab: &Lab, service: &Name, frontends: &[Frontend]) -> String {
    let snapshot = Source::new(&lab.state().manifests).load();
    match snapshot.objects.services.get(service) {
        Some(object) if object.spec.type_.as_deref() == Some("ExternalName") => {
            "is of type ExternalName: it is a name and has no address".to_owned()
        }
        Some(object) if crate::model::services::is_headless(object) => {
            "is headless: it has no address; its pods have names of their own".to_owned()
        }
        Some(_) => format!("has no address; {} may say why", lab.places().agent_log().display()),
        None => {
            let known: BTreeSet<String> = frontends.iter().map(|f| f.service.to_string()).collect();
            let known: Vec<String> = known.into_iter().collect();
            format!("is not there; there are {}", known.join(", "))
        }
    }
}

/// A ClusterIP's port.
struct Frontend {
    service: Name,
    port_name: String,
    protocol: Protocol,
    address: SocketAddr,
}

impl Frontend {
    /// `service` is as the tables have it: `namespace/name:port/PROTOCOL`.
    fn of(name: &FrontendName, service: &str) -> Option<Self> {
        let (service, port_name) = service.rsplit_once('/')?.0.split_once(':')?;
        let (namespace, service) = service.split_once('/')?;
        Some(Self {
            service: Name::new(namespace, service),
            port_name: port_name.to_owned(),
            protocol: Protocol::from_number(name.protocol)?,
            address: SocketAddr::new(name.addr, name.port),
        })
    }

    fn text(&self) -> String {
        match self.port_name.as_str() {
            "" => format!("{}/{}", self.address.port(), self.protocol),
            name => format!("{}/{} ({name})", self.address.port(), self.protocol),
        }
    }
}

/// Both loopback addresses, with the same port; IPv4 alone where IPv6 has the port taken or is not there.
async fn listen(port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let bind = async |address: IpAddr, port: u16| TcpListener::bind((address, port)).await;
    let v4 = bind(Ipv4Addr::LOCALHOST.into(), port)
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
    let port = v4.local_addr().context("cannot tell the local address")?.port();
    let v6 = bind(Ipv6Addr::LOCALHOST.into(), port).await.ok();
    Ok([Some(v4), v6].into_iter().flatten().collect())
}

async fn accept(listener: TcpListener, client: Arc<Namespace>, remote: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let client = client.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &client, remote).await {
                        eprintln!("connection from {from} to {remote}: {error:#}");
                    }
                });
            }
            Err(error) => {
                eprintln!("cannot accept: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Dials from inside the lab, and carries bytes both ways until both sides are done.
async fn connection(mut near: TcpStream, client: &Namespace, remote: SocketAddr) -> anyhow::Result<()> {
    // A socket stays in the namespace that it was made in.
    let socket = client.run(|| match remote {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    })?;
    let mut far = socket.context("cannot make a socket")?.connect(remote).await.context("cannot connect")?;
    near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).context("cannot set TCP_NODELAY")?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop).context("broken off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let ports = |text: &str| text.parse::<Ports>().map(|ports| (ports.local, ports.remote)).ok();
        assert_eq!(ports("8080:80"), Some((8080, "80".to_owned())));
        assert_eq!(ports("80"), Some((80, "80".to_owned())));
        assert_eq!(ports("0:http"), Some((0, "http".to_owned())));
        assert_eq!(ports(":http-2"), Some((0, "http-2".to_owned())));
        for text in ["", ":", "8080:", "http", "70000:80", "-1:80", "80:0", "8080:a/b", "1:2:3"] {
            assert_eq!(ports(text), None, "{text}");
        }
    }

    #[test]
    fn services() {
        assert_eq!(parse_service("svc/web"), Ok(Name::new("default", "web")));
        assert_eq!(parse_service("service/web.shop"), Ok(Name::new("shop", "web")));
        for text in ["web", "pod/web", "svc/", "svc/a/b"] {
            assert!(parse_service(text).unwrap_err().contains("svc/NAME"), "{text}");
        }
    }
}
