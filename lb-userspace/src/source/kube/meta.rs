//! What all objects have in common.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Namespace and name. Prints as `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Name {
    /// From its parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name; required.
    pub name: String,
    /// Namespace, `default` when left out.
    pub namespace: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Identity that the API server gave it; absent from what people write.
    pub uid: Option<String>,
    /// What it belongs to.
    pub owner_references: Vec<OwnerReference>,
    /// Set while the object is being deleted.
    pub deletion_timestamp: Option<String>,
}

/// One of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Kind of the owner.
    pub kind: String,
    /// Its name, in the same namespace.
    pub name: String,
    /// Whether it is the one that makes and replaces the object.
    pub controller: bool,
}

impl Metadata {
    /// The namespace, `default` when left out.
    pub fn namespace(&self) -> &str {
        match self.namespace.as_deref() {
            None | Some("") => "default",
            Some(namespace) => namespace,
        }
    }

    /// Namespace and name.
    pub fn full_name(&self) -> Name {
        Name::new(self.namespace(), &self.name)
    }
}
