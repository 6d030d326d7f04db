//! Times and kinds of events in rows, in the spellings that rows may have.

use std::time::Duration;

use lb_userspace::model::timestamp::Timestamp;
use serde_json::Value;

use crate::cases::fields::{Fields, Wrong};

/// A time as a number of seconds, `t3`, or RFC 3339. Both kinds do not mix in a row.
pub(super) fn moment(key: &str, value: &Value) -> Result<Timestamp, Wrong> {
    let wrong = || format!("{key}: seconds or a time (RFC 3339) are wanted, not {value}");
    match value {
        Value::Number(number) => seconds(number.as_f64().ok_or_else(wrong)?),
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => seconds(number),
            Err(_) => Timestamp::parse(text).or_else(|| parse_label(text)).ok_or_else(wrong),
        },
        _ => Err(wrong()),
    }
}

/// `t3`, `t_1`, `t-1` or `25s`.
fn parse_label(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(number) = text.strip_prefix('t') {
        return number.replace('_', "-").parse().ok().map(Timestamp::from_seconds);
    }
    let number: f64 = text.strip_suffix('s')?.trim().parse().ok()?;
    seconds(number).ok()
}

fn seconds(number: f64) -> Result<Timestamp, Wrong> {
    #[expect(clippy::cast_possible_truncation, reason = "times in rows are far from the limits")]
    let nanoseconds = (number * 1e9).round() as i128;
    Ok(Timestamp(nanoseconds))
}

/// A time as the clocks of the agent see it.
pub(super) fn duration(time: Timestamp) -> Result<Duration, Wrong> {
    u64::try_from(time.0).map(Duration::from_nanos).map_err(|_| format!("{} ns is no time to be at", time.0))
}

/// The value of the one key of these that is there.
pub(super) fn one_of(fields: &mut Fields, keys: &[&str]) -> Result<Option<Value>, Wrong> {
    let mut found = keys.iter().filter(|key| fields.has(key));
    let Some(key) = found.next() else { return Ok(None) };
    if let Some(other) = found.next() {
        return Err(format!("keys {key} and {other} say the same"));
    }
    Ok(Some(fields.take(key)))
}

/// The time under one of these keys.
pub(super) fn moment_of(fields: &mut Fields, keys: &[&str]) -> Result<Option<Timestamp>, Wrong> {
    let value = one_of(fields, keys)?.filter(|value| !value.is_null());
    value.map(|value| moment(keys[0], &value)).transpose()
}

/// True when an event takes away, false when it brings or changes something.
pub(super) fn removes(event: &str) -> Result<bool, Wrong> {
    let word: String = event.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_lowercase();
    match word.as_str() {
        "remove" | "removed" | "delete" | "deleted" | "removeslice" | "deleteslice" | "deleteendpoints" => {
            Ok(true)
        }
        "" | "add" | "added" | "create" | "created" | "update" | "updated" | "modify" | "modified"
        | "apply" | "upsert" | "set" | "change" | "changed" | "replace" | "resend" | "addorupdate"
        | "addupdate" | "updateslice" | "addslice" | "addendpoints" | "updateendpoints" => Ok(false),
        _ => Err(format!("event {event} is not known")),
    }
}
