//! `packet`: what one packet costs each program, by `BPF_PROG_TEST_RUN`.

pub(crate) mod case;
pub(crate) mod driver;
pub(crate) mod growth;
pub(crate) mod hook;
pub(crate) mod world;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use lb_common::abi::WAYS;
use lb_tests::rows::net::At;
use lb_tests::rows::service::Svc;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

use self::case::{Case, FLOWS};
use self::driver::{Driver, noop, run};
use self::hook::Hook;
use self::world::{FLOW_SETS, Kind, World, capacity};
use crate::cpus;
use crate::sample::{Random, Spread};

/// Packets of a sample with a program that does nothing: what a call costs by itself, give or take, is then a small part.
pub(crate) const IDLE_PACKETS: u32 = 131_072;
/// Least packets of a sample with ours.
const PACKETS: u32 = 65_536;
/// Packets of a sample of new flows.
pub(crate) const NEW_FLOWS: u32 = 16_384;
/// Pods behind each Service.
const BACKENDS: u8 = 16;
/// Packets before a sample of new flows is timed.
const WARM: u32 = 1_024;
/// Samples of the program that does nothing, in each round.
const BARE_SAMPLES: usize = 2;
/// A frame of a usual length for it.
const FRAME: [u8; 128] = [0; 128];
/// Test runs to learn what the call itself costs.
const CALLS: usize = 31;
/// Packets in each of them. With one only, the kernel would not do all that it does with many: at XDP it puts the program
/// into its dispatcher first, which takes longer than thousands of packets (seen on 6.18).
const CALL_PACKETS: u32 = 2;

/// How much to do.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Rounds for each family and transport.
    pub(crate) rounds: usize,
    /// Seed of every order.
    pub(crate) seed: u64,
    /// Only cases whose names contain this.
    pub(crate) only: Option<String>,
}

impl Effort {
    /// Whether a case at a hook is wanted.
    fn wants(&self, hook: Hook, kind: Kind, case: Case) -> bool {
        let name = format!("{} {} {} {}", hook.name(), kind.net.name(), kind.protocol, case.name());
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Rounds for each family and transport.
    pub(crate) rounds: usize,
    /// What measuring costs.
    pub(crate) harness: Vec<Harness>,
    /// The cases.
    pub(crate) cases: Vec<Timed>,
}

/// What measuring costs at a hook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Harness {
    /// The hook.
    pub(crate) hook: &'static str,
    /// A program that does nothing, ns for each packet.
    pub(crate) noop_ns: Spread,
    /// The driver, ns for each packet: subtracted.
    pub(crate) driver_ns: Spread,
    /// One call of the test run, ns: subtracted.
    pub(crate) call_ns: Spread,
}

/// A case at a hook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Timed {
    /// The hook.
    pub(crate) hook: &'static str,
    /// `IPv4` or `IPv6`.
    pub(crate) family: &'static str,
    /// `TCP` or `UDP`.
    pub(crate) protocol: String,
    /// The case.
    pub(crate) case: String,
    /// ns for each packet, the harness's cost subtracted, that of a program that does nothing not.
    pub(crate) ns: Spread,
    /// What of it our program adds to one that does nothing.
    pub(crate) own_ns: Spread,
    /// `ns` against a program that does nothing, in the same round.
    pub(crate) ratio: Spread,
}

/// CPU time that this thread has used.
fn cpu_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// CPU time of `body`, in ns.
pub(crate) fn timed(body: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let before = cpu_time()?;
    body()?;
    Ok((cpu_time()? - before).as_nanos() as f64)
}

/// Measures everything.
pub(crate) fn measure(effort: Effort) -> anyhow::Result<Report> {
    on_one_cpu(|| Bench::new(effort)?.measure())
}

/// Does `body` on a thread that stays on one CPU: what follows wants all of them.
pub(crate) fn on_one_cpu<T: Send>(body: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cpus::set(Pid::from_raw(0), &cpus::one()?).context("stay on one CPU")?;
            body()
        });
        thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the measuring thread panicked")))
    })
}

struct Bench {
    effort: Effort,
    random: Random,
    world: World,
    noops: Vec<(Hook, OwnedFd, f64)>,
    harness: BTreeMap<&'static str, [Vec<f64>; 3]>,
    cases: Vec<Timed>,
}

/// One thing to time in a round: a hook's no-op program by itself, or a case with the no-op program or with ours as its target.
#[derive(Clone, Copy, Debug)]
enum Job {
    Bare(usize),
    Idle(usize),
    Ours(usize),
}

/// A case at a hook, ready to run.
struct Ready {
    hook: Hook,
    case: Case,
    packets: u32,
    idle: Driver,
    ours: Driver,
    /// The same flows at tc.
    warm: Rc<Driver>,
    samples: Vec<[f64; 3]>,
}

impl Bench {
    fn new(effort: Effort) -> anyhow::Result<Self> {
        let pods: Vec<u8> = (1..=BACKENDS).collect();
        let services = Kind::ALL.map(|kind| Svc::new(kind.net, kind.protocol, kind.service(), &pods));
        let world = World::new(&Hook::ALL, &services, capacity)?;
        let mut noops = Vec::new();
        let mut harness: BTreeMap<_, [Vec<f64>; 3]> = BTreeMap::new();
        for hook in Hook::ALL {
            let program = noop(hook).context("load a program that does nothing")?;
            let mut calls = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                calls.push(timed(|| run(program.as_fd(), &FRAME, CALL_PACKETS, hook.pass()))?);
            }
            let call = Spread::of(calls.iter().copied()).median;
            harness.entry(hook.name()).or_default()[2] = calls;
            noops.push((hook, program, call));
        }
        Ok(Self { random: Random::new(effort.seed), effort, world, noops, harness, cases: Vec::new() })
    }

    fn measure(mut self) -> anyhow::Result<Report> {
        let wanted = |kind: &Kind| {
            let all = Case::STEADY.into_iter().chain([Case::NewFlow, Case::NewFlowFull]);
            Hook::ALL.iter().any(|hook| all.clone().any(|case| self.effort.wants(*hook, *kind, case)))
        };
        for kind in Kind::ALL.into_iter().filter(wanted).collect::<Vec<_>>() {
            let backends = self.world.establish(kind, FLOWS)?;
            self.group(kind, &Case::STEADY, &backends)?;
            self.group(kind, &[Case::NewFlow], &[])?;
            self.group(kind, &[Case::NewFlowFull], &[])?;
            self.world.clear_flows(kind)?;
        }
        let harness = self.harness.into_iter().map(|(hook, [noop, driver, call])| Harness {
            hook,
            noop_ns: Spread::of(noop),
            driver_ns: Spread::of(driver),
            call_ns: Spread::of(call),
        });
        Ok(Report { rounds: self.effort.rounds, harness: harness.collect(), cases: self.cases })
    }

    /// Times some cases of a kind at all hooks, in rounds.
    fn group(&mut self, kind: Kind, cases: &[Case], backends: &[At]) -> anyhow::Result<()> {
        let mut ready = Vec::new();
        for &case in cases {
            let headers = case.headers(kind, backends, &mut self.random).context("make a list of packets")?;
            let fresh = !Case::STEADY.contains(&case);
            let warm = Driver::new(Hook::Tc, &headers, self.world.program(Hook::Tc)?, Hook::Tc.pass());
            let warm = Rc::new(warm.context("load the driver")?);
            for (hook, noop, _) in self.noops.iter().filter(|(hook, ..)| self.effort.wants(*hook, kind, case))
            {
                let target = self.world.program(*hook)?;
                let driver = |target| Driver::new(*hook, &headers, target, hook.pass());
                ready.push(Ready {
                    hook: *hook,
                    case,
                    packets: if fresh { NEW_FLOWS } else { headers.len().max(PACKETS) },
                    idle: driver(noop.as_fd()).context("load the driver")?,
                    ours: driver(target).context("load the driver")?,
                    warm: warm.clone(),
                    samples: Vec::new(),
                });
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        if cases == [Case::NewFlowFull] {
            // Packets have the same numbers again: what is left of the flows before would be known.
            self.world.clear_flows(kind)?;
            let most = FLOW_SETS * WAYS as u32;
            // Each brings two entries.
            ready[0].ours.run(most / 2 + most / 8)?;
        }
        let mut jobs: Vec<Job> = (0..self.noops.len()).flat_map(|n| [Job::Bare(n); BARE_SAMPLES]).collect();
        jobs.extend((0..ready.len()).flat_map(|n| [Job::Idle(n), Job::Ours(n)]));
        for _ in 0..self.effort.rounds {
            self.random.shuffle(&mut jobs);
            self.round(kind, &jobs, &mut ready)?;
        }
        for Ready { hook, case, samples, .. } in ready {
            let ns = |[bare, idle, ours]: &[f64; 3]| bare + ours - idle;
            self.cases.push(Timed {
                hook: hook.name(),
                family: kind.net.name(),
                protocol: kind.protocol.to_string(),
                case: case.name(),
                ns: Spread::of(samples.iter().map(ns)),
                own_ns: Spread::of(samples.iter().map(|[_, idle, ours]| ours - idle)),
                ratio: Spread::of(samples.iter().map(|sample| ns(sample) / sample[0])),
            });
            let harness = self.harness.entry(hook.name()).or_default();
            harness[0].extend(samples.iter().map(|[bare, ..]| bare));
            harness[1].extend(samples.iter().map(|[bare, idle, _]| idle - bare));
        }
        Ok(())
    }

    fn round(&mut self, kind: Kind, jobs: &[Job], ready: &mut [Ready]) -> anyhow::Result<()> {
        let mut bare = vec![Vec::new(); self.noops.len()];
        let mut times = vec![[0.0; 3]; ready.len()];
        for job in jobs {
            match *job {
                Job::Bare(at) => {
                    let (hook, program, call) = &self.noops[at];
                    let ns = timed(|| run(program.as_fd(), &FRAME, IDLE_PACKETS, hook.pass()))?;
                    bare[at].push((ns - call) / f64::from(IDLE_PACKETS));
                }
                Job::Idle(at) => times[at][1] = self.sample(kind, &ready[at], false)?,
                Job::Ours(at) => times[at][2] = self.sample(kind, &ready[at], true)?,
            }
        }
        for (ready, mut times) in ready.iter_mut().zip(times) {
            let at = self.noops.iter().position(|(hook, ..)| *hook == ready.hook).unwrap_or(0);
            times[0] = Spread::of(bare[at].iter().copied()).median;
            ready.samples.push(times);
        }
        Ok(())
    }

    /// ns for each packet of a case, the driver's included.
    fn sample(&mut self, kind: Kind, ready: &Ready, ours: bool) -> anyhow::Result<f64> {
        let call = self.noops.iter().find(|(hook, ..)| *hook == ready.hook).map_or(0.0, |(_, _, call)| *call);
        if !ours {
            let ns = timed(|| ready.idle.run(IDLE_PACKETS))?;
            return Ok((ns - call) / f64::from(IDLE_PACKETS));
        }
        if ready.case == Case::NewFlow {
            self.world.clear_flows(kind)?;
        }
        // Flows are brought up to date once a second: a packet of a flow that was idle for longer does more. What is timed is the
        // packet after that one, which goes through tc, where a test run does not wait for anybody.
        let packets = ready.packets;
        let warm = if Case::STEADY.contains(&ready.case) { packets } else { WARM };
        let all = u64::from(warm) + u64::from(packets);
        let sample = self.world.counting(ready.case.reason(), all, || {
            ready.warm.run(warm)?;
            Ok(timed(|| ready.ours.run(packets))?)
        });
        let ns = sample.with_context(|| {
            format!("{} at {}, {} {}", ready.case.name(), ready.hook.name(), kind.net.name(), kind.protocol)
        })?;
        Ok((ns - call) / f64::from(packets))
    }
}
