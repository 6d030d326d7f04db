//! The plan as data.

use std::fmt;
use std::time::Duration;

use lb_common::abi::{
    BackendEntry, BackendStats, ClassKey, FrontendEntry, ServiceName, Settings, SourceRangeKey,
};
use lb_common::tables::Table;

use super::dump;
use super::limits::Problem;
use super::words::{FrontendName, frontend_key, prefix, v4_word, v6_words};

/// One operation on one table. `None` removes the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// `FRONTENDS_V4` or `FRONTENDS_V6`.
    Frontend(FrontendName, Option<FrontendEntry>),
    /// `SLOTS`: a run from this base on.
    Slots(u32, Vec<u32>),
    /// `BACKENDS`.
    Backend(u32, BackendEntry),
    /// `SERVICE_NAMES`.
    Name(u32, Option<ServiceName>),
    /// `CLASSES`.
    Class(ClassKey, Option<u32>),
    /// `FILTER`: a word.
    Filter(u32, u64),
    /// `SOURCE_RANGES`; true adds, false removes.
    SourceRange(SourceRangeKey, bool),
    /// `SETTINGS`.
    Settings(Settings),
    /// `BACKEND_STATS`: back to zero, the number is used again.
    ResetStats(u32),
    /// `OPEN_FLOWS`: back to zero, the number is used again.
    ResetOpenFlows(u32),
    /// `TURNS`: both counters of a frontend back to zero, the number is used again.
    ResetTurns(u32),
}

impl Op {
    /// The table it changes.
    pub fn table(&self) -> Table {
        match self {
            Self::Frontend(name, _) if name.addr.is_ipv4() => Table::FrontendsV4,
            Self::Frontend(..) => Table::FrontendsV6,
            Self::Slots(..) => Table::Slots,
            Self::Backend(..) => Table::Backends,
            Self::Name(..) => Table::ServiceNames,
            Self::Class(..) => Table::Classes,
            Self::Filter(..) => Table::Filter,
            Self::SourceRange(..) => Table::SourceRanges,
            Self::Settings(_) => Table::Settings,
            Self::ResetStats(_) => Table::BackendStats,
            Self::ResetOpenFlows(_) => Table::OpenFlows,
            Self::ResetTurns(_) => Table::Turns,
        }
    }

    /// Whether it removes an entry.
    pub const fn removes(&self) -> bool {
        matches!(
            self,
            Self::Frontend(_, None)
                | Self::Name(_, None)
                | Self::Class(_, None)
                | Self::SourceRange(_, false)
        )
    }

    /// Entries it writes or removes.
    pub fn entries(&self) -> usize {
        match self {
            Self::Slots(_, slots) => slots.len(),
            Self::ResetTurns(_) => 2,
            _ => 1,
        }
    }

    /// Appends the bytes for the map: keys one after another, and values unless it removes.
    pub(super) fn encode(&self, keys: &mut Vec<u8>, values: &mut Vec<u8>) {
        match self {
            Self::Frontend(name, entry) => {
                match name.addr {
                    std::net::IpAddr::V4(addr) => {
                        keys.extend(bytemuck::bytes_of(&frontend_key(v4_word(addr), name)));
                    }
                    std::net::IpAddr::V6(addr) => {
                        keys.extend(bytemuck::bytes_of(&frontend_key(v6_words(addr), name)));
                    }
                }
                values.extend(entry.iter().flat_map(bytemuck::bytes_of));
            }
            Self::Slots(base, slots) => {
                for (index, slot) in (*base..).zip(slots) {
                    keys.extend(index.to_ne_bytes());
                    values.extend(slot.to_ne_bytes());
                }
            }
            Self::Backend(id, entry) => {
                keys.extend(id.to_ne_bytes());
                values.extend(bytemuck::bytes_of(entry));
            }
            Self::Name(id, name) => {
                keys.extend(id.to_ne_bytes());
                values.extend(name.iter().flat_map(bytemuck::bytes_of));
            }
            Self::Class(key, class) => {
                keys.extend(bytemuck::bytes_of(key));
                values.extend(class.iter().flat_map(|class| class.to_ne_bytes()));
            }
            Self::Filter(word, value) => {
                keys.extend(word.to_ne_bytes());
                values.extend(value.to_ne_bytes());
            }
            Self::SourceRange(key, add) => {
                keys.extend(bytemuck::bytes_of(key));
                if *add {
                    values.extend(1_u32.to_ne_bytes());
                }
            }
            Self::Settings(settings) => {
                keys.extend(0_u32.to_ne_bytes());
                values.extend(bytemuck::bytes_of(settings));
            }
            Self::ResetStats(id) => {
                keys.extend(id.to_ne_bytes());
                values.extend(bytemuck::bytes_of(&BackendStats::default()));
            }
            Self::ResetOpenFlows(id) => {
                keys.extend(id.to_ne_bytes());
                values.extend(0_u64.to_ne_bytes());
            }
            Self::ResetTurns(id) => {
                for index in [2 * id, 2 * id + 1] {
                    keys.extend(index.to_ne_bytes());
                    values.extend(0_u64.to_ne_bytes());
                }
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", if self.removes() { "remove" } else { "write" }, self.table().spec().name)?;
        match self {
            Self::Frontend(name, None) => write!(f, "{name}"),
            Self::Frontend(name, Some(entry)) => write!(
                f,
                "{name}: #{} service #{} {} internal {}+{} external {}+{}",
                entry.frontend_id,
                entry.service_id,
                dump::frontend_flags(entry.flags),
                entry.internal.base,
                entry.internal.count,
                entry.external.base,
                entry.external.count
            ),
            Self::Slots(base, slots) if slots.len() <= 16 => write!(f, "{base}: {slots:?}"),
            Self::Slots(base, slots) => write!(f, "{base}: {} slots", slots.len()),
            Self::Backend(id, entry) => write!(
                f,
                "#{id}: {} service #{} {} generation {}",
                dump::backend_addr(entry),
                entry.service_id,
                dump::backend_flags(entry.flags),
                entry.generation
            ),
            Self::Name(id, None) => write!(f, "#{id}"),
            Self::Name(id, Some(name)) => match super::layout::port_name(name) {
                Some(name) => write!(f, "#{id}: {name}"),
                None => write!(f, "#{id}: unreadable"),
            },
            Self::Class(key, class) => {
                match prefix(key.addr, key.prefix_len) {
                    Some(net) => write!(f, "{net}")?,
                    None => write!(f, "unreadable")?,
                }
                class.map_or(Ok(()), |class| write!(f, ": {}", dump::class_bits(class)))
            }
            Self::Filter(word, value) => write!(f, "word {word}: {value:016x}"),
            Self::SourceRange(key, _) => {
                write!(f, "service #{} ", u32::from_be(key.service_id_be))?;
                match prefix(key.addr, key.prefix_len.saturating_sub(32)) {
                    Some(net) => write!(f, "{net}"),
                    None => write!(f, "unreadable"),
                }
            }
            Self::Settings(settings) => write!(f, "{}", dump::settings(settings)),
            Self::ResetStats(id) | Self::ResetOpenFlows(id) => write!(f, "#{id}: zero"),
            Self::ResetTurns(id) => write!(f, "frontend #{id}: zero"),
        }
    }
}

/// What to do to the maps, in this order, and what is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations: make, then flip, then unmake (see the module).
    pub ops: Vec<Op>,
    /// Everything wanted that does not go, whether it is new or not.
    pub problems: Vec<Problem>,
    /// Plan again after this time: something did not fit, and numbers are about to become free.
    pub retry_after: Option<Duration>,
}

impl Plan {
    /// Whether nothing needs to change.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Map entries written or removed.
    pub fn entries(&self) -> usize {
        self.ops.iter().map(Op::entries).sum()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for op in &self.ops {
            writeln!(f, "{op}")?;
        }
        for problem in &self.problems {
            writeln!(f, "left out: {problem}")?;
        }
        Ok(())
    }
}
