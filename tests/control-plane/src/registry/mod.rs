//! The registry: everything that distinguishes one kind from another, one table entry per kind.
//!
//! The REST implementation is the same for all kinds and asks the entry. To add a kind is to add an
//! entry in `kinds`.

mod fields;
mod kinds;
mod resource;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

pub use resource::{Conversion, NameRule, Resource, Rules, Subresource, Verbs};

use crate::store::Index;

/// All kinds served.
#[derive(Debug)]
pub struct Registry {
    resources: Vec<Arc<Resource>>,
    by_storage: HashMap<Arc<str>, Arc<Resource>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// All kinds.
    pub fn new() -> Self {
        let resources: Vec<_> = kinds::table().into_iter().map(Arc::new).collect();
        let by_storage = resources
            .iter()
            .rev()
            .map(|resource| (resource.storage.clone(), resource.clone()))
            .collect();
        Self {
            resources,
            by_storage,
        }
    }

    /// All entries, in the order of discovery.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The entry of a URL's group, version and plural.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| {
            resource.plural == plural && resource.group == group && resource.version == version
        })
    }

    /// The entry of the preferred version of a group's plural.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources
            .iter()
            .find(|resource| resource.group == group && resource.plural == plural)
    }

    /// Versions by group in order of preference; the core group has the empty name.
    pub fn groups(&self) -> BTreeMap<&'static str, Vec<&'static str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for resource in &self.resources {
            let versions = groups.entry(resource.group).or_default();
            if !versions.contains(&resource.version) {
                versions.push(resource.version);
            }
        }
        groups
    }

    /// Labels and selectable fields of an object kept under `storage`.
    pub fn index(&self, storage: &str, object: &Value) -> Index {
        self.by_storage
            .get(storage)
            .map_or_else(Index::default, |resource| resource.index(object))
    }
}
