//! The same packet in the kernel, beside the traffic (`--live`).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use lb_common::abi::{Config, algorithm};
use lb_common::memory::Memory;
use lb_common::reason::{Class, Reason};
use lb_common::tables::Table;
use serde::Serialize;

use super::backends::Candidate;
use super::engine::Run;
use super::packet::{Headers, headers};
use super::target::Question;
use crate::dataplane::{self, Hook, LinkKind, Outcome, PinDir, Rehearsal};
use crate::maps::{Entry, KernelStore, MapStore};
use crate::model::desired::Family;
use crate::plan::Tables;
use crate::show::clock;

/// What both answers start from, besides the planner's tables and the flows of the packet's family.
const STATE: [Table; 3] = [Table::Affinity, Table::Turns, Table::OpenFlows];

/// One thing on which the answers may differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// `verdict`, `source` or `destination`.
    pub name: &'static str,
    /// What the manifests lead to.
    pub manifests: String,
    /// What the kernel does.
    pub kernel: String,
    /// Whether that is the same.
    pub agree: bool,
}

/// What one program says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The program.
    pub program: &'static str,
    /// Interfaces that it is attached to.
    pub interfaces: Vec<String>,
    /// The answer, beside the manifests' one.
    pub fields: Vec<Field>,
    /// Whether all agree.
    pub agree: bool,
}

/// The kernel's answers beside the one from the manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether all agree.
    pub agree: bool,
    /// By program.
    pub programs: Vec<Answer>,
    /// Map operations that would bring the tables in line with the manifests: 0 when the agent has caught up, and was
    /// started with the same options.
    pub pending_operations: usize,
}

/// What is pinned.
#[derive(Debug)]
pub(super) struct Live {
    pins: PinDir,
    store: KernelStore,
    config: Config,
    state: Vec<(Table, Vec<Entry>)>,
}

impl Live {
    pub(super) fn open(pin_dir: &Path) -> anyhow::Result<Self> {
        let pins = PinDir::new(pin_dir);
        if !pins.map(Table::Meta).exists() {
            bail!("{}: nothing is pinned there, so there is no dataplane to ask", pin_dir.display());
        }
        let store = pins.open_checked()?;
        let config = dataplane::for_maps(dataplane::config(), &store)?;
        Ok(Self { pins, store, config, state: Vec::new() })
    }

    /// The tables as they are now, for the host build of the engine.
    pub(super) fn memory(&mut self, question: &Question) -> anyhow::Result<Memory> {
        let flows = match Family::of(question.packet.headers.source.address) {
            Family::V4 => Table::FlowsV4,
            Family::V6 => Table::FlowsV6,
        };
        let now = clock::now(self.config.ticks_per_second).context("cannot read the kernel's clock")?;
        let memory = Memory::new().with_config(self.config);
        memory.set_now(now);
        for table in Tables::ALL.into_iter().chain(STATE).chain([flows]) {
            let entries = self.store.dump(table)?;
            for (key, value) in &entries {
                memory.update(table, key, value);
            }
            self.state.push((table, entries));
        }
        Ok(memory)
    }

    /// The programs at work, with the interfaces they are at. Without any, the one for tc.
    fn programs(&self) -> anyhow::Result<Vec<(&'static str, BTreeSet<String>)>> {
        let mut xdp = BTreeSet::new();
        let mut tc = BTreeSet::new();
        for link in self.pins.links_found()? {
            match link.kind {
                LinkKind::Ingress(Hook::Xdp | Hook::XdpGeneric) => drop(xdp.insert(link.iface)),
                LinkKind::Ingress(Hook::Tcx | Hook::Clsact) => drop(tc.insert(link.iface)),
                LinkKind::Egress(_) | LinkKind::Answer(_) => {}
            }
        }
        let mut programs = Vec::new();
        if tc.is_empty() == xdp.is_empty() || !tc.is_empty() {
            programs.push(("lb_tc_ingress", tc));
        }
        if !xdp.is_empty() {
            programs.push(("lb_xdp", xdp));
        }
        Ok(programs)
    }

    /// Asks every program at work.
    pub(super) fn compare(
        &self,
        question: &Question,
        run: &Run,
        backends: &[Candidate],
    ) -> anyhow::Result<Comparison> {
        let frame = question.packet.frame()?;
        let mut programs = Vec::new();
        for (program, interfaces) in self.programs()? {
            // Each begins with the state as it was.
            let mut rehearsal =
                Rehearsal::load(&self.pins, &self.store, &self.config, &self.state, question.external)?;
            let outcome = rehearsal.run(program, &frame)?;
            let fields = fields(run, &outcome, program, backends);
            programs.push(Answer {
                program,
                interfaces: interfaces.into_iter().collect(),
                agree: fields.iter().all(|field| field.agree),
                fields,
            });
        }
        let agree = programs.iter().all(|answer| answer.agree);
        Ok(Comparison { agree, programs, pending_operations: run.operations })
    }
}

fn fields(run: &Run, outcome: &Outcome, program: &str, backends: &[Candidate]) -> Vec<Field> {
    let verdict = |reason: Option<Reason>| match reason {
        Some(reason) => format!("{} ({})", reason.class().name(), reason.name()),
        None => "not counted".to_owned(),
    };
    let mut fields = vec![Field {
        name: "verdict",
        manifests: verdict(Some(run.reason)),
        kernel: verdict(outcome.reason),
        agree: outcome.reason == Some(run.reason),
    }];
    let by_kernel = after(outcome, program);
    if run.after.is_none() && by_kernel.is_none() {
        return fields;
    }
    // XDP leaves the answer to a program at tc.
    if program == "lb_xdp" && run.reason.class() == Class::Answered {
        return fields;
    }
    let mut compare = |name, part: fn(&Headers) -> String, excused: bool| {
        let text = |headers: &Option<Headers>| headers.as_ref().map_or("none".to_owned(), part);
        let (manifests, kernel) = (text(&run.after), text(&by_kernel));
        let agree = manifests == kernel || excused;
        fields.push(Field { name, manifests, kernel, agree });
    };
    compare("source", |headers| headers.source.to_string(), false);
    let by_chance = run.frontend.is_some_and(|frontend| {
        matches!(frontend.algorithm, algorithm::RANDOM | algorithm::LEAST_CONNECTIONS)
    });
    // Where chance decides, any backend that takes part is right.
    let takes_part = by_kernel.is_some_and(|headers| {
        let to = (headers.destination.address, headers.destination.port);
        backends.iter().any(|b| b.candidate && (b.address.ip(), Some(b.address.port())) == to)
    });
    compare("destination", |headers| headers.destination.to_string(), by_chance && takes_part);
    fields
}

/// Headers that a packet leaves a program with, when it has changed it.
fn after(outcome: &Outcome, program: &str) -> Option<Headers> {
    match outcome.reason?.class() {
        Class::Forwarded => headers(&outcome.frame),
        Class::Answered if program != "lb_xdp" => headers(&outcome.frame),
        Class::Answered | Class::Passed | Class::Dropped => None,
    }
}

impl Comparison {
    /// The text for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for answer in &self.programs {
            let place = match answer.interfaces.as_slice() {
                [] => "attached nowhere".to_owned(),
                interfaces => format!("at {}", interfaces.join(", ")),
            };
            let word = if answer.agree { "agrees" } else { "does not agree" };
            // Writing to a string never fails.
            let _infallible = writeln!(text, "kernel    {} ({place}) {word}", answer.program);
            for field in &answer.fields {
                let _infallible = if field.manifests == field.kernel {
                    writeln!(text, "          {}: {}", field.name, field.kernel)
                } else {
                    writeln!(
                        text,
                        "          {}: {} by the manifests, {} in the kernel{}",
                        field.name,
                        field.manifests,
                        field.kernel,
                        if field.agree { ": chance decides" } else { "" }
                    )
                };
            }
        }
        if self.pending_operations > 0 {
            let _infallible = writeln!(
                text,
                "note      the tables differ from the manifests in {} operations: the agent has not caught up, or has other options",
                self.pending_operations
            );
        }
        text
    }
}
