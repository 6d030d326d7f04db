//! All that is known about names at one moment. Never changed, only replaced.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{CNAME, PTR, SOA};
use hickory_proto::rr::{LowerName, Name, RData, RecordType};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::names::{below, parse_reverse, reverse};

/// Seconds for secondary servers, which do not exist: what CoreDNS says.
const REFRESH: i32 = 7200;
const RETRY: i32 = 1800;
const EXPIRE: i32 = 86_400;

/// Records of one name by type. A name without any exists all the same (RFC 8020: an empty non-terminal).
type Sets = Vec<(RecordType, Vec<RData>)>;

/// What a zone says to a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Found<'a> {
    /// These.
    Records(&'a [RData]),
    /// The name is another one's alias.
    Alias(&'a Name),
    /// The name exists, but not this type.
    NoData,
    /// There is no such name.
    NoName,
    /// Not for this zone to say.
    Outside,
}

/// The names of a cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    domain: Name,
    /// Changes with every zone.
    serial: u32,
    /// Seconds that answers may be remembered, negative ones included.
    ttl: u32,
    names: HashMap<LowerName, Sets>,
    reverse: BTreeMap<IpAddr, Vec<RData>>,
    /// Ranges whose reverse names nobody else knows.
    ranges: Vec<IpNet>,
}

impl Zone {
    /// A zone with nothing in it but the domain itself. Addresses in `ranges` are those of the cluster.
    pub fn new(domain: Name, serial: u32, ttl: u32, mut ranges: Vec<IpNet>) -> Self {
        for range in &mut ranges {
            *range = range.trunc();
        }
        let mut zone = Self { domain, serial, ttl, names: HashMap::new(), reverse: BTreeMap::new(), ranges };
        zone.touch(zone.domain.clone());
        let soa = RData::SOA(zone.soa());
        zone.add(zone.domain.clone(), soa);
        zone
    }

    /// The domain.
    pub fn domain(&self) -> &Name {
        &self.domain
    }

    /// Seconds that answers may be remembered.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Adds a record, once. Names outside the domain are left out.
    pub(super) fn add(&mut self, name: Name, data: RData) {
        let Some(sets) = self.touch(name) else { return };
        let kind = data.record_type();
        match sets.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, all)) if all.contains(&data) => {}
            Some((_, all)) => all.push(data),
            None => sets.push((kind, vec![data])),
        }
    }

    /// Makes a name exist, and those above it.
    pub(super) fn touch(&mut self, name: Name) -> Option<&mut Sets> {
        if !self.domain.zone_of(&name) {
            return None;
        }
        let mut above = name.base_name();
        let mut new = !self.names.contains_key(&LowerName::new(&name));
        while new && above.num_labels() >= self.domain.num_labels() {
            let key = LowerName::new(&above);
            new = !self.names.contains_key(&key);
            self.names.entry(key).or_default();
            above = above.base_name();
        }
        Some(self.names.entry(LowerName::new(&name)).or_default())
    }

    /// Says whose address this is.
    pub(super) fn add_pointer(&mut self, address: IpAddr, to: Name) {
        let all = self.reverse.entry(address).or_default();
        let data = RData::PTR(PTR(to));
        if !all.contains(&data) {
            all.push(data);
        }
    }

    /// Puts records into an order that does not depend on where they came from.
    pub(super) fn sort(&mut self) {
        for (_, records) in self.names.values_mut().flatten() {
            records.sort();
        }
        for records in self.reverse.values_mut() {
            records.sort();
        }
    }

    /// What there is to say about a name.
    pub(super) fn find(&self, name: &Name, kind: RecordType) -> Found<'_> {
        if !self.domain.zone_of(name) {
            return self.find_reverse(name, kind);
        }
        let Some(sets) = self.names.get(&LowerName::new(name)) else { return Found::NoName };
        for (known, records) in sets {
            if *known == kind {
                return Found::Records(records);
            }
            if let (RecordType::CNAME, Some(RData::CNAME(CNAME(target)))) = (*known, records.first()) {
                return Found::Alias(target);
            }
        }
        Found::NoData
    }

    fn find_reverse(&self, name: &Name, kind: RecordType) -> Found<'_> {
        let Some(net) = parse_reverse(name) else { return Found::Outside };
        if net.prefix_len() == net.max_prefix_len()
            && let Some(records) = self.reverse.get(&net.addr())
        {
            return if kind == RecordType::PTR { Found::Records(records) } else { Found::NoData };
        }
        if !self.ranges.iter().any(|range| range.contains(&net)) {
            return Found::Outside;
        }
        let below = self.reverse.range(net.network()..=net.broadcast()).next().is_some();
        if below || reverse_apex(&self.ranges, net) == Some(net) { Found::NoData } else { Found::NoName }
    }

    /// Name and contents of the SOA record for negative answers about `name`.
    pub(super) fn authority(&self, name: &Name) -> (Name, SOA) {
        let apex = if self.domain.zone_of(name) {
            self.domain.clone()
        } else {
            let net = parse_reverse(name);
            net.and_then(|net| reverse_apex(&self.ranges, net)).map_or_else(|| name.clone(), reverse)
        };
        (apex, self.soa())
    }

    fn soa(&self) -> SOA {
        let host = below(&["hostmaster"], &self.domain).unwrap_or_default();
        SOA::new(self.name_server(), host, self.serial, REFRESH, RETRY, EXPIRE, self.ttl)
    }

    /// The name of this server.
    pub(super) fn name_server(&self) -> Name {
        below(&["ns", "dns"], &self.domain).unwrap_or_default()
    }

    /// All records as text, ordered: one a line.
    pub fn dump(&self) -> String {
        let names = self.names.iter().map(|(name, sets)| (name.to_string(), sets));
        let mut lines = Vec::new();
        for (name, sets) in names {
            for (kind, records) in sets {
                lines.extend(records.iter().map(|data| format!("{name} {} {kind} {data}", self.ttl)));
            }
        }
        for (address, records) in &self.reverse {
            let name = reverse(IpNet::from(*address));
            lines.extend(records.iter().map(|data| format!("{name} {} PTR {data}", self.ttl)));
        }
        lines.sort();
        lines.into_iter().fold(String::new(), |mut text, line| {
            // Writing to a String does not fail.
            let _infallible = writeln!(text, "{line}");
            text
        })
    }
}

/// The reverse zone that a network belongs to: the part of a range that ends at a whole octet (IPv6: nibble).
fn reverse_apex(ranges: &[IpNet], net: IpNet) -> Option<IpNet> {
    let range = ranges.iter().filter(|range| range.contains(&net)).min_by_key(|range| range.prefix_len())?;
    match net {
        IpNet::V4(net) => {
            let length = range.prefix_len().next_multiple_of(8).min(32);
            let octets = Ipv4Addr::from(net.network().to_bits() & mask(length, 32) as u32);
            Ipv4Net::new(octets, length).ok().map(IpNet::V4)
        }
        IpNet::V6(net) => {
            let length = range.prefix_len().next_multiple_of(4).min(128);
            let bits = Ipv6Addr::from(net.network().to_bits() & mask(length, 128));
            Ipv6Net::new(bits, length).ok().map(IpNet::V6)
        }
    }
    .filter(|apex| apex.prefix_len() <= net.prefix_len())
}

/// So many of `width` bits, from the left.
fn mask(length: u8, width: u8) -> u128 {
    let all = u128::MAX >> (128 - width);
    all & !all.checked_shr(u32::from(length)).unwrap_or(0)
}
