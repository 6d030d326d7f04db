//! Keys for people.

use bytemuck::Pod;
use lb_common::abi::{ClassKey, FrontendKey, SourceRangeKey};
use lb_common::family::{V4Addr, V6Addr};
use lb_common::tables::{Kind, Table};

use crate::plan::words::{frontend_name, narrow, prefix};

fn read<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytemuck::try_pod_read_unaligned(bytes).ok()
}

/// A key as people write it: an index, an address and port, a range; bytes in hexadecimal where it does not parse.
pub fn render_key(table: Table, key: &[u8]) -> String {
    decode(table, key).unwrap_or_else(|| {
        let mut text = String::from("0x");
        for byte in key {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    })
}

fn decode(table: Table, key: &[u8]) -> Option<String> {
    Some(match table {
        Table::FrontendsV4 => frontend_name(&read::<FrontendKey<V4Addr>>(key)?).to_string(),
        Table::FrontendsV6 => frontend_name(&read::<FrontendKey<V6Addr>>(key)?).to_string(),
        Table::FlowsV4 | Table::FlowsV6 => format!("set {}", read::<u32>(key)?),
        Table::Classes => {
            let key: ClassKey = read(key)?;
            prefix(key.addr, key.prefix_len)?.to_string()
        }
        Table::SourceRanges => {
            let key: SourceRangeKey = read(key)?;
            let range = prefix(key.addr, key.prefix_len.checked_sub(32)?)?;
            format!("{range} of service {}", u32::from_be(key.service_id_be))
        }
        Table::Affinity => {
            let key: lb_common::abi::AffinityKey = read(key)?;
            format!("{} of service {}", narrow(key.client), key.service_id)
        }
        Table::Netns => format!("cookie {}", read::<u64>(key)?),
        Table::Fragments | Table::Sockets => return None,
        _ if table.spec().kind.is_array() || table.spec().kind == Kind::Hash => {
            format!("entry {}", read::<u32>(key)?)
        }
        _ => return None,
    })
}
