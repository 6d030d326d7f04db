//! The flow table when it is small: who gives way (C5), what is restored (C1), and all CPUs at the same sets. The kernel's
//! needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{FlowEntry, FlowKey};
use lb_common::engine::Position;
use lb_common::engine::flow_table::{self, Wrote};
use lb_common::memory_flows::MemoryFlows;
use lb_common::reason::Reason;
use lb_tests::rows::look::look;
use lb_tests::rows::net::{At, Net, surroundings};
use lb_tests::rows::row::Say;
use lb_tests::rows::service::Svc;
use lb_tests::rows::{Body, Hook, Host, Kernel, Packet};
use lb_userspace::maps::{change_flows, scan_flows};
use lb_userspace::model::desired::{Desired, Protocol, Surroundings};
use lb_userspace::plan::{DEFAULT_MASQUERADE_PORTS, Limits, Options, Planner};

const BACKENDS: [u8; 3] = [1, 2, 3];

/// A body with one service of three backends at the first service address, port 80.
fn serve(body: &mut dyn Body, net: Net, protocol: Protocol) {
    let services = [Svc::new(net, protocol, (net.vip(1), 80), &BACKENDS).finish()].into_iter().collect();
    bring(body, &Desired { services, surroundings: surroundings() }, Options::default());
}

fn bring(body: &mut dyn Body, desired: &Desired, options: Options) {
    let limits = Limits::of(body.store()).unwrap();
    let mut planner = Planner::adopt(body.store(), limits, options, Arc::new(|| Duration::ZERO)).unwrap();
    let report = planner.sync(body.store(), desired).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// A body with one service of one backend, all of whose clients are masqueraded, with these source ports.
fn masquerade(body: &mut dyn Body, net: Net, protocol: Protocol, ports: RangeInclusive<u16>) {
    let services = [Svc::new(net, protocol, (net.vip(1), 80), &[1]).finish()].into_iter().collect();
    let surroundings = Surroundings { masquerade_all: true, ..surroundings() };
    bring(body, &Desired { services, surroundings }, Options::default().with_masquerade_ports(&ports));
}

fn request(net: Net, protocol: Protocol, port: u16, say: Say) -> Vec<u8> {
    Packet::new((net.client(1), port), (net.vip(1), 80), say.upper(protocol)).payload(*b"said").frame()
}

/// Sends a packet and expects it to be sent on for `reason`; where to.
fn sent(body: &mut dyn Body, frame: &[u8], reason: Reason) -> (At, At) {
    let outcome = body.run(frame, Position::default()).unwrap();
    assert_eq!(outcome.reason, Some(reason));
    let look = look(&outcome.frame).unwrap();
    (look.src, look.dst)
}

/// One connection has traffic while hundreds come and are left alone, in a table with room for eight.
fn busy_flow_stays(body: &mut dyn Body, net: Net) {
    let protocol = Protocol::Tcp;
    serve(body, net, protocol);
    let (_, backend) = sent(body, &request(net, protocol, 1000, Say::Open), Reason::NewFlow);
    let reply =
        |say: Say| Packet::new(backend, (net.client(1), 1000), say.upper(protocol)).payload(*b"said").frame();
    let frontend = (net.vip(1), 80);
    assert_eq!(sent(body, &reply(Say::Accept), Reason::FromBackend).0, frontend);
    for port in 2000..2300 {
        sent(body, &request(net, protocol, port, Say::Open), Reason::NewFlow);
        body.advance(1).unwrap();
        let (_, to) = sent(body, &request(net, protocol, 1000, Say::Data), Reason::ToBackend);
        assert_eq!(to, backend, "after {port}");
        let (from, _) = sent(body, &reply(Say::Data), Reason::FromBackend);
        assert_eq!(from, frontend, "after {port}");
        body.advance(1).unwrap();
    }
}

/// A connection with traffic one way only keeps both its entries: the silent direction's may have to make way, and then
/// the next packet of the other direction restores it at once. `tick` lets the clock move on a little.
fn evicted_half_returns<B: Body>(body: &mut B, net: Net, tick: impl Fn(&mut B)) {
    let protocol = Protocol::Udp;
    serve(body, net, protocol);
    let request = |port| request(net, protocol, port, Say::Data);
    let mut backend = None;
    let mut evictions = 0;
    for round in 0..60 {
        let to = *backend.get_or_insert_with(|| sent(body, &request(1000), Reason::NewFlow).1);
        tick(body);
        for port in 0..4 {
            sent(body, &request(2000 + round * 4 + port), Reason::NewFlow);
        }
        tick(body);
        let (there, back) = entries(body, net, 1000);
        if !there {
            // A burst too large for its set: begin anew.
            change_flows::<u32>(body.store(), &mut |_, _| false).unwrap();
            change_flows::<[u32; 4]>(body.store(), &mut |_, _| false).unwrap();
            backend = None;
            continue;
        }
        evictions += u32::from(!back);
        assert_eq!(sent(body, &request(1000), Reason::ToBackend).1, to, "round {round}");
        assert_eq!(entries(body, net, 1000), (true, true), "round {round}: both are there again");
    }
    assert!(evictions > 3, "only {evictions} evictions: the test shows nothing");
}

/// Whether the client's port has an entry there, and one back.
fn entries(body: &mut dyn Body, net: Net, port: u16) -> (bool, bool) {
    let (mut there, mut back) = (false, false);
    let mut visit = |sport_be: u16, dport_be: u16| {
        there |= sport_be == port.to_be();
        back |= dport_be == port.to_be();
    };
    match net {
        Net::V4 => scan_flows::<u32>(body.store(), &mut |key, _| visit(key.sport_be, key.dport_be)),
        Net::V6 => scan_flows::<[u32; 4]>(body.store(), &mut |key, _| visit(key.sport_be, key.dport_be)),
    }
    .unwrap();
    (there, back)
}

/// Masqueraded flows to one backend, until six in ten of all source ports are taken.
#[test]
fn a_masqueraded_crowd_finds_source_ports() {
    for net in Net::BOTH {
        let mut host = Host::with_flow_sets(4096);
        masquerade(&mut host, net, Protocol::Tcp, DEFAULT_MASQUERADE_PORTS);
        let ports = DEFAULT_MASQUERADE_PORTS.len() as u16 / 5 * 3;
        let mut taken = BTreeSet::new();
        for port in 2000..2000 + ports {
            let (source, _) = sent(&mut host, &request(net, Protocol::Tcp, port, Say::Open), Reason::NewFlow);
            assert!(taken.insert(source), "{source:?}");
        }
    }
}

/// A flow's way back has made way, and another flow has taken its source port meanwhile: they do not share it for long.
fn port_of_an_evicted_flow(body: &mut dyn Body, net: Net) {
    let protocol = Protocol::Udp;
    masquerade(body, net, protocol, 61_000..=61_000);
    let request = |port| request(net, protocol, port, Say::Data);
    let (source, backend) = sent(body, &request(1000), Reason::NewFlow);
    let keep = |from: u16| from != 8080_u16.to_be();
    match net {
        Net::V4 => change_flows::<u32>(body.store(), &mut |key, _| keep(key.sport_be)),
        Net::V6 => change_flows::<[u32; 4]>(body.store(), &mut |key, _| keep(key.sport_be)),
    }
    .unwrap();
    assert_eq!(entries(body, net, 1000), (true, false));
    assert_eq!(sent(body, &request(2000), Reason::NewFlow), (source, backend));
    body.advance(2).unwrap();
    sent(body, &request(1000), Reason::ToBackend);
    assert_eq!(entries(body, net, 1000), (false, false), "given up");
    let outcome = body.run(&request(1000), Position::default()).unwrap();
    assert_eq!(outcome.reason, Some(Reason::DropNoSourcePort));
    let reply = Packet::new(backend, source, Say::Data.upper(protocol)).payload(*b"said").frame();
    assert_eq!(sent(body, &reply, Reason::FromBackend).1.1, 2000);
    sent(body, &request(2000), Reason::ToBackend);
}

#[test]
fn a_source_port_is_not_shared_with_an_evicted_flow() {
    for net in Net::BOTH {
        port_of_an_evicted_flow(&mut Host::with_flow_sets(64), net);
        for hook in HOOKS {
            port_of_an_evicted_flow(&mut Kernel::with_flow_sets(hook, 64).unwrap(), net);
        }
    }
}

const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::XdpFrags, Hook::Tc];

#[test]
fn busy_flow_stays_on_the_host() {
    for net in Net::BOTH {
        busy_flow_stays(&mut Host::with_flow_sets(2), net);
    }
}

#[test]
fn busy_flow_stays_in_the_kernel() {
    for hook in HOOKS {
        for net in Net::BOTH {
            busy_flow_stays(&mut Kernel::with_flow_sets(hook, 2).unwrap(), net);
        }
    }
}

#[test]
fn evicted_half_returns_on_the_host() {
    for net in Net::BOTH {
        let now = std::cell::Cell::new(0);
        evicted_half_returns(&mut Host::with_flow_sets(4), net, |host: &mut Host| {
            now.set(now.get() + 1);
            host.memory().set_now(now.get());
        });
    }
}

#[test]
fn evicted_half_returns_in_the_kernel() {
    for hook in HOOKS {
        for net in Net::BOTH {
            // At least one tick of the slowest clock that kernels are made with (100 Hz).
            let tick = |_: &mut Kernel| std::thread::sleep(Duration::from_millis(11));
            evicted_half_returns(&mut Kernel::with_flow_sets(hook, 4).unwrap(), net, tick);
        }
    }
}

/// What a key's entry must be, so that an entry under another's key is noticed.
fn mark(n: u32) -> (FlowKey<u32>, FlowEntry<u32>) {
    let mut key: FlowKey<u32> = bytemuck::Zeroable::zeroed();
    (key.src, key.dst, key.protocol) = (n, !n, 6);
    let mut entry: FlowEntry<u32> = bytemuck::Zeroable::zeroed();
    (entry.src, entry.dst, entry.backend_id, entry.backend_generation) = (n, n ^ 0x5555_5555, n, n);
    (entry.frontend_id, entry.sport_be, entry.dport_be) = (n, n as u16, (n >> 16) as u16);
    (key, entry)
}

/// Threads write, read, change and remove entries of the same few sets: what is read under a key is what was written under
/// it, and two entries never have one key.
#[test]
fn threads_at_the_same_sets() {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 60_000;
    let table = MemoryFlows::<u32>::new(2, 7);
    let found = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (table, found) = (&table, &found);
            scope.spawn(move || {
                let mut evicted = (bytemuck::Zeroable::zeroed(), bytemuck::Zeroable::zeroed());
                let mut state = thread.wrapping_mul(0x9e37_79b9) | 1;
                for _ in 0..ROUNDS {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let (key, entry) = mark((state >> 16) % 12 + 1);
                    match state >> 28 {
                        0..6 => {
                            if flow_table::insert(table, &key, &entry, |_| false, &mut evicted)
                                == Wrote::Evicted
                            {
                                let (of, _) = mark(evicted.0.src);
                                assert_eq!(evicted.0, of, "an entry that had to go was torn");
                                assert_eq!(evicted.1.src, evicted.0.src, "it was another's");
                            }
                        }
                        6..14 => {
                            let mut read = bytemuck::Zeroable::zeroed();
                            if flow_table::get(table, &key, &mut read).is_some() {
                                assert_eq!(FlowEntry { last_seen: 0, ..read }, entry, "crossed");
                                found.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                        }
                        14 => {
                            let right = flow_table::change(table, &key, |found| found.src == entry.src);
                            assert_ne!(right, Some(false), "crossed under the lock");
                        }
                        _ => flow_table::remove_if(table, &key, |_| true),
                    }
                }
            });
        }
    });
    assert!(found.into_inner() > THREADS * 100, "too few entries were met");
    let mut keys = BTreeMap::new();
    for set in 0..table.len() {
        for way in table.bytes(set).unwrap().chunks_exact(64) {
            let key: FlowKey<u32> = bytemuck::pod_read_unaligned(&way[..16]);
            if key.protocol != 0 {
                *keys.entry(key).or_insert(0) += 1;
            }
        }
    }
    assert!(keys.values().all(|times| *times == 1), "{keys:?}");
}

/// All CPUs send packets of the same connections, from their first one on: each goes to one backend, whichever CPU met it first.
/// No set gets full.
fn cpus_agree(hook: Hook, net: Net) {
    const FLOWS: u16 = 24;
    const THREADS: usize = 4;
    let protocol = Protocol::Udp;
    let mut kernel = Kernel::with_flow_sets(hook, 256).unwrap();
    serve(&mut kernel, net, protocol);
    for round in 0..60 {
        change_flows::<u32>(kernel.store(), &mut |_, _| false).unwrap();
        change_flows::<[u32; 4]>(kernel.store(), &mut |_, _| false).unwrap();
        let kernel = &kernel;
        let ports: Vec<u16> = (0..FLOWS).map(|i| 1000 + round * FLOWS + i).collect();
        let barrier = std::sync::Barrier::new(THREADS);
        let seen: Vec<BTreeMap<u16, At>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let mut last = BTreeMap::new();
                        for _ in 0..4 {
                            for port in &ports {
                                let frame = request(net, protocol, *port, Say::Data);
                                let out = kernel.pass(&frame).unwrap();
                                last.insert(*port, look(&out).unwrap().dst);
                            }
                        }
                        last
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for port in &ports {
            let first = seen[0][port];
            assert!(BACKENDS.iter().any(|n| net.pod(*n) == first.0), "{first:?} is no backend");
            for other in &seen[1..] {
                assert_eq!(other[port], first, "port {port} in round {round}");
            }
        }
    }
}

#[test]
fn cpus_agree_on_every_flow() {
    for hook in HOOKS {
        for net in Net::BOTH {
            cpus_agree(hook, net);
        }
    }
}
