//! Rows about slices that come one by one: `slices-tracker`, `slices-checkout`, `endpoints-triggertimes`.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_userspace::model::changes::{Change, SliceChanges};
use lb_userspace::model::labels;
use lb_userspace::model::timestamp::Timestamp;
use lb_userspace::source::kube::{Endpoint, EndpointPort, EndpointSlice, Name};
use serde_json::Value;

use super::moments::{moment, moment_of, one_of, removes};
use super::slices::{Flat, View, expected, flat};
use crate::cases::fields::{Fields, Wrong, equal, list};
use crate::cases::file::State;
use crate::cases::objects;

/// What happens to a slice.
struct Event {
    slice: Arc<EndpointSlice>,
    removed: bool,
}

/// Keys that say what happens.
const KINDS: [&str; 5] = ["event", "op", "action", "do", "type"];

/// A slice that comes, or a mapping that says what happens to it.
fn event(value: Value) -> Result<Event, Wrong> {
    if value.get("kind").is_some() {
        return Ok(Event { slice: Arc::new(objects::slice(value)?), removed: false });
    }
    let mut fields = Fields::of(value)?;
    let event = event_of(&mut fields, None)?;
    fields.finish()?;
    Ok(event)
}

/// `{op: add, slice: …}`, `{slice: …, remove: true}` or `{add: …}`; in place of a slice, a Service and a time will do.
fn event_of(fields: &mut Fields, made_up: Option<usize>) -> Result<Event, Wrong> {
    let kind = one_of(fields, &KINDS)?;
    let mut removed = match &kind {
        None | Some(Value::Null) => false,
        Some(Value::String(kind)) => removes(kind)?,
        Some(other) => return Err(format!("event {other} is not known")),
    };
    removed |= fields.boolean("remove")?.unwrap_or(false) || fields.boolean("removed")?.unwrap_or(false);
    let mut subject = one_of(fields, &["slice", "object", "endpoint_slice", "endpointslice"])?;
    if subject.is_none() && kind.is_none() {
        let verb = fields.keys().find(|key| removes(key).is_ok()).cloned();
        if let Some(verb) = verb {
            removed = removes(&verb)?;
            subject = Some(fields.take(&verb));
        }
    }
    let time =
        one_of(fields, &["trigger_time", "trigger", "time", "at", "t", "trigger_time_s", "at_s", "time_s"])?;
    let mut service = one_of(fields, &["service", "endpoints"])?;
    if service.is_none() && subject.is_none() && made_up.is_some() {
        service = one_of(fields, &["name"])?;
    }
    let mut slice = match (subject, service, made_up) {
        (Some(Value::String(service)), None, Some(index))
        | (None, Some(Value::String(service)), Some(index)) => {
            made_up_slice(&objects::name(&service)?, index)
        }
        (Some(slice), None, _) => objects::slice(slice)?,
        _ => return Err("key slice is missing".to_owned()),
    };
    if let Some(time) = time.filter(|time| !time.is_null()) {
        let text = match &time {
            Value::String(text) if Timestamp::parse(text).is_some() => text.clone(),
            _ => rfc3339(moment("trigger_time", &time)?)?,
        };
        slice.metadata.annotations.insert(labels::LAST_CHANGE_TRIGGER_TIME.to_owned(), text);
    }
    Ok(Event { slice: Arc::new(slice), removed })
}

/// Rows may count seconds: the annotation cannot. Small numbers only, which fit in the first day.
fn rfc3339(time: Timestamp) -> Result<String, Wrong> {
    let second = 1_000_000_000;
    let (seconds, nanoseconds) = (time.0.div_euclid(second), time.0.rem_euclid(second));
    let (day, seconds) = match seconds {
        0..86_400 => ("1970-01-01", seconds),
        -86_400..0 => ("1969-12-31", seconds + 86_400),
        _ => return Err(format!("{seconds} s is too far for a time in seconds: RFC 3339 is wanted")),
    };
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    Ok(format!("{day}T{hours:02}:{minutes:02}:{:02}.{nanoseconds:09}Z", seconds % 60))
}

/// A slice of this Service that differs from those of other events.
fn made_up_slice(service: &Name, index: usize) -> EndpointSlice {
    let mut slice = EndpointSlice { address_type: Some("IPv4".to_owned()), ..EndpointSlice::default() };
    slice.metadata.name.clone_from(&service.name);
    slice.metadata.namespace = Some(service.namespace.clone());
    slice.metadata.labels.insert(labels::SERVICE_NAME.to_owned(), service.name.clone());
    slice.ports.push(EndpointPort { port: Some(index as i64 + 1), ..EndpointPort::default() });
    slice.endpoints.push(Endpoint { addresses: vec!["10.0.0.1".to_owned()], ..Endpoint::default() });
    slice
}

/// A tracker that has taken these slices already.
fn applied(view: &View, fields: &mut Fields) -> Result<SliceChanges, Wrong> {
    let mut changes = SliceChanges::new(&view.families, Timestamp::default());
    let slices = one_of(fields, &["already_applied", "applied", "slices"])?.unwrap_or_default();
    for slice in list("already_applied", slices)? {
        changes.update(&Arc::new(objects::slice(slice)?), false);
    }
    changes.take();
    Ok(changes)
}

/// Endpoints before and after, of the Services that changed.
fn endpoints(view: &View, changes: &[Change], service: Option<&Name>) -> (Flat, Flat) {
    let (mut previous, mut current) = (Flat::new(), Flat::new());
    for change in changes.iter().filter(|change| service.is_none_or(|service| *service == change.service)) {
        previous.extend(flat(&view.endpoints_of(change.previous.iter()), |_| true));
        current.extend(flat(&view.endpoints_of(change.current.iter()), |_| true));
    }
    (previous, current)
}

fn asked_for(fields: &mut Fields) -> Result<Option<Name>, Wrong> {
    match one_of(fields, &["ask_for", "service"])? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => objects::name(&text).map(Some),
        Some(other) => Err(format!("ask_for: a text is wanted, not {other}")),
    }
}

/// One event after others: whether it changes anything, and the endpoints that its Service has then.
pub(super) fn tracker(view: &View, mut fields: Fields) -> Result<(), Wrong> {
    let mut changes = applied(view, &mut fields)?;
    let service = asked_for(&mut fields)?;
    let event = event_of(&mut fields, None)?;
    let expect_changed = one_of(&mut fields, &["expect_changed", "expect_change"])?;
    let expect_after = fields.take("expect_after");
    fields.finish()?;
    if expect_changed.is_none() && expect_after.is_null() {
        return Err("nothing is expected".to_owned());
    }
    let changed = changes.update(&event.slice, event.removed);
    if let Some(expect) = expect_changed {
        equal("changed", &expect, &Value::Bool(changed))?;
    }
    // Null says that nothing waits to be taken, which is the same as no change.
    if expect_after.is_null() {
        return Ok(());
    }
    let (_, after) = endpoints(view, &changes.take(), service.as_ref());
    let expect = expected(expect_after)?;
    if changed || expect.is_empty() {
        return equal("endpoints after", &expect, &after);
    }
    // Without a change, the endpoints stay as they are.
    let mut touch = EndpointSlice::clone(&event.slice);
    touch.metadata.name.push_str("-none");
    touch.address_type = Some(view.address_type().to_owned());
    touch.endpoints.clear();
    changes.update(&Arc::new(touch), false);
    let (_, after) = endpoints(view, &changes.take(), service.as_ref());
    equal("endpoints after", &expect, &after)
}

/// Several events taken together.
pub(super) fn checkout(view: &View, mut fields: Fields) -> Result<(), Wrong> {
    let mut changes = applied(view, &mut fields)?;
    for value in fields.list("pending")? {
        let event = event(value)?;
        changes.update(&event.slice, event.removed);
    }
    let service = asked_for(&mut fields)?;
    let expect = fields.required("expect")?;
    fields.finish()?;
    let changes = changes.take();
    let (previous, current) = endpoints(view, &changes, service.as_ref());
    let is_nothing = match &expect {
        Value::Array(items) => items.is_empty(),
        Value::Object(sides) => sides.is_empty(),
        expect => expect.is_null(),
    };
    if is_nothing {
        let services: Vec<_> = changes.iter().map(|change| change.service.to_string()).collect();
        return equal("services with changes", &Vec::new(), &services);
    }
    let expect = match expect {
        Value::Array(mut items) if items.len() == 1 => items.remove(0),
        expect => expect,
    };
    let mut expect = Fields::of(expect)?;
    equal("previous", &expected(expect.take("previous"))?, &previous)?;
    equal("current", &expected(expect.take("current"))?, &current)?;
    if let Some(number) = expect.number("changes")? {
        equal("changes", &number, &(changes.len() as u64))?;
    }
    expect.finish()
}

/// Events, and the trigger times that are known of each Service then.
pub(super) fn trigger_times(state: &State<'_>, view: &View, mut fields: Fields) -> Result<(), Wrong> {
    let started =
        state.config.tracker_started.as_ref().map(|time| moment("tracker_started", time)).transpose()?;
    let own = moment_of(
        &mut fields,
        &[
            "tracker_started",
            "tracker_start",
            "tracker_start_time",
            "start_time",
            "started_at",
            "started",
            "start",
        ],
    )?;
    let started = own.or(started);
    let mut changes = SliceChanges::new(&view.families, started.unwrap_or(Timestamp(0)));
    let ops = fields.list("ops")?;
    for (index, op) in ops.into_iter().enumerate() {
        let mut op = Fields::of(op)?;
        let event = event_of(&mut op, Some(index))?;
        op.finish()?;
        changes.update(&event.slice, event.removed);
    }
    let mut expect = BTreeMap::new();
    let wanted = one_of(&mut fields, &["expect", "expect_times", "expect_trigger_times"])?;
    for (service, times) in Fields::of(wanted.ok_or("key expect is missing")?)?.into_entries() {
        let times = list(&service, times)?;
        let times: Vec<_> = times.iter().map(|time| moment(&service, time)).collect::<Result<_, _>>()?;
        expect.insert(objects::name(&service)?, times);
    }
    fields.finish()?;
    expect.retain(|_, times| !times.is_empty());
    let taken = changes.take().into_iter().filter(|change| !change.trigger_times.is_empty());
    let actual: BTreeMap<_, _> = taken.map(|change| (change.service, change.trigger_times)).collect();
    equal("trigger times", &expect, &actual)
}
