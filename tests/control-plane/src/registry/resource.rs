//! One entry of the registry.

use std::sync::Arc;

use serde_json::Value;

use crate::status::Cause;
use crate::store::Index;
use crate::table::Columns;

/// Which requests a resource answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbs {
    /// All of create, delete, deletecollection, get, list, patch, update, watch.
    All,
    /// Create only: reviews, which are answered and not kept.
    Create,
}

/// Which names an object may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// RFC 1123 label that begins with a letter (RFC 1035).
    Label1035,
    /// One path segment (RBAC).
    Segment,
}

/// A subresource, e.g. `status`.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    /// Name in the URL.
    pub name: &'static str,
    /// Group of its kind; for discovery.
    pub group: &'static str,
    /// Version of its kind.
    pub version: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Verbs, sorted.
    pub verbs: &'static [&'static str],
}

/// What is done with an object of a kind on its way in. All are pure.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Names.
    pub name: NameRule,
    /// Sets on a new object what only the server decides (status, for most).
    pub create: fn(&mut Value),
    /// Sets on an update what only the server decides: (old, new).
    pub update: fn(&Value, &mut Value),
    /// Fills in defaults.
    pub default: fn(&mut Value),
    /// Checks a whole object.
    pub validate: fn(&Value, &mut Vec<Cause>),
    /// Checks a change: (old, new).
    pub validate_update: fn(&Value, &Value, &mut Vec<Cause>),
}

/// One kind of object.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural, as in the URL.
    pub plural: &'static str,
    /// Singular, for command lines.
    pub singular: &'static str,
    /// Abbreviations, for command lines.
    pub short_names: &'static [&'static str],
    /// Categories, e.g. `all`.
    pub categories: &'static [&'static str],
    /// Whether objects are in namespaces.
    pub namespaced: bool,
    /// Requests answered.
    pub verbs: Verbs,
    /// Whether `status` is a subresource, so that the main resource does not change it.
    pub status: bool,
    /// Whether `metadata.generation` counts changes of the specification.
    pub generation: bool,
    /// Whether deletion waits for a grace period (pods).
    pub graceful: bool,
    /// Whether a completed deletion answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    /// Further subresources.
    pub subresources: &'static [Subresource],
    /// Where objects are kept; kinds of several groups may share one.
    pub storage: Arc<str>,
    /// Conversion from and to the stored form, when this is not the stored version.
    pub conversion: Option<Conversion>,
    /// Extracts selectable fields beside `metadata.name` and `metadata.namespace`.
    pub fields: fn(&Value) -> Vec<(&'static str, String)>,
    /// Reads the object as its kind and writes it again, to find wrong types and unknown fields.
    pub decode: fn(Value) -> serde_json::Result<Value>,
    /// On the way in.
    pub rules: Rules,
    /// On the way out as a table.
    pub columns: Columns,
}

/// Conversion between the version served and the version stored.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    /// Served to stored.
    pub store: fn(&mut Value),
    /// Stored to served.
    pub serve: fn(&mut Value),
}

impl Resource {
    /// `plural` or `plural.group`, as in messages.
    pub fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Labels and selectable fields of an object.
    pub fn index(&self, object: &Value) -> Index {
        let labels = object
            .pointer("/metadata/labels")
            .and_then(Value::as_object);
        let labels = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        Index {
            labels,
            fields: (self.fields)(object),
        }
    }

    /// The subresource of a name, `status` included.
    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        if name == "status" && self.status {
            return Some(Subresource {
                name: "status",
                group: self.group,
                version: self.version,
                kind: self.kind,
                verbs: &["get", "patch", "update"],
            });
        }
        self.subresources
            .iter()
            .find(|subresource| subresource.name == name)
            .copied()
    }
}
