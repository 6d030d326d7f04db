//! Packets as descriptions: change a field, and everything that depends on it is computed anew.

use std::net::IpAddr;

use super::net::At;
use super::sums;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;

/// What stands in the transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The right one.
    Right,
    /// UDP's "none": zero.
    None,
    /// The pseudo header's sum only: a device is to complete it (`CHECKSUM_PARTIAL`).
    Partial,
    /// One that is off by as much.
    Off(u16),
}

/// What the network header carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    /// TCP with these flags.
    Tcp {
        /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
        flags: u8,
        /// Sequence and acknowledgement numbers.
        numbers: [u32; 2],
        /// Window.
        window: u16,
        /// Options, a multiple of four bytes.
        options: Vec<u8>,
    },
    /// UDP.
    Udp,
    /// SCTP with a first chunk of this type; `None`: no chunk.
    Sctp(Option<u8>),
    /// ICMP of the packet's family.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The second word.
        rest: [u8; 4],
    },
    /// The payload as it is, under this protocol number.
    Raw(u8),
}

/// A part of a datagram's network payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Identification.
    pub id: u32,
    /// First byte, a multiple of 8.
    pub from: usize,
    /// Bytes; the last fragment is the one that reaches the end.
    pub len: usize,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// VLAN tags, outermost first: EtherType and tag.
    pub tags: Vec<(u16, u16)>,
    /// Source.
    pub src: At,
    /// Destination.
    pub dst: At,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4 identification; that of a fragment stands in its slice.
    pub id: u16,
    /// IPv4 "don't fragment".
    pub dont_fragment: bool,
    /// IPv6 flow label.
    pub flow_label: u32,
    /// Link addresses the other way round: sent back.
    pub turned: bool,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: number and header, whose first byte is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// What the network header carries.
    pub upper: Upper,
    /// Data behind the transport header.
    pub payload: Vec<u8>,
    /// What stands in the transport checksum.
    pub checksum: Checksum,
    /// Only this part of the datagram.
    pub slice: Option<Slice>,
    /// Bytes behind the end that the network header declares.
    pub trailer: Vec<u8>,
    /// Bytes written over the finished frame, by their distance from the network header.
    pub edits: Vec<(usize, Vec<u8>)>,
    /// EtherType to write instead of the right one.
    pub ethertype: Option<u16>,
    /// Length to cut the finished frame to.
    pub cut: Option<usize>,
}

impl Packet {
    /// A packet with everything usual.
    pub fn new(src: At, dst: At, upper: Upper) -> Self {
        Self {
            tags: Vec::new(),
            src,
            dst,
            traffic_class: 0,
            hop_limit: 64,
            id: 0x1c46,
            dont_fragment: false,
            flow_label: 0x5_a5a5,
            turned: false,
            options: Vec::new(),
            extensions: Vec::new(),
            upper,
            payload: Vec::new(),
            checksum: Checksum::Right,
            slice: None,
            trailer: Vec::new(),
            edits: Vec::new(),
            ethertype: None,
            cut: None,
        }
    }

    /// The same from elsewhere.
    #[must_use]
    pub fn from(mut self, src: At) -> Self {
        self.src = src;
        self
    }

    /// The same to elsewhere.
    #[must_use]
    pub fn to(mut self, dst: At) -> Self {
        self.dst = dst;
        self
    }

    /// The same with other data.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The same with another kind of checksum.
    #[must_use]
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// The same with one more VLAN tag inside those it has.
    #[must_use]
    pub fn tag(mut self, ethertype: u16, tag: u16) -> Self {
        self.tags.push((ethertype, tag));
        self
    }

    /// The same with these bytes at `at` from the network header on.
    #[must_use]
    pub fn edit(mut self, at: usize, bytes: &[u8]) -> Self {
        self.edits.push((at, bytes.to_vec()));
        self
    }

    /// The same with these bytes at `at` from the transport header on.
    #[must_use]
    pub fn edit_upper(self, at: usize, bytes: &[u8]) -> Self {
        let headers = self.network_header_len();
        self.edit(headers + at, bytes)
    }

    /// The same, its frame cut to `len` bytes.
    #[must_use]
    pub fn cut(mut self, len: usize) -> Self {
        self.cut = Some(len);
        self
    }

    /// The same behind one more IPv6 extension header.
    #[must_use]
    pub fn extension(mut self, number: u8, header: &[u8]) -> Self {
        self.extensions.push((number, header.to_vec()));
        self
    }

    /// The same with IPv4 options.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// The same with TOS or traffic class and TTL or hop limit.
    #[must_use]
    pub fn marked(mut self, traffic_class: u8, hop_limit: u8) -> Self {
        self.traffic_class = traffic_class;
        self.hop_limit = hop_limit;
        self
    }

    /// One fragment of it.
    #[must_use]
    pub fn slice(mut self, id: u32, from: usize, len: usize) -> Self {
        self.slice = Some(Slice { id, from, len });
        self
    }

    /// The same with its last two bytes of data chosen so that the computed checksum is zero.
    #[must_use]
    pub fn with_zero_sum(mut self) -> Self {
        self.payload = vec![0; 2];
        let field = self.checksum_field().expect("a transport with an Internet checksum");
        let bytes = self.upper_bytes();
        let right = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
        // The sum of everything else lacks exactly what its complement has.
        self.payload = right.to_be_bytes().to_vec();
        self
    }

    /// An ICMP error of `kind` and `code` from `from` to `self`'s sender, quoting `quote` bytes of `self`.
    pub fn error(&self, from: IpAddr, kind: u8, code: u8, quote: usize) -> Self {
        let mut quoted = self.network_bytes();
        quoted.truncate(quote);
        let rest = [0, 0, 0x05, 0x14];
        Self::new((from, 0), (self.src.0, 0), Upper::Icmp { kind, code, rest }).payload(quoted)
    }

    /// What comes back in place of a backend's answer: RST, ICMP "port unreachable" or echo reply.
    ///
    /// TTL is 64, nothing of the packet's own marks is kept.
    pub fn answer(&self) -> Self {
        let upper = match &self.upper {
            Upper::Tcp { flags, numbers, .. } => {
                let (syn, fin, ack) = (flags >> 1 & 1, flags & 1, flags >> 4 & 1);
                let got = self.payload.len() as u32 + u32::from(syn) + u32::from(fin);
                // RFC 9293 section 3.10.7.1.
                let (flags, numbers) = match ack {
                    1 => (0x04, [numbers[1], 0]),
                    _ => (0x14, [0, numbers[0].wrapping_add(got)]),
                };
                Upper::Tcp { flags, numbers, window: 0, options: Vec::new() }
            }
            Upper::Icmp { rest, .. } => {
                Upper::Icmp { kind: if self.is_v4() { 0 } else { 129 }, code: 0, rest: *rest }
            }
            _ => {
                let (kind, code) = if self.is_v4() { (3, 3) } else { (1, 4) };
                Upper::Icmp { kind, code, rest: [0; 4] }
            }
        };
        let mut answer = Self::new(self.dst, self.src, upper);
        answer.tags.clone_from(&self.tags);
        (answer.id, answer.dont_fragment, answer.flow_label, answer.turned) = (0, true, 0, true);
        match &self.upper {
            Upper::Tcp { .. } | Upper::Icmp { .. } => {
                // The header stays as long as it was; IPv4 options become "no operation".
                answer.options = vec![1; self.options.len()];
                answer.extensions.clone_from(&self.extensions);
                if let Upper::Icmp { .. } = self.upper {
                    answer.payload.clone_from(&self.payload);
                }
            }
            _ => {
                let mut quoted = self.network_bytes();
                quoted.truncate(quoted.len().min(128) & !3);
                answer.payload = quoted;
            }
        }
        answer
    }

    /// The protocol number of what it carries.
    pub fn protocol(&self) -> u8 {
        match self.upper {
            Upper::Tcp { .. } => 6,
            Upper::Udp => 17,
            Upper::Sctp(_) => 132,
            Upper::Icmp { .. } if self.is_v4() => 1,
            Upper::Icmp { .. } => 58,
            Upper::Raw(number) => number,
        }
    }

    fn is_v4(&self) -> bool {
        self.src.0.is_ipv4()
    }

    fn network_header_len(&self) -> usize {
        if self.is_v4() {
            20 + self.options.len()
        } else {
            let fragment = if self.slice.is_some() { 8 } else { 0 };
            40 + self.extensions.iter().map(|(_, header)| header.len()).sum::<usize>() + fragment
        }
    }

    fn checksum_field(&self) -> Option<usize> {
        match self.upper {
            Upper::Tcp { .. } => Some(16),
            Upper::Udp => Some(6),
            Upper::Icmp { .. } => Some(2),
            Upper::Sctp(_) | Upper::Raw(_) => None,
        }
    }

    /// Transport header and data, whole.
    fn upper_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ports = [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat();
        match &self.upper {
            Upper::Tcp { flags, numbers, window, options } => {
                bytes.extend(ports);
                bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
                bytes.extend([(5 + options.len() / 4) as u8 * 16, *flags]);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(options);
            }
            Upper::Udp => {
                bytes.extend(ports);
                bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            Upper::Sctp(chunk) => {
                bytes.extend(ports);
                bytes.extend([0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 0]);
                if let Some(kind) = chunk {
                    bytes.extend([*kind, 0]);
                    bytes.extend((4 + self.payload.len() as u16).to_be_bytes());
                }
            }
            Upper::Icmp { kind, code, rest } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(rest);
            }
            Upper::Raw(_) => {}
        }
        bytes.extend(&self.payload);
        self.fill_checksum(&mut bytes);
        bytes
    }

    fn fill_checksum(&self, bytes: &mut [u8]) {
        if let (Upper::Sctp(_), Checksum::Right) = (&self.upper, self.checksum) {
            let crc = sums::crc32c(bytes);
            // Least significant byte first (RFC 9260 appendix A).
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        let Some(field) = self.checksum_field() else { return };
        let mut pseudo = sums::pseudo_header(self.src.0, self.dst.0, self.protocol(), bytes.len());
        if self.protocol() == 1 {
            pseudo.clear();
        }
        let udp = self.upper == Upper::Udp;
        let never_zero = |sum: u16| if udp && sum == 0 { 0xffff } else { sum };
        let value = match self.checksum {
            Checksum::Right => never_zero(!sums::sum(&[&pseudo, bytes])),
            Checksum::Off(by) => never_zero(!sums::sum(&[&pseudo, bytes, &by.to_be_bytes()])),
            Checksum::Partial => sums::sum(&[&pseudo]),
            Checksum::None => 0,
        };
        bytes[field..field + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// Everything from the network header on, but for edits and cuts.
    fn network_bytes(&self) -> Vec<u8> {
        let mut upper = self.upper_bytes();
        let mut more = false;
        if let Some(slice) = self.slice {
            let end = (slice.from + slice.len).min(upper.len());
            more = end < upper.len();
            upper = upper[slice.from.min(end)..end].to_vec();
        }
        let from = self.slice.map_or(0, |slice| slice.from) as u16;
        let mut bytes = match (self.src.0, self.dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header_len = 20 + self.options.len();
                let total_len = (header_len + upper.len()) as u16;
                let id = self.slice.map_or(self.id, |slice| slice.id as u16);
                let flags = (u16::from(more) << 13) | (u16::from(self.dont_fragment) << 14);
                let fragment = flags | (from / 8);
                let mut header = vec![0x40 | (header_len / 4) as u8, self.traffic_class];
                header.extend(total_len.to_be_bytes());
                header.extend(id.to_be_bytes());
                header.extend(fragment.to_be_bytes());
                header.extend([self.hop_limit, self.protocol(), 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header.extend(&self.options);
                let sum = !sums::sum(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut extensions = self.extensions.clone();
                if let Some(slice) = self.slice {
                    let mut header = vec![0, 0];
                    header.extend((from | u16::from(more)).to_be_bytes());
                    header.extend(slice.id.to_be_bytes());
                    extensions.push((44, header));
                }
                let length: usize = extensions.iter().map(|(_, header)| header.len()).sum();
                let class = u32::from(self.traffic_class);
                let mut header = (6 << 28 | class << 20 | self.flow_label).to_be_bytes().to_vec();
                header.extend(((length + upper.len()) as u16).to_be_bytes());
                let numbers: Vec<u8> = extensions.iter().map(|(n, _)| *n).chain([self.protocol()]).collect();
                header.extend([numbers[0], self.hop_limit]);
                header.extend(src.octets());
                header.extend(dst.octets());
                for ((_, extension), next) in extensions.iter().zip(&numbers[1..]) {
                    header.push(*next);
                    header.extend(&extension[1..]);
                }
                header
            }
            _ => panic!("source and destination are of one family"),
        };
        bytes.extend(upper);
        bytes
    }

    /// Bytes that the network header declares.
    pub fn network_len(&self) -> usize {
        self.network_bytes().len()
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        const ENDS: [[u8; 6]; 2] = [[0x02, 0, 0, 0, 0, 0x01], [0x02, 0, 0, 0, 0, 0x02]];
        let [dst, src] = if self.turned { [ENDS[1], ENDS[0]] } else { ENDS };
        let mut bytes = [dst, src].concat();
        for (ethertype, tag) in &self.tags {
            bytes.extend(ethertype.to_be_bytes());
            bytes.extend(tag.to_be_bytes());
        }
        let right = if self.is_v4() { 0x0800 } else { 0x86dd };
        bytes.extend(self.ethertype.unwrap_or(right).to_be_bytes());
        let network = bytes.len();
        bytes.extend(self.network_bytes());
        bytes.extend(&self.trailer);
        for (at, edit) in &self.edits {
            bytes[network + at..network + at + edit.len()].copy_from_slice(edit);
        }
        bytes.truncate(self.cut.unwrap_or(usize::MAX));
        bytes
    }
}
