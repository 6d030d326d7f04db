//! Running rows.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lb_common::abi::{BackendEntry, BackendStats};
use lb_common::family::Address;
use lb_common::reason::{Class, Reason};
use lb_common::tables::Table;
use lb_userspace::maps::{MapStore, change_flows, per_cpu};
use lb_userspace::model::desired::Desired;
use lb_userspace::plan::words::{narrow, v4_word, v6_words};
use lb_userspace::plan::{Limits, Options, Planner};

use super::Error;
use super::body::{Body, Hook, Outcome, clear};
use super::net::At;
use super::packet::Packet;
use super::row::{Direction, Given, Row, Step};

/// Slots of Maglev tables in rows.
const MAGLEV_SLOTS: u32 = 1_021;

/// Runs rows on a body, each on empty maps.
///
/// # Errors
/// What is wrong with each row that failed.
pub fn run_all(body: &mut dyn Body, rows: &[Row]) -> Result<usize, String> {
    let mut failures = String::new();
    let mut ran = 0;
    let hook = body.hook();
    for row in rows.iter().filter(|row| suits(hook, row)) {
        ran += 1;
        if let Err(error) = run(body, row) {
            let _infallible = writeln!(failures, "{row}\n    {error}");
        }
    }
    if failures.is_empty() { Ok(ran) } else { Err(failures) }
}

/// Whether a hook can show what a row is about.
fn suits(hook: Hook, row: &Row) -> bool {
    let fits = |step: &Step| match step {
        // What is passed leaves nothing behind, and may be left out.
        Step::Packet(given) => given.reason.class() == Class::Passed || hook.takes(&given.frame),
        Step::Spread { frames, .. } => frames.iter().all(|frame| hook.takes(frame)),
        _ => true,
    };
    row.steps.iter().all(fits) && (hook.guesses_partial() || !row.keeps_partial)
}

/// Runs one row.
///
/// # Errors
/// The first thing that is not as the row says.
pub fn run(body: &mut dyn Body, row: &Row) -> Result<(), Error> {
    body.clear()?;
    let options = Options {
        maglev_slots: MAGLEV_SLOTS,
        snat_port_first: row.snat_ports.0,
        snat_port_count: row.snat_ports.1,
        ..Options::default()
    };
    let seconds = Arc::new(AtomicU64::new(0));
    let time = seconds.clone();
    let clock = Arc::new(move || Duration::from_secs(time.load(Ordering::Relaxed)));
    let limits = Limits::of(body.store())?;
    let planner = Planner::adopt(body.store(), limits, options, clock)?;
    let sent = Expected { unsure: row.renumbered, ..Expected::default() };
    let mut runner = Runner { body, planner, seconds, sent, outs: HashMap::new(), reasons: HashMap::new() };
    for (number, step) in row.steps.iter().enumerate() {
        runner.step(number, step).map_err(|error| Error::Step {
            number,
            step: name(step),
            error: Box::new(error),
        })?;
    }
    runner.check_reasons()?;
    runner.check_backends(row)
}

fn name(step: &Step) -> String {
    match step {
        Step::Packet(given) => {
            format!("{} bytes, expected {}", given.frame.len(), given.reason.name())
        }
        Step::Spread { frames, .. } => format!("{} packets", frames.len()),
        Step::Desired(_) => "change of services".to_owned(),
        Step::Advance(seconds) => format!("{seconds} s pass"),
        Step::LoseFlows => "flows are lost".to_owned(),
        Step::Evict(_) => "entry is evicted".to_owned(),
    }
}

/// What the statistics of backends must say, but for flows that ended.
#[derive(Debug, Default)]
struct Expected {
    backends: HashMap<At, BackendStats>,
    /// The row has packets of which it is not said who gets them.
    unsure: bool,
}

struct Runner<'a> {
    body: &'a mut dyn Body,
    planner: Planner,
    /// The planner's clock.
    seconds: Arc<AtomicU64>,
    sent: Expected,
    outs: HashMap<usize, Vec<u8>>,
    reasons: HashMap<u8, u64>,
}

impl Runner<'_> {
    fn step(&mut self, number: usize, step: &Step) -> Result<(), Error> {
        match step {
            Step::Packet(given) if !self.body.hook().takes(&given.frame) => Ok(()),
            Step::Packet(given) => self.packet(number, given),
            Step::Spread { frames, outs, times, reason } => self.spread(frames, outs, times, *reason),
            Step::Desired(desired) => self.desire(desired),
            Step::Advance(seconds) => {
                self.seconds.fetch_add(u64::from(*seconds), Ordering::Relaxed);
                self.body.advance(*seconds)
            }
            Step::LoseFlows => {
                clear(self.body.store(), Table::FlowsV4)?;
                clear(self.body.store(), Table::FlowsV6)
            }
            Step::Evict(packet) => evict(self.body.store(), packet),
        }
    }

    fn desire(&mut self, desired: &Desired) -> Result<(), Error> {
        let report = self.planner.sync(self.body.store(), desired)?;
        match report.problems.first() {
            Some(problem) => Err(Error::Unexpected(format!("the planner says: {problem}"))),
            None => Ok(()),
        }
    }

    fn run(&mut self, given: &Given) -> Result<Outcome, Error> {
        let outcome = self.body.run(&given.frame, given.position)?;
        let (expected, class) = (given.reason, given.reason.class());
        let egress = given.position.egress;
        // At egress only what is translated is counted.
        let silent = egress && class != Class::Forwarded;
        if outcome.reason != (!silent).then_some(expected) {
            let got = outcome.reason.map_or("nothing counted", Reason::name);
            let after = changes(&given.frame, &outcome.frame);
            return Err(Error::Unexpected(format!("expected {}, got {got}; {after}", expected.name())));
        }
        if !silent {
            *self.reasons.entry(expected as u8).or_default() += 1;
        }
        Ok(outcome)
    }

    /// Compares what came out with what was to come out, if that is `sent`.
    fn compare(&self, given: &Given, outcome: &Outcome, sent: &[u8]) -> Result<(), Error> {
        let (action, left) = self.body.hook().after(given, sent, given.answer.as_deref());
        if outcome.action != action {
            return Err(Error::Unexpected(format!("returned {}, expected {action}", outcome.action as i32)));
        }
        match left {
            Some(left) if left != outcome.frame => {
                let text = changes(&left, &outcome.frame);
                Err(Error::Unexpected(format!("expected | came out: {text}")))
            }
            _ => Ok(()),
        }
    }

    fn packet(&mut self, number: usize, given: &Given) -> Result<(), Error> {
        let outcome = self.run(given)?;
        let forwarded = given.reason.class() == Class::Forwarded;
        let choice = given.out.iter().find(|out| **out == outcome.frame);
        let nothing = Vec::new();
        self.compare(given, &outcome, choice.or(given.out.first()).unwrap_or(&nothing))?;
        let out = outcome.frame;
        if let Some(like) = given.like
            && self.outs.get(&like).map(|other| destination(other)) != Some(destination(&out))
        {
            return Err(Error::Unexpected(format!("another backend than in step {like}")));
        }
        self.outs.insert(number, out);
        match given.stats {
            Some(Direction::To(backend, bytes)) => {
                let stats = self.sent.backends.entry(backend).or_default();
                stats.to_backend.packets += 1;
                stats.to_backend.bytes += bytes;
                stats.flows_opened += u64::from(given.reason == Reason::NewFlow);
            }
            Some(Direction::From(backend, bytes)) => {
                let stats = self.sent.backends.entry(backend).or_default();
                stats.from_backend.packets += 1;
                stats.from_backend.bytes += bytes;
            }
            None => self.sent.unsure |= forwarded && given.reason != Reason::IcmpError,
        }
        Ok(())
    }

    fn spread(
        &mut self,
        frames: &[Vec<u8>],
        outs: &[Vec<Vec<u8>>],
        times: &[(usize, usize)],
        reason: Reason,
    ) -> Result<(), Error> {
        self.sent.unsure = true;
        let mut counts = vec![0; times.len()];
        for (frame, choices) in frames.iter().zip(outs) {
            let given = Given {
                frame: frame.clone(),
                position: Default::default(),
                reason,
                out: Vec::new(),
                answer: None,
                stats: None,
                like: None,
            };
            let outcome = self.run(&given)?;
            let choice = choices.iter().position(|choice| *choice == outcome.frame);
            self.compare(&given, &outcome, &choices[choice.unwrap_or(0)])?;
            counts[choice.unwrap_or(0)] += 1;
        }
        if counts.iter().zip(times).all(|(count, (least, most))| (least..=most).contains(&count)) {
            return Ok(());
        }
        Err(Error::Unexpected(format!("spread {counts:?}, expected {times:?}")))
    }

    /// Every packet is accounted for under its reason, and nothing else.
    fn check_reasons(&mut self) -> Result<(), Error> {
        let mut found = HashMap::new();
        self.body.store().scan(Table::IfaceStats, &mut |key, value| {
            let index: u32 = bytemuck::pod_read_unaligned(key);
            let packets: u64 = per_cpu::<lb_common::abi::Counter>(value).map(|cpu| cpu.packets).sum();
            found.insert(index as u8, packets);
        })?;
        if found == self.reasons {
            return Ok(());
        }
        Err(Error::Unexpected(format!("counted by reason {found:?}, expected {:?}", self.reasons)))
    }

    fn check_backends(&mut self, row: &Row) -> Result<(), Error> {
        let found = backends(self.body.store())?;
        if !self.sent.unsure {
            for (at, seen) in &found {
                let expected = self.sent.backends.get(at).copied().unwrap_or_default();
                let counted = BackendStats { flows_closed: 0, ..seen.stats };
                if counted != expected {
                    let text = format!("statistics of {at:?}: {counted:?}, expected {expected:?}");
                    return Err(Error::Unexpected(text));
                }
            }
            if let Some(at) = self.sent.backends.keys().find(|at| !found.contains_key(at)) {
                return Err(Error::Unexpected(format!("no statistics of {at:?}")));
            }
        }
        let of = |at: &At| found.get(at).copied().unwrap_or_default();
        for (at, flows) in &row.closed {
            let closed = of(at).stats.flows_closed;
            if closed != *flows {
                return Err(Error::Unexpected(format!("{closed} flows of {at:?} ended, expected {flows}")));
            }
        }
        for (at, flows) in &row.open {
            let open = of(at).open;
            if open != *flows {
                return Err(Error::Unexpected(format!("{open} flows of {at:?} open, expected {flows}")));
            }
        }
        Ok(())
    }
}

/// What the maps say of a backend, under whichever numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    stats: BackendStats,
    open: u64,
}

fn backends(store: &dyn MapStore) -> Result<HashMap<At, Seen>, Error> {
    let mut found: HashMap<At, Seen> = HashMap::new();
    for (key, value) in store.dump(Table::Backends)? {
        let entry: BackendEntry = bytemuck::pod_read_unaligned(&value);
        let addr = if entry.addr[1..] == [0; 3] {
            IpAddr::V4(lb_userspace::plan::words::v4(entry.addr[0]))
        } else {
            narrow(entry.addr)
        };
        let seen = found.entry((addr, u16::from_be(entry.port_be))).or_default();
        for cpu in per_cpu::<BackendStats>(&store.lookup(Table::BackendStats, &key)?.unwrap_or_default()) {
            for (sum, part) in [
                (&mut seen.stats.to_backend, cpu.to_backend),
                (&mut seen.stats.from_backend, cpu.from_backend),
            ] {
                sum.packets += part.packets;
                sum.bytes += part.bytes;
            }
            seen.stats.flows_opened += cpu.flows_opened;
            seen.stats.flows_closed += cpu.flows_closed;
        }
        if let Some(open) = store.lookup(Table::OpenFlows, &key)? {
            seen.open = seen.open.wrapping_add(bytemuck::pod_read_unaligned(&open));
        }
    }
    Ok(found)
}

fn evict(store: &mut dyn MapStore, packet: &Packet) -> Result<(), Error> {
    fn remove<A: Address>(store: &mut dyn MapStore, packet: &Packet, ends: (A, A)) -> Result<bool, Error> {
        let mut found = false;
        change_flows::<A>(store, &mut |key, _| {
            let it = (key.src, key.dst) == ends
                && (key.sport_be, key.dport_be) == (packet.src.1.to_be(), packet.dst.1.to_be())
                && key.protocol == packet.protocol();
            found |= it;
            !it
        })?;
        Ok(found)
    }
    let found = match (packet.src.0, packet.dst.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => remove(store, packet, (v4_word(src), v4_word(dst)))?,
        (IpAddr::V6(src), IpAddr::V6(dst)) => remove(store, packet, (v6_words(src), v6_words(dst)))?,
        _ => return Err(Error::Unexpected("a packet of two families".to_owned())),
    };
    if found { Ok(()) } else { Err(Error::Unexpected("there was no entry to evict".to_owned())) }
}

/// The destination address of an untagged frame without options.
fn destination(frame: &[u8]) -> &[u8] {
    let v4 = frame.get(12..14) == Some(&[0x08, 0x00]);
    frame.get(if v4 { 30..34 } else { 38..54 }).unwrap_or_default()
}

/// Where two frames differ, for people.
fn changes(expected: &[u8], got: &[u8]) -> String {
    let mut text = String::new();
    if expected.len() != got.len() {
        let _infallible = write!(text, "length {} | {}; ", expected.len(), got.len());
    }
    let mut differing = (0..expected.len().min(got.len())).filter(|i| expected[*i] != got[*i]).peekable();
    if differing.peek().is_none() {
        text.push_str("no bytes differ");
    }
    for i in differing.by_ref().take(24) {
        let _infallible = write!(text, "[{i}] {:02x} | {:02x}, ", expected[i], got[i]);
    }
    if differing.peek().is_some() {
        text.push('…');
    }
    text
}
