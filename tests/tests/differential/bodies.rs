//! The bodies of the engine side by side, each with its tables and what it is expected to remember.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lb_common::engine::Position;
use lb_common::reason::{Class, Reason};
use lb_tests::rows::{Body, Error, Hook, Host, Kernel};
use lb_userspace::model::desired::Desired;
use lb_userspace::plan::{Limits, Options, Planner, steady_clock};

use super::probe::{Probe, ends};
use super::truth::{Forward, Port, Truth};

/// First source port of the probes: masquerading takes higher ones.
const FIRST_PORT: u16 = 20_000;
/// Where masquerading takes its ports from, by default.
const MASQUERADE_PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_535;
/// Packets of a probe where chance decides.
const TRIES: usize = 2;
/// Slots of a Maglev table: few, so that many services fit the small maps.
const MAGLEV_SLOTS: u32 = 31;

/// Where two did not agree.
#[derive(Debug)]
pub(crate) struct Mismatch {
    text: String,
    state: usize,
}

impl Mismatch {
    /// In which state, and asked what.
    pub(crate) fn at(self, state: usize, probe: Option<&Probe>) -> Self {
        let text = match probe {
            Some(probe) => format!("in state {state}, {probe:?}: {}", self.text),
            None => format!("in state {state}: {}", self.text),
        };
        Self { text, state }
    }

    /// In which state.
    pub(crate) fn state(&self) -> usize {
        self.state
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<E: std::error::Error> From<E> for Mismatch {
    fn from(error: E) -> Self {
        Self { text: error.to_string(), state: 0 }
    }
}

fn wrong<T>(text: String) -> Result<T, Mismatch> {
    Err(Mismatch { text, state: 0 })
}

struct One {
    body: Box<dyn Body>,
    planner: Option<Planner>,
    /// S4: the backend of each service port and client.
    remembered: HashMap<(Port, IpAddr), SocketAddr>,
}

/// What a body did with one packet.
struct Sent {
    reason: Reason,
    /// Where it went.
    to: Option<SocketAddr>,
    /// The answer to it.
    answer: Option<Vec<u8>>,
}

impl One {
    /// Sends one packet and compares with the truth.
    fn send(&mut self, probe: &Probe, port: u16, truth: &Truth) -> Result<Sent, String> {
        let frame = probe.frame(port);
        let position = Position { egress: false, external: probe.external };
        let outcome = self.body.run(&frame, position).map_err(|error| error.to_string())?;
        let reason = outcome.reason.ok_or("not counted")?;
        let forward = match truth {
            Truth::Forward(forward) if reason == Reason::NewFlow => forward,
            Truth::Verdict(expected) if reason == *expected => {
                if reason.class() == Class::Passed && outcome.frame != frame {
                    return Err("a packet that is not ours was changed".to_owned());
                }
                let answer = (reason.class() == Class::Answered).then_some(outcome.frame);
                return Ok(Sent { reason, to: None, answer });
            }
            _ => return Err(format!("expected {truth:?}, got {reason:?}")),
        };
        let to = check(probe, port, forward, &outcome.frame, &mut self.remembered)?;
        Ok(Sent { reason, to: Some(to), answer: None })
    }
}

/// The host engine first, then kernel programs.
pub(crate) struct Bodies {
    all: Vec<One>,
    next_port: u16,
    /// Packets by reason, of the host.
    tally: BTreeMap<&'static str, usize>,
}

impl Bodies {
    /// Loads the host engine and these kernel programs.
    pub(crate) fn load(hooks: &[Hook]) -> Result<Self, Error> {
        let mut bodies: Vec<Box<dyn Body>> = vec![Box::new(Host::new())];
        for hook in hooks {
            bodies.push(Box::new(Kernel::load(*hook)?));
        }
        let one = |body| One { body, planner: None, remembered: HashMap::new() };
        Ok(Self { all: bodies.into_iter().map(one).collect(), next_port: FIRST_PORT, tally: BTreeMap::new() })
    }

    /// Empties all tables.
    pub(crate) fn clear(&mut self) -> Result<(), Mismatch> {
        for one in &mut self.all {
            one.body.clear()?;
            one.planner = None;
            one.remembered.clear();
        }
        self.next_port = FIRST_PORT;
        Ok(())
    }

    /// Brings the tables to a state, from the one before as the agent would.
    pub(crate) fn sync(&mut self, desired: &Desired) -> Result<(), Mismatch> {
        for one in &mut self.all {
            let store = one.body.store();
            if one.planner.is_none() {
                let options = Options { maglev_slots: MAGLEV_SLOTS, ..Options::default() };
                one.planner = Some(Planner::adopt(store, Limits::of(store)?, options, steady_clock())?);
            }
            let Some(planner) = &mut one.planner else { continue };
            if let Some(problem) = planner.sync(store, desired)?.problems.first() {
                return wrong(problem.to_string());
            }
        }
        Ok(())
    }

    /// Packets by reason.
    pub(crate) fn tally(&self) -> String {
        let parts: Vec<_> = self.tally.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        parts.join(", ")
    }

    /// Sends the probe's packets to every body and compares with the truth, and the bodies with each other.
    pub(crate) fn ask(&mut self, probe: &Probe, truth: &Truth) -> Result<(), Mismatch> {
        let (packets, certain) = match truth {
            Truth::Verdict(_) => (1, true),
            Truth::Forward(forward) if forward.in_turn => (forward.to.len(), true),
            Truth::Forward(forward) => (TRIES, forward.certain),
        };
        let mut seen: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); self.all.len()];
        for _ in 0..packets {
            let port = self.port(probe);
            let mut of_host = None;
            for (one, seen) in self.all.iter_mut().zip(&mut seen) {
                let hook = one.body.hook();
                let outcome =
                    one.send(probe, port, truth).or_else(|text| wrong(format!("at {hook:?}: {text}")))?;
                seen.extend(outcome.to);
                let Some((to, answer)) = &of_host else {
                    *self.tally.entry(outcome.reason.name()).or_default() += 1;
                    of_host = Some((outcome.to, outcome.answer));
                    continue;
                };
                if certain && *to != outcome.to {
                    return wrong(format!(
                        "at {hook:?}: went to {:?}, but on the host to {to:?}",
                        outcome.to
                    ));
                }
                // XDP leaves answers to the tc program.
                if hook == Hook::Tc && *answer != outcome.answer {
                    return wrong(format!(
                        "at {hook:?}: {:02x?}, but on the host {answer:02x?}",
                        outcome.answer
                    ));
                }
            }
        }
        match truth {
            Truth::Forward(forward) if forward.in_turn => {
                let missed = seen.iter().zip(&self.all).find(|(seen, _)| seen.len() != forward.to.len());
                missed.map_or(Ok(()), |(seen, one)| {
                    wrong(format!("at {:?}: of {:?} only {seen:?} had a turn", one.body.hook(), forward.to))
                })
            }
            _ => Ok(()),
        }
    }

    /// A source port that no probe has had since the tables were emptied.
    fn port(&mut self, probe: &Probe) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port += 1;
            if probe.is_plain(port) {
                return port;
            }
        }
    }
}

/// Checks a forwarded packet byte by byte; where it went.
fn check(
    probe: &Probe,
    port: u16,
    forward: &Forward,
    frame: &[u8],
    remembered: &mut HashMap<(Port, IpAddr), SocketAddr>,
) -> Result<SocketAddr, String> {
    let (from, to) = ends(probe.net, frame).ok_or("what came out is too short")?;
    let Some(&masquerade) = forward.to.get(&to) else {
        return Err(format!("went to {to}, which is none of {:?}", forward.to));
    };
    let source = SocketAddr::new(probe.from, port);
    let right = if masquerade {
        from.ip() == probe.net.node() && MASQUERADE_PORTS.contains(&from.port())
    } else {
        from == source
    };
    if !right {
        return Err(format!("to {to}: masquerade {masquerade}, but {source} became {from}"));
    }
    let expected = probe.between(from, to);
    if frame != expected {
        return Err(format!("{frame:02x?} came out, expected {expected:02x?}"));
    }
    if let Some(key) = &forward.affinity {
        let before = remembered.insert(key.clone(), to);
        if let Some(before) = before.filter(|before| *before != to && forward.to.contains_key(before)) {
            return Err(format!("the client had {before}, which is usable, and now got {to}"));
        }
    }
    Ok(to)
}
