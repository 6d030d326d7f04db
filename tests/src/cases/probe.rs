//! `probes`: first packets of flows, and what must happen to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lb_userspace::model::desired::{Desired, Protocol};
use lb_userspace::source::validate::parse_protocol;
use serde_json::Value;

use super::config::address;
use super::fields::{Fields, Wrong};

/// How the case sees the source. Only a remark: who it is follows from the address and from where the packet comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A pod.
    Pod,
    /// A process of this node.
    Node,
    /// Somebody outside the cluster.
    External,
    /// A process of this node, by loopback.
    Localhost,
}

/// A first packet.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Source address.
    pub from: IpAddr,
    /// How the case sees the source.
    pub from_kind: SourceKind,
    /// Destination address.
    pub to: IpAddr,
    /// Destination port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    expect: Verdict,
    masquerade: bool,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to one of these, and to each of them some time.
    Forward(BTreeSet<SocketAddr>),
    /// Gone.
    Drop,
    /// Answered with a refusal.
    Reject,
    /// Not touched.
    Untouched,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(backends) => {
                let texts: Vec<_> = backends.iter().map(ToString::to_string).collect();
                write!(f, "{}", texts.join(" "))
            }
            Self::Drop => f.write_str("drop"),
            Self::Reject => f.write_str("reject"),
            Self::Untouched => f.write_str("none"),
        }
    }
}

/// What a prober has seen.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What happened; of forwarding, all backends that were seen.
    pub verdict: Verdict,
    /// Of each backend seen, whether the source address was rewritten on the way to it.
    pub masqueraded: BTreeMap<SocketAddr, bool>,
}

/// Whoever can tell what happens to a first packet: the engine on the host, the programs in the kernel, or a model of
/// either.
pub trait Prober {
    /// Its name in reports.
    fn name(&self) -> &str;

    /// Takes a desired state; called before the probes of each step.
    ///
    /// # Errors
    /// Why it cannot; the probes fail with it.
    fn prepare(&mut self, desired: &Desired) -> Result<(), String>;

    /// Sends first packets, each of a new flow, until it can tell all that may happen.
    ///
    /// # Errors
    /// Why it cannot; the probe fails with it.
    fn probe(&mut self, probe: &Probe) -> Result<Observed, String>;
}

pub(super) fn parse(value: Value) -> Result<Probe, Wrong> {
    let mut fields = Fields::of(value)?;
    let text =
        |fields: &mut Fields, key: &str| fields.text(key)?.ok_or_else(|| format!("key {key} is missing"));
    let from_kind = match text(&mut fields, "from_kind")?.as_str() {
        "pod" => SourceKind::Pod,
        "node" => SourceKind::Node,
        "external" => SourceKind::External,
        "localhost" => SourceKind::Localhost,
        other => return Err(format!("from_kind {other} is not known")),
    };
    let expect = match fields.required("expect")? {
        Value::String(word) => match word.as_str() {
            "drop" => Verdict::Drop,
            "reject" => Verdict::Reject,
            "none" => Verdict::Untouched,
            other => return Err(format!("expect {other} is not known")),
        },
        Value::Array(items) => Verdict::Forward(
            items
                .iter()
                .map(|item| {
                    item.as_str()
                        .and_then(|text| text.parse().ok())
                        .ok_or_else(|| format!("{item} is no endpoint"))
                })
                .collect::<Result<_, _>>()?,
        ),
        other => return Err(format!("expect {other} is not known")),
    };
    let port = fields.number("port")?.ok_or("key port is missing")?;
    let probe = Probe {
        from: address(&text(&mut fields, "from")?)?,
        from_kind,
        to: address(&text(&mut fields, "to")?)?,
        port: u16::try_from(port).map_err(|_| format!("port {port} is out of range"))?,
        protocol: parse_protocol(fields.text("protocol")?.as_deref())?,
        expect,
        masquerade: fields.boolean("masquerade")?.unwrap_or(false),
    };
    fields.finish()?;
    Ok(probe)
}

/// Asks a prober, and compares.
pub(super) fn check(prober: &mut dyn Prober, probe: &Probe) -> Result<(), Wrong> {
    let observed = prober.probe(probe)?;
    if observed.verdict != probe.expect {
        return Err(format!("expected {}, got {}", probe.expect, observed.verdict));
    }
    let Verdict::Forward(backends) = &probe.expect else { return Ok(()) };
    // An endpoint that calls its own service: the fact is about the flow that comes back to itself.
    let hairpin = backends.iter().any(|backend| backend.ip() == probe.from);
    for backend in backends.iter().filter(|backend| !hairpin || backend.ip() == probe.from) {
        if observed.masqueraded.get(backend) != Some(&probe.masquerade) {
            let seen = observed.masqueraded.get(backend);
            return Err(format!("to {backend}: expected masquerade {}, got {seen:?}", probe.masquerade));
        }
    }
    Ok(())
}
