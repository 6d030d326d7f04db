//! Fields of a row, each to be asked for: what nobody asks for is not known, and fails the row.

use serde_json::{Map, Value};

/// What is wrong with a row.
pub(super) type Wrong = String;

/// The fields of a mapping that have not been asked for yet.
#[derive(Clone, Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn of(value: Value) -> Result<Self, Wrong> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(format!("a mapping is wanted, not {other}")),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The value, left where it is.
    pub(super) fn peek(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The value; an absent one is null.
    pub(super) fn take(&mut self, key: &str) -> Value {
        self.0.remove(key).unwrap_or(Value::Null)
    }

    pub(super) fn required(&mut self, key: &str) -> Result<Value, Wrong> {
        self.0.remove(key).ok_or_else(|| format!("key {key} is missing"))
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Wrong> {
        match self.take(key) {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            other => Err(format!("{key}: a text is wanted, not {other}")),
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, Wrong> {
        match self.take(key) {
            Value::Null => Ok(None),
            Value::Bool(value) => Ok(Some(value)),
            other => Err(format!("{key}: true or false is wanted, not {other}")),
        }
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<u64>, Wrong> {
        match self.take(key) {
            Value::Null => Ok(None),
            value => {
                value.as_u64().map(Some).ok_or_else(|| format!("{key}: a number is wanted, not {value}"))
            }
        }
    }

    /// An absent list is empty.
    pub(super) fn list(&mut self, key: &str) -> Result<Vec<Value>, Wrong> {
        list(key, self.take(key))
    }

    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, Wrong> {
        self.list(key)?
            .into_iter()
            .map(|item| {
                item.as_str().map(str::to_owned).ok_or_else(|| format!("{key}: a text is wanted, not {item}"))
            })
            .collect()
    }

    /// Entries of a mapping; an absent one is empty.
    pub(super) fn entries(&mut self, key: &str) -> Result<Vec<(String, Value)>, Wrong> {
        match self.take(key) {
            Value::Null => Ok(Vec::new()),
            value => Ok(Self::of(value).map_err(|wrong| format!("{key}: {wrong}"))?.0.into_iter().collect()),
        }
    }

    /// Takes over these as well.
    pub(super) fn extend(&mut self, entries: Map<String, Value>) {
        self.0.extend(entries);
    }

    /// All entries left.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (String, Value)> {
        self.0.into_iter()
    }

    /// Keys left.
    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Refuses what nobody has asked for.
    pub(super) fn finish(mut self) -> Result<(), Wrong> {
        for remark in ["name", "note", "notes", "inferred", "source"] {
            self.0.remove(remark);
        }
        if self.0.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = self.0.keys().map(String::as_str).collect();
        Err(format!("unknown key {}", keys.join(", ")))
    }
}

pub(super) fn list(key: &str, value: Value) -> Result<Vec<Value>, Wrong> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items),
        other => Err(format!("{key}: a list is wanted, not {other}")),
    }
}

/// Passes when both are equal.
pub(super) fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    actual: &T,
) -> Result<(), Wrong> {
    if expected == actual { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {actual:?}")) }
}
