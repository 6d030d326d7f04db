//! Direct forwarding, by `BPF_PROG_TEST_RUN`: routes, neighbours and devices are real, and the packets go nowhere. Needs
//! root.
//!
//! All packet rows run with it on, in a network namespace where everything is routed to one neighbour: a packet that is
//! handed over must be the very packet that is left to the host elsewhere, but for the hop and the hardware addresses.

use std::thread::sleep;
use std::time::Duration;

use lb_common::abi::{DeviceEntry, iface_flag};
use lb_common::engine::Position;
use lb_common::engine::checksum::{half_delta, update};
use lb_common::reason::{Class, Reason};
use lb_common::tables::Table;
use lb_tests::node::TestNode;
use lb_tests::rows::body::{Body, Outcome};
use lb_tests::rows::cases::group;
use lb_tests::rows::net::Net;
use lb_tests::rows::packet::{Checksum, Packet};
use lb_tests::rows::row::{Conn, Rows, Say, Script};
use lb_tests::rows::run::{run, run_all};
use lb_tests::rows::{Error, Hook, Kernel};
use lb_userspace::lab::link::Netlink;
use lb_userspace::lab::topology::POD_INTERFACE;
use lb_userspace::maps::MapStore;
use lb_userspace::model::desired::Protocol;
use nix::time::{ClockId, clock_gettime};

/// What a program of a hook returns for a packet that is left to the host, and for one that it hands over.
const fn actions(hook: Hook) -> (u32, u32) {
    const TC_ACT_UNSPEC: u32 = -1_i32 as u32;
    const TC_ACT_REDIRECT: u32 = 7;
    const XDP_PASS: u32 = 2;
    const XDP_REDIRECT: u32 = 4;
    if matches!(hook, Hook::Tc) { (TC_ACT_UNSPEC, TC_ACT_REDIRECT) } else { (XDP_PASS, XDP_REDIRECT) }
}

/// The device towards the neighbour.
const DEVICE: &str = "veth-c";
/// The neighbour.
const NEIGHBOUR: [&str; 2] = ["10.77.0.2", "fd00:77::2"];

/// A node that routes everything to [`NEIGHBOUR`].
fn node() -> TestNode {
    let net = TestNode::new(0);
    for via in NEIGHBOUR {
        net.ip(&format!("route add default via {via} dev {DEVICE} onlink"));
    }
    net
}

/// The kernel program, on an interface that forwards directly.
struct Direct {
    kernel: Kernel,
    /// See [`actions`].
    left: u32,
    handed_over: u32,
    device: u32,
    /// Hardware addresses of the neighbour and of the device.
    macs: Vec<u8>,
    /// Packets that were handed over.
    sent: usize,
}

impl Direct {
    fn new(net: &TestNode, hook: Hook) -> Self {
        let kernel = Kernel::load(hook).expect("root and kernel 5.18").with_flags(iface_flag::DIRECT);
        let (left, handed_over) = actions(hook);
        let device = net.node().netlink().link(DEVICE).unwrap();
        let neighbour = Netlink::of(net.client()).unwrap().link(POD_INTERFACE).unwrap();
        let macs = [neighbour.mac.unwrap(), device.mac.unwrap()].concat();
        Self { kernel, left, handed_over, device: device.index, macs, sent: 0 }
    }

    /// Sets whether the device's other end is known to be elsewhere.
    fn peer(&mut self, peer: bool) {
        self.kernel.mark_interface(self.device, if peer { iface_flag::PEER } else { 0 }).unwrap();
    }

    /// Sets whether packets may be redirected to the device at XDP.
    fn takes_redirects(&mut self, takes: bool) {
        let key = self.device.to_ne_bytes();
        let entry = DeviceEntry { ifindex: self.device, program: 0 };
        if takes {
            self.store().update(Table::Devices, &key, bytemuck::bytes_of(&entry)).unwrap();
        } else {
            self.store().delete(Table::Devices, &key).unwrap();
        }
    }

    /// What becomes of a packet of this host's own hardware address: that of a test run's interface is zero.
    fn give(&mut self, packet: &Packet) -> Outcome {
        let mut frame = packet.frame();
        frame[..6].fill(0);
        self.kernel.run(&frame, Position::default()).unwrap()
    }
}

/// Waits for the kernel's clock to tick. The coarse clock goes with the ticks; none is longer than 10 ms.
fn next_tick() {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock"));
    let start = now();
    while now() < start + Duration::from_millis(11) {
        sleep(Duration::from_millis(1));
    }
}

/// Takes a hop back.
fn uncount(frame: &mut [u8]) {
    if frame[12..14] == [0x86, 0xdd] {
        frame[21] += 1;
        return;
    }
    let half = |frame: &[u8], at: usize| u16::from_ne_bytes([frame[at], frame[at + 1]]);
    let (old, field) = (half(frame, 22), half(frame, 24));
    frame[22] += 1;
    let delta = half_delta([old, 0], [half(frame, 22), 0]);
    frame[24..26].copy_from_slice(&update(field, delta).to_ne_bytes());
}

impl Body for Direct {
    fn hook(&self) -> Hook {
        self.kernel.hook()
    }

    fn store(&mut self) -> &mut dyn MapStore {
        self.kernel.store()
    }

    fn run(&mut self, frame: &[u8], position: Position) -> Result<Outcome, Error> {
        let own: [u8; 6] = frame[..6].try_into().expect("an Ethernet header");
        let mut given = frame.to_vec();
        given[..6].fill(0);
        let mut outcome = self.kernel.run(&given, position)?;
        let forwarded = outcome.reason.is_some_and(|reason| reason.class() == Class::Forwarded);
        if forwarded && outcome.action == self.handed_over {
            assert_eq!(outcome.frame[..12], self.macs, "hardware addresses");
            outcome.frame[..12].copy_from_slice(&frame[..12]);
            uncount(&mut outcome.frame);
            outcome.action = self.left;
            self.sent += 1;
        } else {
            // An answer has it as its source; what XDP leaves to be answered has a note in front.
            let noted = outcome.frame.len() > frame.len() && self.kernel.hook() != Hook::Tc;
            let at = match outcome.frame[..6] == [0; 6] {
                _ if noted => outcome.frame.len() - frame.len(),
                true => 0,
                false => 6,
            };
            outcome.frame[at..at + 6].copy_from_slice(&own);
        }
        Ok(outcome)
    }

    fn advance(&mut self, seconds: u32) -> Result<(), Error> {
        self.kernel.advance(seconds)
    }

    fn clear(&mut self) -> Result<(), Error> {
        self.kernel.clear()?;
        self.peer(true);
        self.takes_redirects(true);
        Ok(())
    }
}

/// Groups of rows whose packets differ in how they look; the others differ in where they go.
const LOOKS: [&str; 6] = ["frontends", "addresses", "icmp", "fragments", "headers", "checksums"];

fn rows_agree(hook: Hook) {
    let net = node();
    let inside = || {
        let mut direct = Direct::new(&net, hook);
        for name in LOOKS {
            direct.sent = 0;
            if let Err(failures) = run_all(&mut direct, &group(name)) {
                panic!("failed rows:\n{failures}");
            }
            assert!(direct.sent > 0, "{name}: no packet was handed over");
        }
    };
    net.node().namespace().run(inside).unwrap();
}

#[test]
fn a8_rows_agree_with_direct_forwarding_on() {
    rows_agree(Hook::Tc);
}

#[test]
fn a8_rows_agree_with_direct_forwarding_on_at_xdp() {
    rows_agree(Hook::Xdp);
}

/// A flow of one family through a service, so that its packets are translated.
fn flow(direct: &mut Direct, net: Net) -> Conn {
    let mut rows = Rows::default();
    rows.one("A8 a flow", net, Protocol::Tcp, |s| {
        s.serve(&[s.svc(&[1])]);
        s.open(&s.conn(1000, 1));
    });
    run(direct, &rows.finish()[0]).unwrap();
    Script::new(String::new(), net, Protocol::Tcp).conn(1000, 1)
}

/// One family of a node, and packets of a flow.
struct Case<'a> {
    node: &'a TestNode,
    direct: Direct,
    conn: Conn,
}

impl Case<'_> {
    fn request(&self) -> Packet {
        self.conn.request(Say::Data)
    }

    /// A packet of so many bytes, as its network header has it.
    fn long(&self, len: usize) -> Packet {
        let rest = self.request().payload([]).network_len();
        self.request().payload(vec![7; len - rest])
    }

    /// What becomes of a packet once what was known of routes counts no more: it does for a tick of the kernel's clock.
    fn give(&mut self, packet: &Packet) -> Outcome {
        next_tick();
        self.direct.give(packet)
    }

    /// Asserts that a request is handed over: with these hardware addresses, and one hop less.
    fn handed_over(&mut self, what: &str, packet: Packet, macs: &[u8]) {
        let outcome = self.give(&packet);
        let hops = packet.hop_limit - 1;
        let mut wanted = self.conn.onward(Packet { hop_limit: hops, ..packet }).frame();
        wanted[..12].copy_from_slice(macs);
        assert_eq!((outcome.action, outcome.frame), (self.direct.handed_over, wanted), "{what}");
    }

    /// Asserts that a request is translated and left to the host, its hops not counted.
    fn left(&mut self, what: &str, packet: &Packet) {
        let outcome = self.give(packet);
        let mut wanted = self.conn.onward(packet.clone()).frame();
        wanted[..6].fill(0);
        assert_eq!((outcome.action, outcome.frame), (self.direct.left, wanted), "{what}");
        assert_eq!(outcome.reason.map(Reason::class), Some(Class::Forwarded), "{what}");
    }

    fn check(&mut self, net: Net) {
        let number = usize::from(net == Net::V6);
        let (family, via) = (["-4", "-6"][number], NEIGHBOUR[number]);
        let macs = self.direct.macs.clone();
        let usual = self.request();

        self.handed_over("the usual", usual.clone(), &macs);
        self.handed_over("the last hop", usual.clone().marked(0x2c, 2), &macs);
        self.left("no hop left", &usual.clone().marked(0, 1));
        self.left("a VLAN tag", &usual.clone().tag(0x8100, 5));
        match net {
            Net::V4 => self.left("options", &usual.clone().options(&[1, 1, 1, 0])),
            Net::V6 => self.left("hop-by-hop", &usual.clone().extension(0, &[0, 0, 1, 4, 0, 0, 0, 0])),
        }
        let mut other = usual.frame();
        other[0] = 2;
        let outcome = self.direct.kernel.run(&other, Position::default()).unwrap();
        assert_eq!(outcome.action, self.direct.left, "to another hardware address");

        self.handed_over("as long as may be", self.long(1500), &macs);
        self.left("too long", &self.long(1501));
        self.node.ip(&format!("link set {DEVICE} mtu 1600"));
        self.handed_over("the device takes more", self.long(1501), &macs);
        self.node.ip(&format!("link set {DEVICE} mtu 1500"));

        if self.direct.hook() == Hook::Tc {
            self.direct.peer(false);
            let own = [[0; 6], macs[..6].try_into().unwrap()].concat();
            let as_it_came = [&own[..6], &usual.frame()[6..12]].concat();
            self.handed_over("left to the neighbours' code", usual.clone(), &as_it_came);
            self.direct.peer(true);
        } else {
            self.direct.takes_redirects(false);
            self.left("the device takes no redirected packets", &usual);
            self.direct.takes_redirects(true);
            self.left("a device is to finish the checksum", &usual.clone().checksum(Checksum::Partial));
        }

        let moved = [2, 9, 9, 9, 9, 9];
        self.node.ip(&format!("neigh replace {via} dev {DEVICE} lladdr 02:09:09:09:09:09"));
        self.handed_over("the neighbour is elsewhere", usual.clone(), &[&moved, &macs[6..]].concat());
        self.node.ip(&format!("neigh del {via} dev {DEVICE}"));
        self.left("no neighbour", &usual);
        let mac = macs[..6].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        self.node.ip(&format!("neigh replace {via} dev {DEVICE} lladdr {mac}"));
        self.handed_over("it is back", usual.clone(), &macs);

        let backend = self.conn.backend.0;
        self.node.ip(&format!("{family} route add unreachable {backend}"));
        self.left("no route", &usual);
        self.node.ip(&format!("{family} route del unreachable {backend}"));
        self.node.ip(&format!("address add {backend} dev lo"));
        self.left("of the node itself", &usual);
        self.node.ip(&format!("address del {backend} dev lo"));
        self.handed_over("routed again", usual.clone(), &macs);
    }
}

fn cases(hook: Hook, net: Net) {
    let node = node();
    let inside = || {
        let mut direct = Direct::new(&node, hook);
        let conn = flow(&mut direct, net);
        let mut case = Case { node: &node, direct, conn };
        case.check(net);
        let usual = case.request();
        // Also takes the routes and the neighbour with it.
        node.node().netlink().remove_link(case.direct.device).unwrap();
        case.left("the device is gone", &usual);
    };
    node.node().namespace().run(inside).unwrap();
}

/// What comes in by a network card is finished: there a checksum that looks otherwise is corrected as one that is.
#[test]
fn a7_a_card_has_complete_checksums() {
    let node = node();
    let inside = || {
        let mut direct = Direct::new(&node, Hook::Xdp);
        let conn = flow(&mut direct, Net::V4);
        direct.kernel.mark_interface(1, iface_flag::DIRECT | iface_flag::CARD).unwrap();
        let macs = direct.macs.clone();
        let mut case = Case { node: &node, direct, conn };
        let packet = looks_unfinished(&case, 0);
        case.handed_over("looks unfinished", packet, &macs);
    };
    node.node().namespace().run(inside).unwrap();
}

/// A packet of this flow, with so many bytes behind two that make its finished checksum look unfinished.
fn looks_unfinished(case: &Case<'_>, more: usize) -> Packet {
    let payload = |number: u16| {
        let mut payload = vec![7; 2 + more];
        payload[..2].copy_from_slice(&number.to_be_bytes());
        case.request().payload(payload)
    };
    let looks_unfinished = |packet: &Packet| {
        packet.clone().checksum(Checksum::Right).frame() == packet.clone().checksum(Checksum::Partial).frame()
    };
    (0..=u16::MAX).map(payload).find(looks_unfinished).expect("one of 65,536")
}

/// On a veth they may be unfinished or not. Once finished ones have come, one that looks unfinished is added up.
#[test]
fn a7_a_finished_checksum_that_looks_unfinished_stays_right() {
    for net in [Net::V4, Net::V6] {
        let node = node();
        let inside = || {
            let mut direct = Direct::new(&node, Hook::Xdp);
            let conn = flow(&mut direct, net);
            direct.kernel.mark_interface(1, iface_flag::DIRECT).unwrap();
            let macs = direct.macs.clone();
            let mut case = Case { node: &node, direct, conn };
            case.handed_over("the usual", case.request(), &macs);
            // Blocks of 16 bytes and all kinds of rests.
            for more in [0, 1, 2, 3, 13, 14, 15, 16, 1401, 1402] {
                let packet = looks_unfinished(&case, more);
                case.handed_over(&format!("{more} bytes more"), packet, &macs);
                let unfinished = case.request().payload(vec![7; 2 + more]).checksum(Checksum::Partial);
                case.left(&format!("{more} bytes more, unfinished"), &unfinished);
            }
        };
        node.node().namespace().run(inside).unwrap();
    }
}

#[test]
fn a8_what_is_out_of_the_ordinary_is_left_to_the_host_ipv4() {
    cases(Hook::Tc, Net::V4);
}

#[test]
fn a8_what_is_out_of_the_ordinary_is_left_to_the_host_ipv6() {
    cases(Hook::Tc, Net::V6);
}

#[test]
fn a8_what_is_out_of_the_ordinary_is_left_to_the_host_at_xdp_ipv4() {
    cases(Hook::Xdp, Net::V4);
}

#[test]
fn a8_what_is_out_of_the_ordinary_is_left_to_the_host_at_xdp_ipv6() {
    cases(Hook::Xdp, Net::V6);
}
