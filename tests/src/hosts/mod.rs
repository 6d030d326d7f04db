//! Two hosts and the world outside: the node under test, another node with pods of its own, and a client beyond an
//! interface marked external.
//!
//! ```text
//!  client  local0  local1          remote
//!  veth-c  veth-s0 veth-s1            |
//!      \     |     /                  |    (MTU 1300)
//!   node under test, agent ─ veth-r ─ other host ─ another router ─ far
//!            |
//!          ext0 ─ outside
//! ```
//!
//! Servers are threads of the test's process with sockets made inside the namespaces. Each says who it is and who it
//! thinks is asking, then repeats what it is told.

mod manifest;
mod talk;

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use lb_userspace::lab::netns::Namespace;
use lb_userspace::lab::topology::{Node, POD_INTERFACE};
use nix::errno::Errno;
use nix::sys::socket::{SockType, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

pub use self::manifest::{Manifest, vip};
pub use self::talk::{Datagrams, Heard, Talk};
use self::talk::{PATIENCE, SILENCE, bound, connect_socket, repeat_datagrams, repeat_stream};
use crate::node::{Agent, TestNode};

/// Port that all servers listen on, TCP and UDP.
pub const PORT: u16 = 8080;
/// Native XDP with direct forwarding, between wires like those between machines, as a hook.
pub const XDP_DIRECT: &str = "xdp-direct";
/// The MTU of a wire on the way to [`Place::Far`].
pub const SMALL_MTU: u32 = 1300;
/// An address in both families: IPv4, IPv6.
pub type Both = [&'static str; 2];
/// The node under test.
pub const NODE: Both = ["172.31.0.1", "fd00:172:31::1"];
/// The other host.
pub const OTHER_HOST: Both = ["172.31.0.2", "fd00:172:31::2"];
/// Its neighbour, which routes to [`Place::Far`].
const MIDDLE: Both = ["172.31.0.3", "fd00:172:31::3"];
/// A second address of the client outside.
pub const OUTSIDE_TOO: Both = ["203.0.113.7", "2001:db8:203::7"];

/// Where a socket of a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A pod of the node under test that serves nothing.
    Client,
    /// Pods of the node under test.
    Local(u8),
    /// A pod of the other host.
    Remote,
    /// Another, farther away: on the way is a wire with a small MTU.
    Far,
    /// Beyond the external interface.
    Outside,
}

impl Place {
    /// Pods that serve.
    pub const SERVERS: [Self; 4] = [Self::Local(0), Self::Local(1), Self::Remote, Self::Far];

    /// Its address, IPv4 or IPv6.
    pub fn address(self, v6: bool) -> IpAddr {
        let pod = |host: u8| [format!("10.77.0.{host}"), format!("fd00:77::{host}")];
        let both = match self {
            Self::Client => pod(2),
            Self::Local(number) => pod(10 + number),
            Self::Remote => pod(200),
            Self::Far => pod(201),
            Self::Outside => ["198.51.100.7".to_owned(), "2001:db8:51::7".to_owned()],
        };
        both[usize::from(v6)].parse().expect("an address")
    }

    fn both(self) -> [IpAddr; 2] {
        [false, true].map(|v6| self.address(v6))
    }

    /// The node it is on, as EndpointSlices call it.
    pub fn node_name(self) -> &'static str {
        if matches!(self, Self::Client | Self::Local(_)) { "here" } else { "there" }
    }

    /// What a server there says it is.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// The scene, gone when dropped; every packet must be accounted for then.
#[derive(Debug)]
pub struct Hosts {
    /// The node under test.
    pub net: TestNode,
    local: [Namespace; 2],
    other: Namespace,
    remote: Namespace,
    far: Namespace,
    outside: Namespace,
}

impl Hosts {
    /// Everything but the agent.
    ///
    /// # Panics
    /// When not root.
    #[expect(clippy::new_without_default, reason = "it makes namespaces")]
    pub fn new() -> Self {
        let net = TestNode::new(0);
        let name = |what: &str| net.namespace_name(what);
        net.ip(&format!("address add {}/128 dev lo", NODE[1]));
        let pod = |node: &Node, place: Place, interface: &str| {
            let name = name(&place.name().replace(['(', ')'], "").to_lowercase());
            node.add_pod(&name, interface, &place.both()).expect("a pod")
        };
        let local = [0, 1].map(|number| pod(net.node(), Place::Local(number), &format!("veth-s{number}")));
        let outside =
            net.node().add_pod(&name("outside"), "ext0", &Place::Outside.both()).expect("a client outside");
        let other = net.node().add_pod(&name("other"), "veth-r", &parse(OTHER_HOST)).expect("a host");
        let router = forwarding(&other);
        let middle = router.add_pod(&name("middle"), "middle", &parse(MIDDLE)).expect("a router");
        for (namespace, interface) in [(&other, "middle"), (&middle, POD_INTERFACE)] {
            run(namespace, &format!("ip link set {interface} mtu {SMALL_MTU}"));
        }
        let remote = pod(&router, Place::Remote, "remote");
        let far = pod(&forwarding(&middle), Place::Far, "far");
        for (address, via) in Place::Far.both().iter().zip(MIDDLE) {
            run(&other, &format!("ip route add {address} via {via} dev middle onlink"));
        }
        for (address, v6) in
            [Place::Remote, Place::Far].iter().flat_map(|p| p.both()).zip([false, true].into_iter().cycle())
        {
            net.ip(&format!("route add {address} via {} dev veth-r onlink", OTHER_HOST[usize::from(v6)]));
        }
        for (own, too) in Place::Outside.both().iter().zip(OUTSIDE_TOO) {
            let prefix = if own.is_ipv4() { 32 } else { 128 };
            // Deprecated at once: only who asks for it gets it.
            run(&outside, &format!("ip address add {too}/{prefix} dev eth0 preferred_lft 0"));
            net.ip(&format!("route add {too} via {own} dev ext0 onlink"));
        }
        let this = Self { net, local, other, remote, far, outside };
        for place in Place::SERVERS {
            this.serve(place);
        }
        this
    }

    /// Starts an agent on all interfaces of the node, and waits until it is ready. At [`XDP_DIRECT`] it redirects packets.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn agent(&self, hook: &str, more: &[&str]) -> Agent {
        if hook == XDP_DIRECT {
            self.like_between_machines();
            let agent = self.agent("xdp", &[&["--forwarding", "direct"], more].concat());
            let links = self.net.links();
            let direct = links.iter().filter(|link| link["forwarding"]["direct"] == true);
            assert_eq!(direct.count(), 5, "interfaces: {links:?}");
            return agent;
        }
        let usual =
            ["--node-name", "here", "--iface", "veth*", "--iface", "ext0", "--external-iface", "ext0"];
        self.net.agent(&[&["--hook", hook][..], &usual, more].concat())
    }

    /// The namespace of a place.
    pub fn namespace(&self, place: Place) -> &Namespace {
        match place {
            Place::Client => self.net.client(),
            Place::Local(number) => &self.local[usize::from(number)],
            Place::Remote => &self.remote,
            Place::Far => &self.far,
            Place::Outside => &self.outside,
        }
    }

    /// From now on nothing leaves a wire of the node unfinished, as on wires between machines: whoever sends there works
    /// out checksums itself, and cuts what is too long.
    pub fn like_between_machines(&self) {
        let places = [Place::Client, Place::Local(0), Place::Local(1), Place::Outside];
        for namespace in places.map(|place| self.namespace(place)).into_iter().chain([&self.other]) {
            run(namespace, &format!("ethtool -K {POD_INTERFACE} tx off"));
        }
    }

    /// The other host, which routes to its pods.
    pub fn other(&self) -> &Namespace {
        &self.other
    }

    /// Runs a closure there.
    ///
    /// # Panics
    /// When the closure does.
    pub fn inside<T: Send>(&self, place: Place, body: impl FnOnce() -> T + Send) -> T {
        self.namespace(place).run(body).expect("enters")
    }

    fn serve(&self, place: Place) {
        let sockets = self.inside(place, || {
            place.both().map(|address| {
                let at = SocketAddr::new(address, PORT);
                (TcpListener::bind(at).expect("listens"), UdpSocket::bind(at).expect("binds"))
            })
        });
        for (tcp, udp) in sockets {
            thread::spawn(move || {
                for stream in tcp.incoming().flatten() {
                    thread::spawn(move || repeat_stream(stream, place));
                }
            });
            thread::spawn(move || repeat_datagrams(&udp, place));
        }
    }

    /// Waits until a Service answers the client's pod as `wanted` says, or fails as it says.
    pub fn wait(&self, to: SocketAddr, what: &str, mut wanted: impl FnMut(io::Result<Heard>) -> bool) {
        crate::patience::wait_for(what, || wanted(self.dial(Place::Client, to)));
    }

    /// What a new TCP connection finds; it is closed again.
    ///
    /// # Errors
    /// Why there is none.
    pub fn dial(&self, from: Place, to: SocketAddr) -> io::Result<Heard> {
        let talk = self.connect(from, to)?;
        let heard = talk.heard.clone();
        talk.finish()?;
        Ok(heard)
    }

    /// A TCP connection.
    ///
    /// # Errors
    /// Why there is none.
    pub fn connect(&self, from: Place, to: SocketAddr) -> io::Result<Talk> {
        self.inside(from, || Talk::new(TcpStream::connect_timeout(&to, PATIENCE)?))
    }

    /// A TCP connection from an address of its own; port 0 = any.
    ///
    /// # Errors
    /// Why there is none.
    pub fn connect_from(&self, from: Place, source: SocketAddr, to: SocketAddr) -> io::Result<Talk> {
        self.inside(from, || {
            let stream = bound(source, SockType::Stream)?;
            connect_socket(&stream, to)?;
            Talk::new(TcpStream::from(stream))
        })
    }

    /// A UDP socket.
    ///
    /// # Panics
    /// When the kernel has none.
    pub fn udp(&self, from: Place, to: SocketAddr) -> Datagrams {
        self.udp_sockets(from, to, 1).remove(0)
    }

    /// So many UDP sockets.
    ///
    /// # Panics
    /// As above.
    pub fn udp_sockets(&self, from: Place, to: SocketAddr, count: usize) -> Vec<Datagrams> {
        let source = SocketAddr::new(from.address(to.is_ipv6()), 0);
        let make = || {
            let socket = bound(source, SockType::Datagram).expect("a socket");
            connect_socket(&socket, to).expect("connects");
            Datagrams(UdpSocket::from(socket))
        };
        self.inside(from, || (0..count).map(|_| make()).collect())
    }

    /// That a TCP connection finds nobody: neither an answer nor a refusal.
    ///
    /// # Panics
    /// When somebody answers, also if it is to refuse.
    pub fn assert_silent(&self, from: Place, to: SocketAddr) {
        self.assert_silent_from(from, SocketAddr::new(from.address(to.is_ipv6()), 0), to);
    }

    /// The same, with an address of its own.
    ///
    /// # Panics
    /// As above.
    pub fn assert_silent_from(&self, from: Place, source: SocketAddr, to: SocketAddr) {
        let result = self.inside(from, || {
            let socket = bound(source, SockType::Stream)?;
            // Also bounds the time that connecting takes.
            setsockopt(&socket, sockopt::SendTimeout, &TimeVal::microseconds(SILENCE.as_micros() as i64))?;
            connect_socket(&socket, to)
        });
        let error = result.expect_err("nobody is to answer");
        // EINPROGRESS: still trying when the time was over.
        assert_eq!(error.raw_os_error(), Some(Errno::EINPROGRESS as i32), "{from:?} to {to}: {error}");
    }

    /// That a TCP connection is refused, and at once: the kernel's own patience would be minutes.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_refused(&self, from: Place, to: SocketAddr) {
        let error = self.connect(from, to).expect_err("nobody is to answer");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{from:?} to {to}: {error}");
    }

    /// Packets that met a verdict for this reason, on all interfaces together.
    pub fn count(&self, reason: &str) -> u64 {
        let stats = self.net.json(&["get", "stats"]);
        let rows = stats.as_array().expect("a list").iter().filter(|row| row["reason"] == reason);
        rows.filter_map(|row| row["packets"].as_u64()).sum()
    }
}

/// Makes a router of a host.
fn forwarding(host: &Namespace) -> Node {
    let forward = || {
        for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{file}"), "1").expect("a sysctl");
        }
    };
    host.run(forward).expect("enters");
    Node::open(host.name()).expect("opens")
}

/// Both addresses, parsed.
pub fn parse(both: Both) -> [IpAddr; 2] {
    both.map(|address| address.parse().expect("an address"))
}

/// Runs a command, which must succeed, and gives what it prints.
///
/// # Panics
/// When it fails.
pub fn run(namespace: &Namespace, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let output = namespace.command(words[0]).expect("a command").args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", crate::scene::text(&output.stderr));
    crate::scene::text(&output.stdout)
}
