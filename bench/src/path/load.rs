//! What the client does, and what that costs.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sched::CpuSet;
use nix::unistd::Pid;

use super::cpu::cpu_time;
use super::server::{BULK, CHUNK, REQUEST, REQUEST_BYTES};
use super::stage::Stage;
use crate::cpus;
use crate::sample::Spread;

/// How long the client waits before it takes a connection for broken: longer than TCP needs to send again what was lost.
const PATIENCE: Duration = Duration::from_secs(40);

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One connection that sends as much as it can.
    Bulk,
    /// One connection, one request after another.
    Requests,
    /// One request on each connection, so many clients at once.
    Connections(usize),
}

impl Load {
    /// All.
    pub(crate) const ALL: [Self; 4] =
        [Self::Bulk, Self::Requests, Self::Connections(1), Self::Connections(32)];

    /// Its name in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Requests => "requests",
            Self::Connections(1) => "connections-1",
            Self::Connections(_) => "connections-32",
        }
    }

    /// Where both ends are to run: on one CPU if they take turns anyhow, or what is measured is above all how long it takes to wake
    /// another CPU up.
    fn cpus(self) -> io::Result<CpuSet> {
        match self {
            Self::Bulk | Self::Requests | Self::Connections(1) => cpus::one(),
            Self::Connections(_) => cpus::all(),
        }
    }

    const fn clients(self) -> usize {
        match self {
            Self::Connections(clients) => clients,
            Self::Bulk | Self::Requests => 1,
        }
    }
}

/// What one sample gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Units of work in a second: requests, or bytes.
    pub(crate) rate: f64,
    /// Median time of a unit in ns; 0 for bulk.
    pub(crate) p50: f64,
    /// CPU time for a unit in ns.
    pub(crate) cpu: f64,
    /// Connections that broke.
    pub(crate) broken: u64,
}

/// Puts load on `target`, behind which is the stage's server, for a time.
pub(crate) fn run(load: Load, stage: &Stage, target: SocketAddrV4, time: Duration) -> anyhow::Result<Sample> {
    let on = load.cpus()?;
    stage.server()?.stay_on(&on).context("keep the server on some CPUs")?;
    let (ready, go) = (Barrier::new(load.clients() + 1), Barrier::new(load.clients() + 1));
    let one = || -> anyhow::Result<Work> {
        let entered = stage.enter_client();
        let moved = cpus::set(Pid::from_raw(0), &on);
        // Whatever has failed, the others must not wait for ever.
        ready.wait();
        go.wait();
        entered?;
        moved.context("keep the client on some CPUs")?;
        let end = Instant::now() + time;
        match load {
            Load::Bulk => bulk(target, end),
            Load::Requests => requests(target, end),
            Load::Connections(_) => connections(target, end),
        }
        .with_context(|| format!("{} to {target}", load.name()))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..load.clients()).map(|_| scope.spawn(one)).collect();
        ready.wait();
        let (cpu, start) = (cpu_time(), Instant::now());
        go.wait();
        let mut work = Work::default();
        for thread in threads {
            let done = thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))?;
            work.units += done.units;
            work.broken += done.broken;
            work.times.extend(done.times);
        }
        let (elapsed, cpu) = (start.elapsed().as_nanos() as f64, cpu_time()?.saturating_sub(cpu?));
        anyhow::ensure!(work.units > 0.0, "{} to {target}: nothing was done", load.name());
        Ok(Sample {
            rate: work.units / elapsed * 1e9,
            p50: Spread::of(work.times).median,
            cpu: cpu.as_nanos() as f64 / work.units,
            broken: work.broken,
        })
    })
}

#[derive(Default)]
struct Work {
    units: f64,
    times: Vec<f64>,
    broken: u64,
}

fn connect(target: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target.into(), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

// Each does its work once at least, however late it comes to it.

fn bulk(target: SocketAddrV4, end: Instant) -> io::Result<Work> {
    let mut stream = connect(target)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let chunk = vec![BULK; CHUNK];
    let mut units = 0.0;
    loop {
        stream.write_all(&chunk)?;
        units += CHUNK as f64;
        if Instant::now() >= end {
            break;
        }
    }
    // Until the other side has it all.
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0]).or_else(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Ok(()),
        _ => Err(error),
    })?;
    Ok(Work { units, ..Work::default() })
}

fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[REQUEST; REQUEST_BYTES])?;
    stream.read_exact(&mut [0; REQUEST_BYTES])
}

fn requests(target: SocketAddrV4, end: Instant) -> io::Result<Work> {
    let mut stream = connect(target)?;
    let mut work = Work::default();
    loop {
        let start = Instant::now();
        ask(&mut stream)?;
        if work.done_by(end, start) {
            return Ok(work);
        }
    }
}

fn connections(target: SocketAddrV4, end: Instant) -> io::Result<Work> {
    let mut work = Work::default();
    loop {
        let start = Instant::now();
        match connect(target).and_then(|mut stream| ask(&mut stream)) {
            Ok(()) if work.done_by(end, start) => return Ok(work),
            Ok(()) => {}
            // Nobody listens, or nobody answers: not one connection that breaks, but all.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && start < end => work.broken += 1,
            Err(error) => return Err(error),
        }
    }
}

impl Work {
    /// One more, begun at `start`. Says whether it was the last.
    fn done_by(&mut self, end: Instant, start: Instant) -> bool {
        let now = Instant::now();
        self.times.push((now - start).as_nanos() as f64);
        self.units += 1.0;
        now >= end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::contender::Contender;

    /// Every load gets through, over plain routing and over rules in kube-proxy's shape. Needs root and `nft`.
    #[test]
    fn loads_get_through() {
        for (number, contender) in [Contender::Direct, Contender::Nftables(3)].into_iter().enumerate() {
            // Numbers of stages are the process's own.
            let mut stage = Stage::new(100 + number, 1_500, contender).expect("a stage (as root)");
            let agent = contender.set_up(&mut stage).expect("the contender is set up");
            assert!(agent.is_none());
            for load in Load::ALL {
                let sample = run(load, &stage, contender.target(), Duration::from_millis(5));
                let sample = sample.unwrap_or_else(|error| panic!("{}: {error:#}", contender.name()));
                assert!(sample.rate > 0.0 && sample.broken == 0, "{}: {sample:?}", contender.name());
            }
        }
    }
}
