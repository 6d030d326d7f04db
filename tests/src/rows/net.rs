//! The little world that rows play in, the same for both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use lb_userspace::model::desired::{Family, Surroundings};

/// An address and a port.
pub type At = (IpAddr, u16);

/// Addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Net {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Net {
    /// Both families.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family as the model has it.
    pub const fn family(self) -> Family {
        match self {
            Self::V4 => Family::V4,
            Self::V6 => Family::V6,
        }
    }

    fn addr(self, v4: [u8; 3], v6: [u16; 3], n: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(v4[0], v4[1], v4[2], n).into(),
            Self::V6 => Ipv6Addr::new(v6[0], v6[1], v6[2], 0, 0, 0, 0, n.into()).into(),
        }
    }

    /// A pod that is a client.
    pub fn client(self, n: u8) -> IpAddr {
        self.addr([10, 1, 0], [0xfd00, 1, 0], n)
    }

    /// A pod that is a backend.
    pub fn pod(self, n: u8) -> IpAddr {
        self.addr([10, 1, 1], [0xfd00, 1, 1], n)
    }

    /// An address of the service range.
    pub fn vip(self, n: u8) -> IpAddr {
        self.addr([10, 96, 0], [0xfd00, 0x96, 0], n)
    }

    /// This node.
    pub fn node(self) -> IpAddr {
        self.addr([192, 168, 0], [0xfd00, 2, 0], 2)
    }

    /// Another address of this node.
    pub fn node_second(self) -> IpAddr {
        self.addr([192, 168, 1], [0xfd00, 2, 1], 2)
    }

    /// A host outside the cluster.
    pub fn outside(self, n: u8) -> IpAddr {
        self.addr([203, 0, 113], [0x2001, 0xdb8, 0], n)
    }

    /// An address that the outside world routes to the cluster: externalIPs, load balancers.
    pub fn public(self, n: u8) -> IpAddr {
        self.addr([198, 51, 100], [0x2001, 0xdb8, 1], n)
    }

    /// The range around an address.
    pub fn range(self, addr: IpAddr) -> IpNet {
        let bits = match self {
            Self::V4 => 24,
            Self::V6 => 48,
        };
        IpNet::new(addr, bits).expect("a prefix length of the family").trunc()
    }
}

/// Node and cluster around the rows, both families.
pub fn surroundings() -> Surroundings {
    let both = |of: fn(Net) -> IpAddr| Net::BOTH.map(of).to_vec();
    let range = |text: &str| text.parse().expect("a range");
    Surroundings {
        node_addresses: [both(Net::node), both(Net::node_second)].concat(),
        masquerade_addresses: both(Net::node),
        pod_cidrs: vec![range("10.1.0.0/16"), range("fd00:1::/32")],
        service_cidrs: vec![range("10.96.0.0/12"), range("fd00:96::/32")],
        ..Surroundings::default()
    }
}
