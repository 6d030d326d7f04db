//! Every checksum is right where a packet arrives (A7): hook × offload × destination × protocol × family. Needs root.
//!
//! A receiver on a veth pair trusts packets whose checksum the sender left to the device, whatever their field says. So
//! every frame is looked at where it arrives, in both directions, beside the kernel's own counters of bad checksums.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use lb_tests::capture::{Capture, Checksum, Seen};
use lb_tests::patience::wait_for;
use lb_tests::scene::{Scene, close};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use tempfile::TempDir;

const PORT: u16 = 9000;
/// Lengths of messages: odd ones, even ones, one that fills a packet of 1500 bytes in both families and protocols.
const LENGTHS: [usize; 6] = [1, 2, 17, 100, 999, 1420];
/// Addresses of the lab's node.
const NODE: [&str; 2] = ["172.31.255.1", "fd00:172:31::1"];
/// Counters of packets that the kernel forwarded.
const FORWARDED: [&str; 2] = ["Ip ForwDatagrams", "Ip6OutForwDatagrams"];
/// Counters of packets that the kernel found wrong.
const BAD: [&str; 6] = [
    "Ip InHdrErrors",
    "Tcp InCsumErrors",
    "Udp InCsumErrors",
    "Udp InErrors",
    "Udp6InCsumErrors",
    "Udp6InErrors",
];

/// Where a service's backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// Behind another veth pair.
    Veth,
    /// Likewise, and the node's end of it and of the client's cannot complete checksums.
    PlainVeth,
    /// A socket of the node itself.
    Local,
}

impl Destination {
    /// ClusterIPs of its service.
    fn vip(self) -> [IpAddr; 2] {
        let number = if self == Self::Local { 11 } else { 10 };
        [format!("10.96.0.{number}"), format!("fd00:10:96::{number}")].map(|text| text.parse().unwrap())
    }

    fn place(self) -> &'static str {
        if self == Self::Local { "node" } else { "echo" }
    }
}

/// A service of one pod, and one of the node itself.
fn manifests() -> TempDir {
    let [v4, v6] = NODE;
    let service = |name: &str, number: u8, selector: &str| {
        format!(
            "kind: Service\nmetadata: {{name: {name}}}\nspec:\n  ipFamilyPolicy: RequireDualStack\n  {selector}\n  \
             clusterIPs: [10.96.0.{number}, 'fd00:10:96::{number}']\n  ports:\n  \
             - {{name: tcp, port: {PORT}, protocol: TCP}}\n  - {{name: udp, port: {PORT}, protocol: UDP}}\n---\n"
        )
    };
    let slice = |family: &str, address: &str| {
        format!(
            "kind: EndpointSlice\nmetadata: {{name: local-{}, labels: {{kubernetes.io/service-name: local}}}}\n\
             addressType: {family}\nendpoints: [{{addresses: ['{address}']}}]\nports:\n\
             - {{name: tcp, port: {PORT}, protocol: TCP}}\n- {{name: udp, port: {PORT}, protocol: UDP}}\n---\n",
            family.to_lowercase()
        )
    };
    let [tcp, udp] = echo().map(|command| format!("['{}']", command.join("', '")));
    let pod = format!(
        "kind: Pod\nmetadata: {{name: echo, labels: {{app: echo}}}}\nspec:\n  containers:\n  \
         - {{name: tcp, command: {tcp}}}\n  - {{name: udp, command: {udp}}}\n"
    );
    let text = [
        service("echo", 10, "selector: {app: echo}"),
        service("local", 11, ""),
        slice("IPv4", v4),
        slice("IPv6", v6),
        pod,
    ];
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("all.yaml"), text.concat()).unwrap();
    folder
}

/// Servers that send back what they get, one for TCP and one for UDP, both for both families.
fn echo() -> [Vec<String>; 2] {
    let words = |listen: String| vec!["socat".to_owned(), listen, "PIPE".to_owned()];
    [
        words(format!("TCP6-LISTEN:{PORT},fork,reuseaddr,nodelay,ipv6only=0")),
        words(format!("UDP6-RECVFROM:{PORT},fork,ipv6only=0")),
    ]
}

fn message(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 37 + length) as u8).collect()
}

/// Sends messages of all lengths and awaits each back.
fn converse(to: SocketAddr, udp: bool) -> Result<(), String> {
    let patience = Some(Duration::from_secs(30));
    let say = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    if udp {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).map_err(say("bind"))?;
        socket.set_read_timeout(patience).map_err(say("set a timeout"))?;
        for length in LENGTHS {
            socket.send_to(&message(length), to).map_err(say("send"))?;
            let mut answer = [0; 2000];
            let (got, from) = socket.recv_from(&mut answer).map_err(say("receive"))?;
            if from != to {
                return Err(format!("the answer comes from {from}"));
            }
            if answer[..got] != message(length) {
                return Err(format!("{length} bytes came back as others"));
            }
        }
    } else {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(30)).map_err(say("connect"))?;
        stream.set_nodelay(true).map_err(say("set no delay"))?;
        stream.set_read_timeout(patience).map_err(say("set a timeout"))?;
        for length in LENGTHS {
            stream.write_all(&message(length)).map_err(say("send"))?;
            let mut answer = vec![0; length];
            stream.read_exact(&mut answer).map_err(say("receive"))?;
            if answer != message(length) {
                return Err(format!("{length} bytes came back as others"));
            }
        }
        // A FIN that comes later would be taken for one of the next row.
        close(&stream).map_err(say("close"))?;
    }
    Ok(())
}

/// One combination.
struct Row {
    destination: Destination,
    offload: bool,
    udp: bool,
    direct: bool,
    to: SocketAddr,
}

impl Row {
    /// Has the client and the backend talk; what is wrong with that.
    fn faults_of(&self, scene: &Scene, hook: &str, [at_client, at_backend]: [&Capture; 2]) -> Vec<String> {
        let (destination, to) = (self.destination, self.to.ip());
        let places = ["client", destination.place()];
        let before = places.map(|place| bad(scene, place));
        at_client.frames();
        at_backend.frames();
        let forwarded = || FORWARDED.map(|name| scene.kernel_counter("node", name));
        let forwarded_before = forwarded();
        let mut faults = Vec::new();
        if let Err(error) = scene.inside("client", || converse(self.to, self.udp)) {
            faults.push(error);
        }
        self.faults("client", Some(to), &at_client.frames(), &mut faults);
        // At XDP what is not finished yet has to go by the host.
        let by_program = self.direct && (hook == "tc" || !self.offload) && destination != Destination::Local;
        if by_program && forwarded() != forwarded_before {
            faults.push("packets went through the host's forwarding".to_owned());
        }
        if destination != Destination::Local {
            self.faults("backend", None, &at_backend.frames(), &mut faults);
        }
        for (place, before) in places.into_iter().zip(before) {
            let after = bad(scene, place);
            if before != after {
                faults.push(format!("the kernel in {place} counts {BAD:?} {before:?}, then {after:?}"));
            }
        }
        faults
    }

    /// What is wrong with the frames that arrived at one end.
    fn faults(&self, end: &str, source: Option<IpAddr>, frames: &[Vec<u8>], out: &mut Vec<String>) {
        let seen: Vec<Seen> = frames.iter().filter_map(|frame| Seen::of(frame)).collect();
        let carrying = seen.iter().filter(|seen| seen.payload > 0).count();
        if carrying < LENGTHS.len() {
            out.push(format!("only {carrying} packets with data were seen at the {end}"));
        }
        // Without offload at the sender or at the last device, nothing is left to be completed. What is forwarded directly
        // does not go by the node's end of a veth pair.
        let complete = !self.offload || (self.destination == Destination::PlainVeth && !self.direct);
        for seen in seen {
            let right = match seen.checksum {
                Checksum::Full => true,
                Checksum::Partial => !complete,
                Checksum::Absent | Checksum::Wrong => false,
            };
            if !right || !seen.header_is_right {
                out.push(format!("at the {end}: {seen:?}"));
            }
            if source.is_some_and(|source| source != seen.source) {
                out.push(format!("at the {end}, from another address: {seen:?}"));
            }
        }
    }
}

/// Offloads as the row's group wants them. What merges packets is off: it would also complete their checksums.
fn prepare(scene: &Scene, destination: Destination, offload: bool) {
    let node_side = [&scene.pod("client").interface, &scene.pod("echo").interface];
    for place in ["client", "echo"] {
        scene.tx_offload(place, "eth0", offload);
    }
    for interface in node_side {
        // The node sends by these what its own sockets have to say.
        let on = match destination {
            Destination::Veth => true,
            Destination::PlainVeth => false,
            Destination::Local => offload,
        };
        scene.tx_offload("node", interface, on);
    }
}

fn bad(scene: &Scene, place: &str) -> Vec<u64> {
    BAD.iter().map(|name| scene.kernel_counter(place, name)).collect()
}

fn scene(hook: &str, forwarding: &str, folder: &Path) -> Scene {
    let mut scene = Scene::forwarding(folder, hook, forwarding);
    for command in echo() {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        scene.keep_running("node", &command);
    }
    // A veth takes what is redirected at XDP only if its other end merges packets. Here none come together.
    let gro = if (hook, forwarding) == ("xdp", "direct") { "on" } else { "off" };
    for place in ["client", "echo"] {
        scene.ok(place, &["ethtool", "-K", "eth0", "gro", gro]);
    }
    for destination in [Destination::Veth, Destination::Local] {
        for address in destination.vip() {
            scene.wait_for_tcp("client", SocketAddr::new(address, PORT));
        }
    }
    scene
}

fn matrix(hook: &str, forwarding: &str) {
    let folder = manifests();
    let scene = scene(hook, forwarding, folder.path());
    let direct = forwarding == "direct";
    let mut failures = Vec::new();
    let mut rows = 0;
    for destination in [Destination::Veth, Destination::PlainVeth, Destination::Local] {
        for offload in [true, false] {
            prepare(&scene, destination, offload);
            let at_client = Capture::start(&scene.namespace("client"));
            let at_backend = Capture::start(&scene.namespace(destination.place()));
            for (to, udp) in destination.vip().into_iter().flat_map(|to| [(to, false), (to, true)]) {
                let row = Row { destination, offload, udp, direct, to: SocketAddr::new(to, PORT) };
                // At XDP one packet in 65,536 looks like one of the other kind, and arrives wrong or goes another way. Twice in a
                // row is no chance.
                let mut faults = row.faults_of(&scene, hook, [&at_client, &at_backend]);
                if !faults.is_empty() && hook != "tc" {
                    faults = row.faults_of(&scene, hook, [&at_client, &at_backend]);
                }
                rows += 1;
                if !faults.is_empty() {
                    let udp = if row.udp { "UDP" } else { "TCP" };
                    let offload = if offload { "on" } else { "off" };
                    failures.push(format!(
                        "{hook}, forwarding {forwarding}, offload {offload}, {udp} to {to}, {destination:?}:\n    {}",
                        faults.join("\n    ")
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {rows} rows fail:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(rows, 24);
}

#[test]
fn checksums_are_right_at_tc() {
    matrix("tc", "kernel");
}

#[test]
fn checksums_are_right_at_tc_forwarding_directly() {
    matrix("tc", "direct");
}

#[test]
fn checksums_are_right_at_native_xdp() {
    matrix("xdp", "kernel");
}

#[test]
fn checksums_are_right_at_native_xdp_forwarding_directly() {
    matrix("xdp", "direct");
}

#[test]
fn checksums_are_right_at_generic_xdp() {
    matrix("xdp-generic", "kernel");
}

/// A UDP packet with a wrong checksum, from the client's port 5000.
fn send_wrong(to: IpAddr) {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Udp).unwrap();
    let words = [5000, PORT, 8 + 4, 0x1234];
    let packet = [&words.map(u16::to_be_bytes).concat(), &b"oops"[..]].concat();
    let to = SockaddrStorage::from(SocketAddr::new(to, 0));
    assert_eq!(sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty()), Ok(packet.len()));
}

/// The checks of the matrix can fail: a packet that is wrong when it is sent arrives wrong (its checksum is corrected
/// for the rewriting, not computed anew), is seen as wrong, is counted as wrong, and gets no answer.
#[test]
fn a_wrong_checksum_stays_wrong_and_is_noticed() {
    let folder = manifests();
    for hook in ["tc", "xdp", "xdp-generic"] {
        let scene = scene(hook, "auto", folder.path());
        for (to, counter) in Destination::Veth.vip().into_iter().zip(["Udp InCsumErrors", "Udp6InCsumErrors"])
        {
            let (at_client, at_backend) =
                (Capture::start(&scene.namespace("client")), Capture::start(&scene.namespace("echo")));
            let before = scene.kernel_counter("echo", counter);
            scene.inside("client", || send_wrong(to));
            wait_for(&format!("{counter} to grow at {hook}"), || {
                scene.kernel_counter("echo", counter) == before + 1
            });
            let frames = at_backend.frames();
            let row = Row {
                destination: Destination::Veth,
                offload: true,
                udp: true,
                direct: false,
                to: SocketAddr::new(to, PORT),
            };
            let mut faults = Vec::new();
            row.faults("backend", None, &frames, &mut faults);
            assert!(faults.iter().any(|fault| fault.contains("checksum: Wrong")), "{hook}: {faults:?}");
            assert_eq!(at_client.frames(), Vec::<Vec<u8>>::new(), "{hook}: an answer to a wrong packet");
        }
    }
}
