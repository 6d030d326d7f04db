//! `path`: what traffic costs from a client pod over a node to a server pod.

pub(crate) mod contender;
mod cpu;
mod iptables;
mod load;
mod nftables;
mod rules;
mod server;
pub(crate) mod stage;

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use self::contender::{ALL, Contender};
use self::load::{Load, Sample};
use self::stage::Stage;
use crate::agent::Agent;
use crate::sample::{Random, Spread};

/// MTU of most veths.
const USUAL_MTU: u32 = 1_500;
/// MTU of large packets.
const JUMBO_MTU: u32 = 9_000;
/// Part of a sample's time for one before the rounds, to fill caches and tables.
const WARM_UP: u32 = 4;

/// How much to do.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Rounds.
    pub(crate) rounds: usize,
    /// Time of a sample.
    pub(crate) sample: Duration,
    /// Seed of every order.
    pub(crate) seed: u64,
    /// Only contenders whose names contain one of these words (commas between), and `direct`.
    pub(crate) only: Option<String>,
}

impl Effort {
    fn wants(&self, contender: Contender) -> bool {
        let name = contender.name();
        let named = |only: &str| only.split(',').any(|word| name.contains(word));
        contender == Contender::Direct || self.only.as_deref().is_none_or(named)
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Rounds.
    pub(crate) rounds: usize,
    /// Milliseconds of a sample.
    pub(crate) sample_ms: u64,
    /// Who did what.
    pub(crate) results: Vec<Outcome>,
    /// Who could not be set up.
    pub(crate) skipped: Vec<Skipped>,
}

/// Who could not be set up, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Skipped {
    /// Who.
    pub(crate) contender: String,
    /// Why.
    pub(crate) reason: String,
}

/// What one contender did under one load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Outcome {
    /// Who.
    pub(crate) contender: String,
    /// Which load.
    pub(crate) load: &'static str,
    /// MTU of all interfaces.
    pub(crate) mtu: u32,
    /// Units of work in a second: requests, connections, or Gbit.
    pub(crate) rate: Spread,
    /// Median time of a unit in µs; not for bulk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<Spread>,
    /// CPU time of a unit in µs; for bulk, of a gigabyte in ms.
    pub(crate) cpu: Spread,
    /// Connections that broke, in all rounds.
    pub(crate) broken: u64,
    /// The same against no balancer, in the same round.
    pub(crate) ratio: Ratios,
}

/// Ratios to direct.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ratios {
    /// Of `rate`.
    pub(crate) rate: Spread,
    /// Of `p50_us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<Spread>,
    /// Of `cpu`.
    pub(crate) cpu: Spread,
}

/// A contender on its stage.
struct Player {
    contender: Contender,
    mtu: u32,
    // Before the stage: the agent goes before the namespaces it is in.
    _agent: Option<Agent>,
    stage: Stage,
    loads: Vec<(Load, Vec<Sample>)>,
}

/// Measures everybody.
pub(crate) fn measure(effort: &Effort) -> anyhow::Result<Report> {
    stage::sweep().context("remove what an earlier run has left")?;
    let mut players = Vec::new();
    let mut skipped = Vec::new();
    let wanted =
        ALL.iter().filter(|(contender, _)| effort.wants(*contender)).flat_map(|(contender, jumbo)| {
            [Some(USUAL_MTU), jumbo.then_some(JUMBO_MTU)].into_iter().flatten().map(|mtu| (*contender, mtu))
        });
    for (number, (contender, mtu)) in wanted.enumerate() {
        let mut stage =
            Stage::new(number, mtu, contender).context("make a client, a node and a server (as root)")?;
        match contender.set_up(&mut stage) {
            Ok(agent) => {
                let loads = if mtu == JUMBO_MTU { &[Load::Bulk][..] } else { &Load::ALL };
                let loads = loads.iter().map(|load| (*load, Vec::new())).collect();
                players.push(Player { contender, mtu, _agent: agent, stage, loads });
            }
            // What is ours must work; others may lack their tools.
            Err(error) if matches!(contender, Contender::Nftables(_) | Contender::Iptables(_)) => {
                skipped.push(Skipped { contender: contender.name(), reason: format!("{error:#}") });
            }
            Err(error) => return Err(error.context(contender.name())),
        }
    }
    play(&mut players, effort)?;
    Ok(Report {
        rounds: effort.rounds,
        sample_ms: effort.sample.as_millis() as u64,
        results: outcomes(&players),
        skipped,
    })
}

fn play(players: &mut [Player], effort: &Effort) -> anyhow::Result<()> {
    let mut order: Vec<(usize, usize)> = players
        .iter()
        .enumerate()
        .flat_map(|(player, Player { loads, .. })| (0..loads.len()).map(move |load| (player, load)))
        .collect();
    let mut random = Random::new(effort.seed);
    for round in 0..=effort.rounds {
        random.shuffle(&mut order);
        for &(player, load) in &order {
            let Player { contender, stage, loads, .. } = &mut players[player];
            let (load, samples) = &mut loads[load];
            let time = if round == 0 { effort.sample / WARM_UP } else { effort.sample };
            let sample =
                load::run(*load, stage, contender.target(), time).with_context(|| contender.name())?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    Ok(())
}

fn outcomes(players: &[Player]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for player in players {
        for (load, samples) in &player.loads {
            let direct = players
                .iter()
                .find(|other| other.contender == Contender::Direct && other.mtu == player.mtu)
                .and_then(|other| other.loads.iter().find(|(other, _)| other == load));
            let Some((_, direct)) = direct else { continue };
            let spread = |value: fn(&Sample) -> f64, scale: f64| {
                Spread::of(samples.iter().map(|sample| value(sample) * scale))
            };
            let ratio = |value: fn(&Sample) -> f64| {
                Spread::of(samples.iter().zip(direct).map(|(one, other)| value(one) / value(other)))
            };
            let bulk = *load == Load::Bulk;
            // Bytes in a second to Gbit; ns for a byte to ms for 10⁹ of them, ns to µs.
            let (rate_scale, cpu_scale) = if bulk { (8e-9, 1e3) } else { (1.0, 1e-3) };
            outcomes.push(Outcome {
                contender: player.contender.name(),
                load: load.name(),
                mtu: player.mtu,
                rate: spread(|sample| sample.rate, rate_scale),
                p50_us: (!bulk).then(|| spread(|sample| sample.p50, 1e-3)),
                cpu: spread(|sample| sample.cpu, cpu_scale),
                broken: samples.iter().map(|sample| sample.broken).sum(),
                ratio: Ratios {
                    rate: ratio(|sample| sample.rate),
                    p50: (!bulk).then(|| ratio(|sample| sample.p50)),
                    cpu: ratio(|sample| sample.cpu),
                },
            });
        }
    }
    outcomes
}
