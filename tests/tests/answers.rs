//! Answers in place of a backend, as ordinary programs and sockets meet them, at every hook, with checksum offload on
//! and off at both ends of the wire. Needs root.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aya::programs::{TestRun, TestRunOptions};
use lb_common::abi::{
    BackendEntry, FrontendEntry, FrontendKey, SlotRange, backend_flag, frontend_flag, protocol,
};
use lb_common::engine::answer::answer;
use lb_common::family::Address;
use lb_common::memory::MemoryPacket;
use lb_common::reason::Reason;
use lb_common::tables::Table;
use lb_tests::lab::lb_program;
use lb_tests::ledger::{Ledger, Place};
use lb_userspace::dataplane::{self, Attacher, HookChoice, PinDir, Programs, Sizes, Target};
use lb_userspace::lab::netns::Namespace;
use lb_userspace::lab::topology::{Node, POD_INTERFACE};
use lb_userspace::maps::{KernelStore, MapStore};
use lb_userspace::plan::words;

const NODE: [IpAddr; 2] = [v4(192, 168, 77, 1), v6(0xffff, 1)];
const CLIENT: [IpAddr; 2] = [v4(10, 77, 0, 2), v6(0, 2)];
/// A ClusterIP with a port that has no backend.
const VIP: [IpAddr; 2] = [v4(10, 96, 77, 1), v6(0x96, 1)];
const EMPTY_PORT: u16 = 80;
/// An address of the node that becomes a frontend under open connections.
const LATE: [IpAddr; 2] = [v4(10, 96, 77, 2), v6(0x96, 2)];
const LATE_PORT: u16 = 81;
/// The node's end of the wire.
const WIRE: &str = "wire";
/// "At once" is well below this; a SYN is sent again after 1 s.
const SOON: Duration = Duration::from_millis(800);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd77, net, 0, 0, 0, 0, 0, host))
}

/// A node and a client, with programs attached to the wire between them. Removed when dropped; every packet must be
/// accounted for then.
struct Network {
    ledger: Ledger,
    name: String,
    node: Node,
    client: Namespace,
    pins: PinDir,
    store: Option<KernelStore>,
}

impl Network {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and needs root");
        let name = format!("lbans{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let own: Vec<IpAddr> = NODE.into_iter().chain(LATE).collect();
        let node = Node::create(&format!("{name}-node"), &own).unwrap();
        let client = node.add_pod(&format!("{name}-client"), WIRE, &CLIENT).unwrap();
        let pins = PinDir::new(format!("/sys/fs/bpf/{name}"));
        Self { ledger: Ledger::default(), name, node, client, pins, store: None }
    }

    /// Maps with one service without backends and the owner of its address, and programs at `choice`.
    fn attach(&mut self, choice: HookChoice) {
        let _lock = self.pins.lock().unwrap();
        let mut sizes = Sizes::default();
        for table in [Table::FlowsV4, Table::FlowsV6, Table::Backends, Table::BackendStats, Table::OpenFlows]
        {
            sizes.set(table, 1024);
        }
        let (mut store, _) = self.pins.maps_or_new(&sizes).unwrap();
        let empty = FrontendEntry { flags: frontend_flag::REJECT_EMPTY, ..Default::default() };
        let owner = FrontendEntry { flags: frontend_flag::OWNER, ..Default::default() };
        for address in VIP {
            for protocol in [protocol::TCP, protocol::UDP] {
                put_frontend(&mut store, address, EMPTY_PORT, protocol, &empty);
            }
            put_frontend(&mut store, address, 0, 0, &owner);
        }
        let ifindex = self.node.netlink().link(WIRE).unwrap().index;
        let attached = self.node.namespace().run(|| {
            let mut attacher = Attacher::new(&self.pins, &dataplane::config(), &store).unwrap();
            let target = Target { iface: WIRE, ifindex, physical: false, flags: 0, mac: [0; 6] };
            attacher.attach(&mut store, target, choice).unwrap()
        });
        assert_eq!(attached.unwrap().hook.is_xdp(), choice != HookChoice::Tc);
        self.store = Some(store);
        self.ledger = self.accounts(Ledger::open);
        assert!(self.ledger.interfaces().eq([WIRE]));
    }

    /// Hands the place that packets are counted in to `what`.
    fn accounts<T>(&self, what: impl FnOnce(&Place<'_>) -> T) -> T {
        let node = self.node.namespace();
        let lb = |arguments: &[&str]| {
            let mut command = node.command(lb_program()).unwrap();
            command.args(arguments).arg("--pin-dir").arg(self.pins.path()).output().unwrap()
        };
        what(&Place { node, pins: self.pins.path(), lb: &lb })
    }

    /// Switches checksum offload at both ends of the wire.
    fn offload(&self, client: bool, node: bool) {
        for (namespace, interface, on) in
            [(&self.client, POD_INTERFACE, client), (self.node.namespace(), WIRE, node)]
        {
            let output = run(namespace, &["ethtool", "-K", interface, "tx", if on { "on" } else { "off" }]);
            assert!(output.status.success(), "{output:?}");
        }
    }

    fn in_client<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        self.client.run(body).unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let balance =
            if std::thread::panicking() { Ok(()) } else { self.accounts(|place| self.ledger.close(place)) };
        let detached = dataplane::detach(&self.pins, WIRE);
        self.pins.remove();
        let removed = self.node.remove_pod(self.client.name(), WIRE);
        let gone = Namespace::remove(self.node.namespace().name());
        if detached.is_err() || removed.is_err() || gone.is_err() {
            eprintln!("{} is not removed whole: {detached:?} {removed:?} {gone:?}", self.name);
        }
        assert_eq!(balance, Ok(()), "packets are not accounted for");
    }
}

fn put_frontend(store: &mut KernelStore, address: IpAddr, port: u16, protocol: u8, entry: &FrontendEntry) {
    fn put<A: Address>(store: &mut KernelStore, table: Table, key: FrontendKey<A>, entry: &FrontendEntry) {
        store.update(table, bytemuck::bytes_of(&key), bytemuck::bytes_of(entry)).unwrap();
    }
    let port_be = port.to_be();
    match address {
        IpAddr::V4(addr) => {
            let addr = words::v4_word(addr);
            put(store, Table::FrontendsV4, FrontendKey { addr, port_be, protocol, _pad: 0 }, entry);
        }
        IpAddr::V6(addr) => {
            let addr = words::v6_words(addr);
            put(store, Table::FrontendsV6, FrontendKey { addr, port_be, protocol, _pad: 0 }, entry);
        }
    }
}

fn run(namespace: &Namespace, command: &[&str]) -> Output {
    namespace.command(command[0]).unwrap().args(&command[1..]).output().unwrap()
}

/// What a client finds at an address: how its connection fails.
fn tcp_error(to: SocketAddr) -> ErrorKind {
    TcpStream::connect_timeout(&to, SOON).expect_err("nobody serves this").kind()
}

/// What a datagram comes back as.
fn udp_error(to: SocketAddr, length: usize) -> ErrorKind {
    let own: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((own, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.send(&vec![7; length]).unwrap();
    socket.recv(&mut [0; 10]).expect_err("nobody serves this").kind()
}

/// A ClusterIP without backends and on a port that it does not serve; ping.
fn refuses_and_answers_ping(network: &Network, what: &str) {
    for vip in VIP {
        for port in [EMPTY_PORT, 4444] {
            let to = SocketAddr::new(vip, port);
            network.in_client(|| {
                assert_eq!(tcp_error(to), ErrorKind::ConnectionRefused, "{what}: TCP {to}");
                // The last is sent in fragments.
                for length in [0, 1, 18, 77, 78, 1200, 4000] {
                    let error = udp_error(to, length);
                    assert_eq!(error, ErrorKind::ConnectionRefused, "{what}: UDP {to}, {length} bytes");
                }
            });
        }
        let url = format!("http://{}/", SocketAddr::new(vip, EMPTY_PORT));
        let curl = run(&network.client, &["curl", "-sS", "--max-time", "0.8", &url]);
        // curl's exit status 7: failed to connect to host.
        assert_eq!(curl.status.code(), Some(7), "{what}: {curl:?}");
        for size in ["0", "57", "1400"] {
            let ping = run(&network.client, &["ping", "-c1", "-W1", "-s", size, &vip.to_string()]);
            assert!(ping.status.success(), "{what}: {ping:?}");
            assert!(String::from_utf8_lossy(&ping.stdout).contains("ttl=64"), "{what}: {ping:?}");
        }
    }
}

/// Connections that the balancer does not know, on an address that becomes a frontend, are reset.
fn resets_what_it_does_not_know(network: &mut Network, what: &str) {
    for late in LATE {
        let to = SocketAddr::new(late, LATE_PORT);
        for length in [1, 300_000] {
            let listener = network.node.namespace().run(|| TcpListener::bind(to).unwrap()).unwrap();
            let mut client = network.in_client(|| TcpStream::connect_timeout(&to, SOON).unwrap());
            let (_server, _) = listener.accept().unwrap();

            let store = network.store.as_mut().unwrap();
            let range = SlotRange { base: 0, count: 1 };
            let frontend = FrontendEntry { internal: range, external: range, ..Default::default() };
            let backend = BackendEntry {
                addr: words::backend_words(NODE[usize::from(late.is_ipv6())]),
                port_be: 9u16.to_be(),
                flags: backend_flag::ALIVE | backend_flag::SERVING | backend_flag::USABLE,
                ..Default::default()
            };
            let zero = bytemuck::bytes_of(&0u32);
            store.update(Table::Backends, zero, bytemuck::bytes_of(&backend)).unwrap();
            put_frontend(store, late, LATE_PORT, protocol::TCP, &frontend);

            client.set_read_timeout(Some(SOON)).unwrap();
            client.set_write_timeout(Some(SOON)).unwrap();
            let sent = client.write_all(&vec![1; length]);
            let error = sent.and_then(|()| client.read_exact(&mut [0])).expect_err("the connection is reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}: {to}, {length} bytes");

            delete_frontend(network.store.as_mut().unwrap(), late);
        }
    }
}

fn delete_frontend(store: &mut KernelStore, late: IpAddr) {
    let (port_be, protocol, _pad) = (LATE_PORT.to_be(), protocol::TCP, 0);
    match late {
        IpAddr::V4(addr) => {
            let key = FrontendKey { addr: words::v4_word(addr), port_be, protocol, _pad };
            store.delete(Table::FrontendsV4, bytemuck::bytes_of(&key)).unwrap();
        }
        IpAddr::V6(addr) => {
            let key = FrontendKey { addr: words::v6_words(addr), port_be, protocol, _pad };
            store.delete(Table::FrontendsV6, bytemuck::bytes_of(&key)).unwrap();
        }
    }
}

fn answers_at(choice: HookChoice) {
    let mut network = Network::new();
    // It is the programs that answer: without them the node's routing has another opinion, or none.
    for vip in VIP {
        let error = network.in_client(|| tcp_error(SocketAddr::new(vip, EMPTY_PORT)));
        assert_ne!(error, ErrorKind::ConnectionRefused);
    }
    network.attach(choice);
    for (client, node) in [(true, true), (true, false), (false, true), (false, false)] {
        let what = format!("{choice:?}, offload at client {client}, at node {node}");
        network.offload(client, node);
        refuses_and_answers_ping(&network, &what);
        resets_what_it_does_not_know(&mut network, &what);
    }
}

#[test]
fn v1_v5_c7_at_tc() {
    answers_at(HookChoice::Tc);
}

#[test]
fn v1_v5_c7_at_native_xdp() {
    answers_at(HookChoice::Xdp);
}

#[test]
fn v1_v5_c7_at_generic_xdp() {
    answers_at(HookChoice::XdpGeneric);
}

/// Frames of a client to the ClusterIP, with up to two VLAN tags: what the veth pairs above cannot carry.
fn frames() -> Vec<(String, Vec<u8>)> {
    let syn = [0x0f, 0xa0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let udp = [&[0x0f, 0xa0, 0x11, 0x5c, 0, 208, 0, 0][..], &[5; 200]].concat();
    let echo = |kind: u8| [&[kind, 0, 0x12, 0x34, 0, 1, 0, 2][..], &[6; 31]].concat();
    let tags: [&[u8]; 3] = [&[], &[0x81, 0, 0, 5], &[0x88, 0xa8, 0, 9, 0x81, 0, 0x20, 5]];
    let mut frames = Vec::new();
    for (address, client) in VIP.into_iter().zip(CLIENT) {
        let echo = if address.is_ipv4() { (1, echo(8)) } else { (58, echo(128)) };
        for (protocol, transport) in [(6, syn.to_vec()), (17, udp.clone()), echo] {
            let (kind, ip) = match (client, address) {
                (IpAddr::V4(client), IpAddr::V4(address)) => {
                    let length = (20 + transport.len() as u16).to_be_bytes();
                    let head = [0x45, 0x28, length[0], length[1], 3, 4, 0, 0, 17, protocol, 0, 0];
                    ([8, 0], [&head[..], &client.octets(), &address.octets(), &transport].concat())
                }
                (IpAddr::V6(client), IpAddr::V6(address)) => {
                    let length = (transport.len() as u16).to_be_bytes();
                    let head = [0x62, 0x81, 0x23, 0x45, length[0], length[1], protocol, 17];
                    ([0x86, 0xdd], [&head[..], &client.octets(), &address.octets(), &transport].concat())
                }
                _ => unreachable!("both lists have IPv4 first"),
            };
            for tags in tags {
                let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], tags, &kind, &ip].concat();
                frames.push((format!("protocol {protocol} to {address}, {} tags", tags.len() / 4), frame));
            }
        }
    }
    frames
}

/// The kernel programs make the very answers that the host build makes, which `answer_packets` checks.
#[test]
fn the_kernel_answers_as_the_host_does() {
    const TC_ACT_REDIRECT: u32 = 7;
    let mut network = Network::new();
    network.attach(HookChoice::Tc);
    let mut programs = Programs::load(&network.pins, &dataplane::config()).unwrap();
    let program = programs.tc("lb_tc_ingress").unwrap();
    for (name, frame) in frames() {
        let mut out = vec![0; 2048];
        let options =
            TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = program.test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);

        let reason = if name.starts_with("protocol 6 ") {
            Reason::RejectedNoBackend
        } else if name.starts_with("protocol 17 ") {
            Reason::RejectedPort
        } else {
            Reason::Ping
        };
        let mut expected = MemoryPacket(frame);
        answer(&mut expected, reason).unwrap();
        assert_eq!((result.return_value, out), (TC_ACT_REDIRECT, expected.0), "{name}");
    }
}
