//! Identity and references of every object of every type: who owns whom, and what a namespace holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::object::{Identity, Key, ResourceType};

/// All identities, indexed by key, by uid, by owner and by namespace.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    by_key: BTreeMap<Key, Arc<Identity>>,
    by_uid: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
    by_namespace: BTreeMap<String, BTreeSet<Key>>,
}

impl Identities {
    /// The identity of one object.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Identity>> {
        self.by_key.get(key)
    }

    /// The object that has this uid.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<(&Key, &Arc<Identity>)> {
        let key = self.by_uid.get(uid)?;
        Some((key, self.by_key.get(key)?))
    }

    /// The objects that name `owner_uid` as an owner.
    pub(crate) fn dependents(
        &self,
        owner_uid: &str,
    ) -> impl Iterator<Item = (&Key, &Arc<Identity>)> {
        self.dependents
            .get(owner_uid)
            .into_iter()
            .flatten()
            .filter_map(|key| Some((key, self.by_key.get(key)?)))
    }

    /// Everything inside a namespace.
    pub(crate) fn in_namespace(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = (&Key, &Arc<Identity>)> {
        self.by_namespace
            .get(namespace)
            .into_iter()
            .flatten()
            .filter_map(|key| Some((key, self.by_key.get(key)?)))
    }

    /// The keys of one resource type.
    pub(crate) fn of_type(&self, resource: ResourceType) -> Vec<Key> {
        let first = Key {
            resource,
            namespace: String::new(),
            name: String::new(),
        };
        self.by_key
            .range(first..)
            .take_while(|(key, _)| key.resource == resource)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Stores an identity and returns the one it replaces.
    pub(crate) fn put(&mut self, key: &Key, identity: Arc<Identity>) -> Option<Arc<Identity>> {
        let old = self.remove(key);
        self.by_uid.insert(identity.uid.clone(), key.clone());
        for owner in &identity.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(key.clone());
        }
        if !key.namespace.is_empty() {
            self.by_namespace
                .entry(key.namespace.clone())
                .or_default()
                .insert(key.clone());
        }
        self.by_key.insert(key.clone(), identity);
        old
    }

    /// Removes an object from every index and returns its identity.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Identity>> {
        let old = self.by_key.remove(key)?;
        self.by_uid.remove(&old.uid);
        for owner in &old.owners {
            remove_from(&mut self.dependents, &owner.uid, key);
        }
        if let Some(keys) = self.by_namespace.get_mut(&key.namespace) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_namespace.remove(&key.namespace);
            }
        }
        Some(old)
    }
}

fn remove_from(index: &mut HashMap<String, BTreeSet<Key>>, uid: &str, key: &Key) {
    if let Some(keys) = index.get_mut(uid) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(uid);
        }
    }
}
