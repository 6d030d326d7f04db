//! Load for a while: mixed traffic while backends change fifty times a second and the agent restarts; a flood of new flows. Needs root.
//!
//! `LB_SOAK_SECONDS` says for how long; `cargo xtask soak` sets it.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use lb_tests::hosts::{Hosts, Manifest, Place, Talk};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

/// Time of a run that nobody gave a time.
const SECONDS: u64 = 120;
/// Between two changes of the backends.
const CHANGE: Duration = Duration::from_millis(20);
/// Between two restarts of the agent.
const RESTART: Duration = Duration::from_secs(10);
/// Between two connections of one client: its ports are not endless.
const PAUSE: Duration = Duration::from_millis(3);

const PLACES: [Place; 3] = [Place::Local(0), Place::Local(1), Place::Remote];

/// Counts of what a soak has done.
#[derive(Debug, Default)]
struct Done {
    stop: AtomicBool,
    connections: AtomicU64,
    datagrams: AtomicU64,
    echoes: AtomicU64,
    changes: AtomicU64,
}

impl Done {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn one(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The rest of the run is told to stop also when this one panics.
struct StopAtEnd<'a>(&'a Done);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

fn seconds() -> u64 {
    std::env::var("LB_SOAK_SECONDS")
        .ok()
        .map_or(SECONDS, |text| text.parse().expect("LB_SOAK_SECONDS is a number"))
}

fn service(places: &[Place]) -> Manifest {
    Manifest::new("web", 1, places)
}

/// Short connections, one after another.
fn connect_again_and_again(hosts: &Hosts, to: SocketAddr, done: &Done) {
    let _stop = StopAtEnd(done);
    while done.goes_on() {
        let heard = hosts.dial(Place::Client, to);
        heard.unwrap_or_else(|error| panic!("connection to {to}: {error}"));
        Done::one(&done.connections);
        thread::sleep(PAUSE);
    }
}

/// Questions over one socket, which must be answered whatever becomes of the backend that answered the last.
fn ask_again_and_again(hosts: &Hosts, to: SocketAddr, done: &Done) {
    let _stop = StopAtEnd(done);
    let socket = hosts.udp(Place::Client, to);
    while done.goes_on() {
        socket.ask(b"and you?").unwrap_or_else(|error| panic!("datagram to {to}: {error}"));
        Done::one(&done.datagrams);
        thread::sleep(PAUSE);
    }
}

/// Connections that stay.
fn talk_on(hosts: &Hosts, to: SocketAddr, done: &Done) {
    let _stop = StopAtEnd(done);
    let mut talks: Vec<Talk> = (0..8).map(|_| hosts.connect(Place::Client, to).expect("connects")).collect();
    let bytes = [b'x'; 3000];
    while done.goes_on() {
        for talk in &mut talks {
            talk.echo(&bytes).unwrap_or_else(|error| panic!("connection to {to} that stays: {error}"));
            Done::one(&done.echoes);
        }
        thread::sleep(PAUSE);
    }
    talks.into_iter().for_each(|talk| talk.finish().expect("ends in order"));
}

/// Each non-empty set of backends in turn.
fn change_again_and_again(hosts: &Hosts, done: &Done) {
    let _stop = StopAtEnd(done);
    while done.goes_on() {
        let start = Instant::now();
        let number = done.changes.load(Ordering::Relaxed) % 7 + 1;
        let places: Vec<_> = PLACES.iter().enumerate().filter(|(bit, _)| number >> bit & 1 == 1).collect();
        let places: Vec<_> = places.into_iter().map(|(_, place)| *place).collect();
        hosts.net.write("web.yaml", &service(&places).text());
        Done::one(&done.changes);
        thread::sleep(CHANGE.saturating_sub(start.elapsed()));
    }
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// No connection fails, no datagram is lost, the agent's memory does not grow, and (when the scene ends) every packet
/// is accounted for.
#[test]
fn nothing_fails_while_backends_change_and_the_agent_restarts() {
    let hosts = Hosts::new();
    hosts.net.write("web.yaml", &service(&PLACES).text());
    let mut agent = Some(hosts.agent("tc", &[]));
    let done = Done::default();
    let begin = Instant::now();
    let mut memory = Vec::new();
    thread::scope(|scope| {
        let _stop = StopAtEnd(&done);
        for v6 in [false, true] {
            let to = service(&PLACES).vip(v6);
            let (hosts, done) = (&hosts, &done);
            scope.spawn(move || connect_again_and_again(hosts, to, done));
            scope.spawn(move || ask_again_and_again(hosts, to, done));
            scope.spawn(move || talk_on(hosts, to, done));
        }
        scope.spawn(|| change_again_and_again(&hosts, &done));
        let mut restarts = 0;
        while begin.elapsed() < Duration::from_secs(seconds()) && done.goes_on() {
            let next = Instant::now() + RESTART;
            while Instant::now() < next && done.goes_on() {
                thread::sleep(Duration::from_millis(50));
            }
            let old = agent.take().expect("an agent");
            memory.push(resident(old.pid()));
            if restarts % 2 == 0 {
                old.kill();
            } else {
                let (status, log) = old.terminate();
                assert!(status.success(), "{log}");
            }
            restarts += 1;
            agent = Some(hosts.agent("tc", &[]));
            eprintln!(
                "{:.0} s, {restarts} restarts: {done:?}, {memory:?} KiB",
                begin.elapsed().as_secs_f64()
            );
        }
    });
    let counts = [&done.connections, &done.datagrams, &done.echoes, &done.changes];
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{done:?}");
    let (first, most) = (memory[0], memory.iter().max().expect("a restart"));
    assert!(*most < first * 3 / 2 + 8192, "the agent's memory grew: {memory:?} KiB");
    let log = agent.expect("an agent").log();
    assert!(!log.contains("ERROR"), "{log}");
}

/// New flows from sources all over the place, more than the table holds, while a thousand connections carry traffic.
/// The flood waits for the connections and not for the clock: each has a packet for every 32,768 new flows at least.
#[test]
fn a_flood_breaks_none_of_a_thousand_connections() {
    const TABLE: &str = "1048576";
    const ROUNDS: u32 = 24;
    const WORKERS: usize = 2;
    let hosts = Hosts::new();
    let web = Manifest::new("web", 1, &[Place::Local(0)]);
    let flooded = Manifest::new("flooded", 2, &[Place::Local(1)]);
    hosts.net.write("web.yaml", &web.text());
    hosts.net.write("flooded.yaml", &flooded.text());
    let _agent = hosts.agent("tc", &["--max-flows", TABLE]);
    let talks =
        |_| (0..500).map(|_| hosts.connect(Place::Client, web.vip(false)).expect("connects")).collect();
    let connections: Vec<Vec<Talk>> = (0..WORKERS).map(talks).collect();
    let before = hosts.count("new-flow");
    let (barrier, failed) = (Barrier::new(WORKERS + FLOODERS as usize), AtomicBool::new(false));
    let start = Instant::now();
    thread::scope(|scope| {
        for mut talks in connections {
            let (barrier, failed) = (&barrier, &failed);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    for talk in &mut talks {
                        if let Err(error) = talk.echo(b"still there") {
                            eprintln!("round {round}: {error}");
                            failed.store(true, Ordering::Relaxed);
                        }
                    }
                    barrier.wait();
                }
            });
        }
        for number in 0..FLOODERS {
            let (hosts, barrier, to) = (&hosts, &barrier, flooded.vip(false));
            scope.spawn(move || {
                let mut flood = Flood::new(hosts, to, number);
                for _ in 0..ROUNDS {
                    flood.send();
                    barrier.wait();
                }
            });
        }
    });
    let flows = u64::from(FLOODERS * BURST * ROUNDS);
    eprintln!("{flows} new flows at {:.0}/s", flows as f64 / start.elapsed().as_secs_f64());
    assert!(!failed.load(Ordering::Relaxed), "connections broke");
    let counted = hosts.count("new-flow") - before;
    assert!(counted >= flows, "{counted} new flows were counted of {flows}");
}

/// Threads that flood.
const FLOODERS: u32 = 2;
/// Packets that one of them sends at a time.
const BURST: u32 = 16_384;

/// Packets of sources and ports that were not there before.
struct Flood {
    wire: OwnedFd,
    to: SockaddrIn,
    packet: [u8; Self::LENGTH],
    next: u32,
}

impl Flood {
    const LENGTH: usize = 33;

    fn new(hosts: &Hosts, to: SocketAddr, number: u32) -> Self {
        let SocketAddr::V4(to) = to else { panic!("IPv4") };
        let wire = hosts.inside(Place::Client, || {
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
                .expect("a raw socket")
        });
        let builder = PacketBuilder::ipv4([10, 77, 0, 0], to.ip().octets(), 64).udp(0, to.port());
        let mut packet = Vec::with_capacity(Self::LENGTH);
        builder.write(&mut packet, b"flood").expect("a packet");
        // No UDP checksum: this may not be wrong in IPv4.
        packet[26..28].fill(0);
        let packet = packet.try_into().expect("as long as these");
        Self { wire, to: to.into(), packet, next: number << 22 }
    }

    fn send(&mut self) {
        for number in self.next..self.next + BURST {
            // All different: an odd factor only mixes. The backend's address is below 128. The kernel fills in the
            // header's checksum.
            let [_, host, high, low] = (number.wrapping_mul(0x9e37_79b1) & 0x007f_ffff).to_be_bytes();
            self.packet[15] = 128 | host;
            self.packet[20..22].copy_from_slice(&[high, low]);
            sendto(self.wire.as_raw_fd(), &self.packet, &self.to, MsgFlags::empty()).expect("sends");
        }
        self.next += BURST;
    }
}
