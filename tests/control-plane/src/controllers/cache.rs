//! The objects of one resource type in memory, ordered by namespace and name.

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::object::{name_of, namespace_of};

/// Objects of type `K` by (namespace, name).
#[derive(Debug)]
pub(crate) struct Cache<K> {
    objects: BTreeMap<(String, String), Arc<K>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
        }
    }
}

impl<K> Cache<K> {
    /// The object `namespace/name`; pass an empty namespace when cluster-scoped.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Every object, by namespace and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// The objects of one namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        let namespace = namespace.to_owned();
        self.objects
            .range((namespace.clone(), String::new())..)
            .take_while(move |((found, _), _)| *found == namespace)
            .map(|(_, object)| object)
    }

    /// Removes `namespace/name` and returns what was there.
    pub(crate) fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.objects
            .remove(&(namespace.to_owned(), name.to_owned()))
    }
}

impl<K: Metadata<Ty = ObjectMeta>> Cache<K> {
    /// Stores the object under its own name and returns what was there before.
    pub(crate) fn put(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let metadata = object.metadata();
        let key = (
            namespace_of(metadata).to_owned(),
            name_of(metadata).to_owned(),
        );
        self.objects.insert(key, object)
    }
}
