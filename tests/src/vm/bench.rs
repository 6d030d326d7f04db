//! `lb` beside IPVS, on the same wires in the same machine: `cargo xtask vm bench`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use lb_userspace::lab::netns::Namespace;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::SetStruct;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket};

use super::Check;
use crate::node::{TestNode, VIP4, address};

/// Servers behind the Service.
const SERVERS: usize = 3;
/// The node's own address, which IPVS serves.
const VIRTUAL: &str = "172.31.0.1:80";
/// Port of the servers.
const PORT: u16 = 8080;
/// Rounds, of which the median counts.
const ROUNDS: usize = 7;
/// Connections in a sample.
const CONNECTIONS: usize = 60;
/// Lines in a bulk sample, each of which goes and comes back, and their length in bytes.
const LINES: usize = 40;
const LINE: usize = 60_000;

/// One for each thing that is measured.
pub fn checks() -> Vec<Check> {
    vec![
        Check::new("bench/connect", None, || compare(connect)),
        Check::new("bench/bulk", None, || compare(bulk)),
    ]
}

/// Measures three ways to the same servers in turns, and gives nanoseconds for each: `direct 100 lb-direct 110 ...`.
fn compare(sample: fn(&TestNode, &str) -> Duration) -> String {
    let lb = TestNode::new(SERVERS as u8);
    lb.serve(&[0, 1, 2]);
    let _agent = lb.agent(&["--hook", "tc", "--forwarding", "direct"]);
    let by_kernel = TestNode::new(SERVERS as u8);
    by_kernel.serve(&[0, 1, 2]);
    let _other = by_kernel.agent(&["--hook", "tc", "--forwarding", "kernel"]);
    let plain = TestNode::new(SERVERS as u8);
    let ipvs = TestNode::new(SERVERS as u8);
    serve_by_ipvs(ipvs.node().namespace()).unwrap_or_else(|error| panic!("IPVS: {error}"));
    for (node, to) in [(&lb, VIP4), (&ipvs, VIRTUAL)] {
        let mut servers: Vec<_> = (0..SERVERS).map(|_| node.connect(to).expect("connects").server).collect();
        servers.sort_unstable();
        assert_eq!(servers, [0, 1, 2], "{to}: they do not take turns");
    }
    let pod = format!("{}:{PORT}", address(0, 4));
    let ways: [(&str, &TestNode, &str); 4] = [
        ("no-balancer", &plain, &pod),
        ("ipvs", &ipvs, VIRTUAL),
        ("lb-direct", &lb, VIP4),
        ("lb-kernel", &by_kernel, VIP4),
    ];
    let mut samples = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for i in 0..ways.len() {
            // Each comes first in its turn.
            let number = (round + i) % ways.len();
            let (_, node, to) = ways[number];
            let time = node.client().run(|| sample(node, to)).expect("enters");
            // The first round warms caches up.
            if round > 0 {
                samples[number].push(time.as_nanos());
            }
        }
    }
    let medians = ways.iter().zip(&mut samples).map(|((name, ..), samples)| {
        samples.sort_unstable();
        format!("{name} {}", samples[samples.len() / 2])
    });
    medians.collect::<Vec<_>>().join(" ")
}

/// Connections, each of which asks once.
fn connect(node: &TestNode, to: &str) -> Duration {
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut talk = node.connect(to).expect("connects");
        talk.say("hello").expect("an answer");
    }
    start.elapsed() / CONNECTIONS as u32
}

/// One connection with much to say.
fn bulk(node: &TestNode, to: &str) -> Duration {
    let mut talk = node.connect(to).expect("connects");
    let line = "x".repeat(LINE);
    let start = Instant::now();
    for _ in 0..LINES {
        talk.say(&line).expect("an answer");
    }
    start.elapsed() / LINES as u32
}

/// `struct ip_vs_service_user` (linux/ip_vs.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Service {
    protocol: u16,
    address: u32,
    port: u16,
    mark: u32,
    scheduler: [u8; 16],
    flags: u32,
    timeout: u32,
    netmask: u32,
}

/// `struct ip_vs_dest_user`: masquerading is connection flag 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Destination {
    address: u32,
    port: u16,
    flags: u32,
    weight: i32,
    thresholds: [u32; 2],
}

/// A destination comes behind its service.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Both {
    service: Service,
    destination: Destination,
}

const _: () = assert!(size_of::<Service>() == 44 && size_of::<Both>() == 68);

/// linux/ip_vs.h
const IP_VS_SO_SET_ADD: i32 = 1154;
const IP_VS_SO_SET_ADDDEST: i32 = 1159;

/// A Service is made.
#[derive(Clone, Copy)]
struct AddService;

/// A server is put behind it.
#[derive(Clone, Copy)]
struct AddDestination;

nix::setsockopt_impl!(AddService, libc::IPPROTO_IP, IP_VS_SO_SET_ADD, Service, SetStruct<'_, Service>);
nix::setsockopt_impl!(AddDestination, libc::IPPROTO_IP, IP_VS_SO_SET_ADDDEST, Both, SetStruct<'_, Both>);

/// Has IPVS serve [`VIRTUAL`], round robin, in this namespace.
fn serve_by_ipvs(namespace: &Namespace) -> Result<(), Errno> {
    let mut scheduler = [0; 16];
    scheduler[..2].copy_from_slice(b"rr");
    let virtual_address: SocketAddrV4 = VIRTUAL.parse().expect("an address");
    let service = Service {
        protocol: libc::IPPROTO_TCP as u16,
        address: u32::from(*virtual_address.ip()).to_be(),
        port: virtual_address.port().to_be(),
        mark: 0,
        scheduler,
        flags: 0,
        timeout: 0,
        netmask: u32::MAX,
    };
    let run = || {
        let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        setsockopt(&socket, AddService, &service)?;
        for server in 0..SERVERS {
            let server: Ipv4Addr = address(server, 4).parse().expect("an address");
            let destination = Destination {
                address: u32::from(server).to_be(),
                port: PORT.to_be(),
                flags: 0,
                weight: 1,
                thresholds: [0; 2],
            };
            setsockopt(&socket, AddDestination, &Both { service, destination })?;
        }
        Ok(())
    };
    namespace.run(run).expect("enters")
}
