//! A Node in rows about health.

use lb_userspace::model::healthz::TO_BE_DELETED;
use lb_userspace::source::kube::{Node, Object, Taint};
use serde_json::Value;

use super::moments::one_of;
use crate::cases::fields::{Fields, Wrong};
use crate::cases::objects;

/// A Node as an object, as what matters of it, or in a word; null when there is none.
pub(super) fn node(value: Value) -> Result<Option<Node>, Wrong> {
    let mut known = Node::default();
    let taint = |key: &str| Taint { key: key.to_owned() };
    match value {
        Value::Null => return Ok(None),
        Value::Object(map) if map.contains_key("kind") => {
            return match objects::object(Value::Object(map))? {
                Object::Node(node) => Ok(Some(node)),
                other => Err(format!("a Node is wanted, not {}", other.key())),
            };
        }
        Value::Array(items) => known.spec.taints = taints(items)?,
        Value::String(text) => match text.to_lowercase().replace(['-', '_'], " ").as_str() {
            "none" | "absent" | "missing" | "unknown" | "gone" => return Ok(None),
            "deleted" | "deleting" | "being deleted" | "deletion" => {
                known.metadata.deletion_timestamp = Some(String::new());
            }
            "ok" | "plain" | "normal" | "untainted" | "healthy" | "present" | "ready" => {}
            "to be deleted" | "tainted to be deleted" | "to be deleted taint" => {
                known.spec.taints.push(taint(TO_BE_DELETED));
            }
            _ => {
                let key = text.strip_prefix("tainted").unwrap_or(&text);
                known.spec.taints.push(taint(key.trim_start_matches([' ', ':', '-', '_'])));
            }
        },
        value => {
            let mut fields = Fields::of(value)?;
            for part in ["metadata", "spec"] {
                let Value::Object(inner) = fields.take(part) else { continue };
                fields.extend(inner);
            }
            if fields.has("taints") {
                known.spec.taints = taints(fields.list("taints")?)?;
            }
            if let Some(key) = fields.text("taint")? {
                known.spec.taints.push(taint(&key));
            }
            let leaves = ["deleted", "deleting", "being_deleted", "deletion_timestamp", "deletionTimestamp"];
            match one_of(&mut fields, &leaves)? {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(Value::Bool(true) | Value::String(_) | Value::Number(_)) => {
                    known.metadata.deletion_timestamp = Some(String::new());
                }
                Some(other) => return Err(format!("deleted: true or false is wanted, not {other}")),
            }
            let exists = fields.boolean("exists")?.unwrap_or(true);
            fields.finish()?;
            return Ok(exists.then_some(known));
        }
    }
    Ok(Some(known))
}

fn taints(items: Vec<Value>) -> Result<Vec<Taint>, Wrong> {
    items
        .into_iter()
        .map(|item| {
            let key = item.as_str().or_else(|| item.get("key").and_then(Value::as_str));
            key.map(|key| Taint { key: key.to_owned() }).ok_or_else(|| format!("{item} is no taint"))
        })
        .collect()
}
