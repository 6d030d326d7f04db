//! `objects` and `slices` of cases. Tests build some that the API server would refuse, so they are not validated.

use lb_userspace::source::Objects;
use lb_userspace::source::document;
use lb_userspace::source::kube::{EndpointSlice, Name, Object, Service};
use serde_json::Value;

use super::fields::{Fields, Wrong};

pub(super) fn object(value: Value) -> Result<Object, Wrong> {
    let kind = value.get("kind").cloned().unwrap_or_default();
    match document::decode(value) {
        Ok(Some(object)) => Ok(object),
        Ok(None) => Err(format!("object of unknown kind {kind}")),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn objects(values: Vec<Value>) -> Result<Objects, Wrong> {
    values.into_iter().map(object).collect()
}

/// Slices in order of arrival: one of the same name replaces an earlier one, null holds a place.
pub(super) fn slices(values: Vec<Value>) -> Result<Objects, Wrong> {
    let found = objects(values.into_iter().filter(|value| !value.is_null()).collect())?;
    if found.len() != found.slices.len() {
        return Err("not only slices".to_owned());
    }
    Ok(found)
}

pub(super) fn slice(value: Value) -> Result<EndpointSlice, Wrong> {
    match object(value)? {
        Object::EndpointSlice(slice) => Ok(slice),
        other => Err(format!("a slice is wanted, not {}", other.key())),
    }
}

pub(super) fn service(value: Value) -> Result<Service, Wrong> {
    match object(value)? {
        Object::Service(service) => Ok(service),
        other => Err(format!("a Service is wanted, not {}", other.key())),
    }
}

pub(super) fn name(text: &str) -> Result<Name, Wrong> {
    let (namespace, name) = text.split_once('/').ok_or_else(|| format!("{text} is no namespace/name"))?;
    Ok(Name::new(namespace, name))
}

/// A mapping from Services to numbers.
pub(super) fn numbers(fields: &mut Fields, key: &str) -> Result<Vec<(Name, u64)>, Wrong> {
    fields
        .entries(key)?
        .into_iter()
        .map(|(service, value)| {
            let number = value.as_u64().ok_or_else(|| format!("{key}: a number is wanted, not {value}"))?;
            Ok((name(&service)?, number))
        })
        .collect()
}
