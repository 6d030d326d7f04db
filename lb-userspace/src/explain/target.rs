//! FROM and TO, as people write them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};

use super::packet::{End, Headers, Kind, Packet};
use super::{Args, Situation};
use crate::model::desired::{Family, Protocol, ServicePortName};
use crate::model::endpoints::pod_address;
use crate::model::services::{explicit_cluster_ips, is_headless, is_ours, port_number};
use crate::source::address::parse_ip;
use crate::source::kube::{Name, Service};
use crate::source::validate::parse_protocol;

/// Source port of packets that name none: of the range for clients (RFC 6335 section 6).
const CLIENT_PORT: u16 = 50_000;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) packet: Packet,
    /// Came in by an interface marked external.
    pub(super) external: bool,
    /// The Service that TO named.
    pub(super) named: Option<Name>,
}

/// An address, or a name, each with what follows it.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    host: Host<'a>,
    port: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq)]
enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

/// Splits `HOST[:PORT]`; IPv6 addresses with a port are in brackets.
fn place(text: &str) -> Place<'_> {
    if let Ok(parsed) = parse_ip(text) {
        return Place { host: Host::Address(parsed.value), port: None };
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    match parse_ip(host) {
        Ok(parsed) => Place { host: Host::Address(parsed.value), port },
        Err(_) => Place { host: Host::Name(host), port },
    }
}

/// Splits off the protocol; a Service name may have a slash of its own.
fn kind(text: &str) -> anyhow::Result<(&str, Option<Kind>)> {
    let Some((rest, last)) = text.rsplit_once('/') else {
        return Ok((text, None));
    };
    let upper = last.to_ascii_uppercase();
    if upper == "ICMP" {
        return Ok((rest, Some(Kind::Ping)));
    }
    match parse_protocol(Some(&upper)) {
        Ok(protocol) => Ok((rest, Some(Kind::Transport(protocol)))),
        Err(_) if rest.contains([':', '/']) || parse_ip(rest).is_ok() => {
            bail!("{text}: {last} is none of TCP, UDP, SCTP, ICMP")
        }
        Err(_) => Ok((text, None)),
    }
}

fn name(text: &str) -> Name {
    match text.split_once('/') {
        Some((namespace, name)) => Name::new(namespace, name),
        None => Name::new("default", text),
    }
}

fn number(text: &str) -> anyhow::Result<u16> {
    text.parse().ok().and_then(port_number).with_context(|| format!("{text} is no port from 1 to 65535"))
}

/// Reads FROM and TO.
///
/// # Errors
/// When they cannot be read, or name nothing that has an address.
pub(super) fn question(args: &Args, situation: &Situation) -> anyhow::Result<Question> {
    let from = place(&args.from);
    let (text, kind) = kind(&args.to)?;
    let to = place(text);
    let wanted = match (&from.host, &to.host) {
        (Host::Address(address), _) | (_, Host::Address(address)) => Some(Family::of(*address)),
        (Host::Name(_), Host::Name(_)) => None,
    };
    let (destination, kind, named) = match to.host {
        Host::Address(address) => {
            let kind = kind.unwrap_or(Kind::Transport(Protocol::Tcp));
            let port = match (kind, to.port) {
                (Kind::Ping, _) => None,
                (_, Some(port)) => Some(number(port)?),
                (_, None) => bail!("{}: a port is missing, as in {}", args.to, SocketAddr::new(address, 80)),
            };
            (End { address, port }, kind, None)
        }
        Host::Name(host) => {
            let service = name(host);
            let (end, kind) = dialled(situation, &service, to.port, kind, wanted)?;
            (end, kind, Some(service))
        }
    };
    let source_port = from.port.map(number).transpose()?.unwrap_or(CLIENT_PORT);
    let address = match from.host {
        Host::Address(address) => address,
        Host::Name(host) => sender(situation, &name(host), Family::of(destination.address))?,
    };
    if Family::of(address) != Family::of(destination.address) {
        bail!("{address} and {} are addresses of different families", destination.address);
    }
    let source = End { address, port: destination.port.map(|_| source_port) };
    let packet =
        Packet { headers: Headers { source, destination }, kind, mid_flow: args.mid_flow, cut: args.cut };
    Ok(Question { packet, external: args.external, named })
}

/// The address of a pod that sends.
fn sender(situation: &Situation, name: &Name, family: Family) -> anyhow::Result<IpAddr> {
    let pod = situation.objects.pods.get(name);
    let pod = pod.with_context(|| format!("{name} is neither an address nor a Pod of the manifests"))?;
    pod_address(pod, family).with_context(|| {
        let family = if family == Family::V4 { "IPv4" } else { "IPv6" };
        format!("Pod {name} has no {family} address")
    })
}

/// The address and port of a Service.
fn dialled(
    situation: &Situation,
    name: &Name,
    port: Option<&str>,
    kind: Option<Kind>,
    family: Option<Family>,
) -> anyhow::Result<(End, Kind)> {
    let service = situation.objects.services.get(name);
    let service = service.with_context(|| {
        let same: Vec<_> =
            situation.objects.services.keys().filter(|known| known.name == name.name).collect();
        match same.first() {
            Some(other) => format!("there is no Service {name} in the manifests; there is {other}"),
            None => format!("there is no Service {name} in the manifests"),
        }
    })?;
    let address = cluster_ip(situation, name, service, family)?;
    if kind == Some(Kind::Ping) {
        return Ok((End { address, port: None }, Kind::Ping));
    }
    let ports = || {
        let ports = situation.built.services.iter();
        ports.filter(|(known, _)| is_port_of(known, name) && known.family == Family::of(address))
    };
    let protocol = match kind {
        Some(Kind::Transport(protocol)) => Some(protocol),
        _ => None,
    };
    let wanted = |known: &ServicePortName| protocol.is_none_or(|protocol| protocol == known.protocol);
    let Some(text) = port else {
        let mut all = ports().filter(|(known, _)| wanted(known));
        return match (all.next(), all.next()) {
            (Some((known, info)), None) => {
                Ok((End { address, port: Some(info.port) }, Kind::Transport(known.protocol)))
            }
            _ => bail!("{name}: a port is missing, as in {name}:80"),
        };
    };
    if let Some((known, info)) = ports().find(|(known, _)| known.port == text && wanted(known)) {
        return Ok((End { address, port: Some(info.port) }, Kind::Transport(known.protocol)));
    }
    let Ok(port) = text.parse::<u16>() else {
        let names: Vec<_> = ports().map(|(known, _)| known.port.as_str()).filter(|n| !n.is_empty()).collect();
        bail!("Service {name} has no port named {text}; it has {}", super::nearest::list(&names));
    };
    // A number nobody serves is a question worth an answer.
    let known = ports().find(|(known, info)| info.port == port && wanted(known)).map(|(known, _)| known);
    let protocol = known.map(|known| known.protocol).or(protocol).unwrap_or(Protocol::Tcp);
    Ok((End { address, port: Some(port) }, Kind::Transport(protocol)))
}

pub(super) fn is_port_of(port: &ServicePortName, service: &Name) -> bool {
    port.namespace == service.namespace && port.name == service.name
}

/// The address that the Service's name stands for.
fn cluster_ip(
    situation: &Situation,
    name: &Name,
    service: &Service,
    family: Option<Family>,
) -> anyhow::Result<IpAddr> {
    if let Some(target) = &service.spec.external_name
        && service.spec.type_.as_deref() == Some("ExternalName")
    {
        bail!("Service {name} is an ExternalName: it has no frontend (F3); DNS answers with {target} (N5)");
    }
    if is_headless(service) {
        bail!("Service {name} is headless: it has no frontend (F3); DNS answers with its endpoints (N4)");
    }
    let mut addresses = explicit_cluster_ips(service);
    addresses.extend(situation.allocations.cluster_ips.get(name).into_iter().flatten());
    let found = addresses.iter().find(|address| family.is_none_or(|family| Family::of(**address) == family));
    if let Some(address) = found {
        return Ok(*address);
    }
    if !is_ours(&service.metadata) {
        bail!("Service {name} has no address, and is left to another proxy (F4)");
    }
    match addresses.first() {
        Some(other) => bail!("Service {name} has no address of this family, only {other}"),
        None => {
            bail!("Service {name} has no address (Z2): none of its families has a free one in --service-cidr")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_as_people_write_them() {
        let address = |text: &str| Host::Address(text.parse().unwrap());
        for (text, host, port) in [
            ("10.0.0.1", address("10.0.0.1"), None),
            ("10.0.0.1:80", address("10.0.0.1"), Some("80")),
            ("fd00::1", address("fd00::1"), None),
            ("[fd00::1]", address("fd00::1"), None),
            ("[fd00::1]:80", address("fd00::1"), Some("80")),
            ("web", Host::Name("web"), None),
            ("shop/web:http", Host::Name("shop/web"), Some("http")),
        ] {
            assert_eq!(place(text), Place { host, port }, "{text}");
        }
    }

    #[test]
    fn a_protocol_is_no_name() {
        let tcp = Some(Kind::Transport(Protocol::Tcp));
        assert_eq!(kind("shop/web").unwrap(), ("shop/web", None));
        assert_eq!(kind("shop/web:80/tcp").unwrap(), ("shop/web:80", tcp));
        assert_eq!(kind("10.0.0.1/ICMP").unwrap(), ("10.0.0.1", Some(Kind::Ping)));
        assert!(kind("10.0.0.1:80/QUIC").is_err());
    }
}
