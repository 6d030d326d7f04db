//! Rows of area `conntrack`.

use lb_userspace::model::stale::{KnownFlow, is_stale};
use lb_userspace::source::validate::parse_protocol;

use crate::cases::config::address;
use crate::cases::fields::{Fields, Wrong, equal};
use crate::cases::file::State;

pub(super) fn check(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let port = fields.number("orig_dport")?.ok_or("key orig_dport is missing")?;
    let flow = KnownFlow {
        protocol: parse_protocol(fields.text("protocol")?.as_deref())?,
        frontend: fields.text("orig_dst")?.map(|text| address(&text)).transpose()?,
        port: u16::try_from(port).map_err(|_| format!("port {port} is out of range"))?,
        backend: address(&fields.text("reply_src")?.ok_or("key reply_src is missing")?)?,
    };
    let expect = fields.boolean("expect_removed")?.ok_or("key expect_removed is missing")?;
    fields.finish()?;
    equal("removed", &expect, &is_stale(&state.built.services, &state.built.endpoints, flow))
}
