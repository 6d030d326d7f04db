//! `lb explain`: what happens to the first packet of a connection, and why.
//!
//! The way is the agent's: objects → model → plan → tables, in memory. Then the host build of the packet engine gets
//! a packet made for it ([`packet`]), and what it did is put beside what the model knows ([`report`]): the frontend, the
//! policy, each backend with the rule that left it in or out. [`nearest`] says what a packet that found no frontend
//! came close to. [`live`] gives the same packet to the kernel programs.

mod args;
mod backends;
mod engine;
mod live;
mod nearest;
mod packet;
mod report;
mod situation;
mod target;
mod text;
mod verdict;

use std::io::Write as _;

use anyhow::{Context as _, bail};
use tracing::{error, warn};

pub use args::{Args, Output};
pub use report::Explanation;
pub use situation::Situation;

use crate::source::{Severity, Source};

/// Runs the command.
///
/// # Errors
/// When the question cannot be understood, or the kernel does not agree (`--live`).
pub fn execute(args: &Args) -> anyhow::Result<()> {
    let snapshot = Source::new(&args.manifests).with_pods_from(args.pods_from.clone()).load();
    for problem in &snapshot.problems {
        match problem.severity {
            Severity::Error => error!("{problem}"),
            Severity::Warning => warn!("{problem}"),
        }
    }
    let situation = Situation::new(args, snapshot.objects)?;
    for note in &situation.notes {
        warn!("{note}");
    }
    let explanation = explain(args, &situation)?;
    let text = match args.output {
        Output::Text => explanation.text(),
        Output::Json => serde_json::to_string_pretty(&explanation).context("cannot write JSON")? + "\n",
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    if explanation.live.as_ref().is_some_and(|live| !live.agree) {
        bail!("the kernel's answer differs from what the manifests say");
    }
    Ok(())
}

/// Explains one packet.
///
/// # Errors
/// When FROM or TO name nothing, when the objects do not fit the tables, or when the kernel cannot be asked.
pub fn explain(args: &Args, situation: &Situation) -> anyhow::Result<Explanation> {
    let question = target::question(args, situation)?;
    let mut live = args.live.then(|| live::Live::open(&args.pin_dir)).transpose()?;
    let memory = match &mut live {
        Some(live) => live.memory(&question)?,
        None => lb_common::memory::Memory::new(),
    };
    let run = engine::run(memory, &situation.built.desired, &question)?;
    let mut explanation = report::explanation(situation, &question, &run);
    if let Some(live) = &mut live {
        explanation.live = Some(live.compare(&question, &run, &explanation.backends)?);
    }
    Ok(explanation)
}
