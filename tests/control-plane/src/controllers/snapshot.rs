//! Everything the controllers know of the cluster, kept current by the informers and by the
//! controllers' own writes.
//!
//! A write that a controller made is visible to its next reconcile even before the watch delivers it
//! ([`Snapshot::record_written`]); without that a ReplicaSet would create its pods twice.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::cache::Cache;
use super::identities::Identities;
use super::object::{Change, Identity, Key, Object, ResourceType, name_of, namespace_of};
use super::pod_state;

macro_rules! snapshot {
    ($($field:ident: $kind:ty, $doc:literal;)*) => {
        /// The cluster as last seen.
        pub(crate) struct Snapshot {
            $(#[doc = $doc] pub(crate) $field: Cache<$kind>,)*
            /// Identity of every object of every type, the typed ones above included.
            pub(crate) identities: Identities,
            /// When this process began to observe: no deadline may count time before it.
            pub(crate) observing_since: Timestamp,
            by_node: BTreeMap<String, BTreeSet<(String, String)>>,
            seen: HashMap<ResourceType, u64>,
            gone: HashSet<String>,
        }

        impl Snapshot {
            /// An empty snapshot of a process that began to observe at `observing_since`.
            pub(crate) fn new(observing_since: Timestamp) -> Self {
                Self {
                    $($field: Cache::default(),)*
                    identities: Identities::default(),
                    observing_since,
                    by_node: BTreeMap::new(),
                    seen: HashMap::new(),
                    gone: HashSet::new(),
                }
            }

            fn put_typed(
                &mut self,
                resource: ResourceType,
                object: &Value,
            ) -> Result<(Option<Object>, Option<Object>), serde_json::Error> {
                $(if resource == ResourceType::of::<$kind>() {
                    let new = Arc::new(parse::<$kind>(object)?);
                    let old = self.$field.put(new.clone());
                    return Ok((old.map(|object| object as Object), Some(new as Object)));
                })*
                Ok((None, None))
            }

            fn remove_typed(&mut self, key: &Key) -> Option<Object> {
                $(if key.resource == ResourceType::of::<$kind>() {
                    return self
                        .$field
                        .remove(&key.namespace, &key.name)
                        .map(|object| object as Object);
                })*
                None
            }
        }
    };
}

snapshot! {
    config_maps: ConfigMap, "ConfigMaps.";
    controller_revisions: ControllerRevision, "ControllerRevisions.";
    daemon_sets: DaemonSet, "DaemonSets.";
    deployments: Deployment, "Deployments.";
    endpoint_slices: EndpointSlice, "EndpointSlices.";
    endpoints: Endpoints, "Endpoints (the older form of EndpointSlices).";
    leases: Lease, "Leases.";
    namespaces: Namespace, "Namespaces.";
    nodes: Node, "Nodes.";
    pods: Pod, "Pods.";
    replica_sets: ReplicaSet, "ReplicaSets.";
    service_accounts: ServiceAccount, "ServiceAccounts.";
    services: Service, "Services.";
}

/// One observation of a resource type, in the order of the store's revisions.
#[derive(Clone, Debug)]
pub(crate) enum Observation {
    /// The complete list at a revision: at the start, and again when the watch had expired.
    Listed {
        /// Whole objects.
        objects: Vec<Value>,
        /// The revision of the list.
        revision: u64,
    },
    /// One object was created or changed.
    Changed(Value),
    /// One object is gone; its last state, carrying the revision of the deletion.
    Deleted(Value),
}

#[derive(Deserialize)]
struct MetadataOnly {
    #[serde(default)]
    metadata: ObjectMeta,
}

impl Snapshot {
    /// Takes in what a watch delivered and returns what changed.
    ///
    /// # Errors
    /// When an object does not have the shape of its type; the snapshot keeps its earlier state.
    pub(crate) fn observe(
        &mut self,
        resource: ResourceType,
        observation: &Observation,
    ) -> Result<Vec<Change>, serde_json::Error> {
        match observation {
            Observation::Listed { objects, revision } => self.replace(resource, objects, *revision),
            Observation::Changed(object) => {
                let (key, identity) = identify(resource, object)?;
                self.advance(resource, identity.revision);
                let known = self.identities.get(&key);
                let stale = known.is_some_and(|known| {
                    known.uid == identity.uid && known.revision >= identity.revision
                });
                if stale || self.gone.contains(&identity.uid) {
                    return Ok(Vec::new());
                }
                Ok(vec![self.put(key, identity, object)?])
            }
            Observation::Deleted(object) => {
                let (key, identity) = identify(resource, object)?;
                self.advance(resource, identity.revision);
                self.gone.remove(&identity.uid);
                let same = self
                    .identities
                    .get(&key)
                    .is_some_and(|known| known.uid == identity.uid);
                Ok(if same {
                    vec![self.remove(&key)]
                } else {
                    Vec::new()
                })
            }
        }
    }

    /// Takes in an object that a controller has just written, unless the watch is already past it.
    ///
    /// # Errors
    /// When the object does not have the shape of its type.
    pub(crate) fn record_written(
        &mut self,
        resource: ResourceType,
        object: &Value,
    ) -> Result<Option<Change>, serde_json::Error> {
        let (key, identity) = identify(resource, object)?;
        let seen = self.seen.get(&resource).copied().unwrap_or_default();
        let known = self.identities.get(&key).map_or(0, |known| known.revision);
        if identity.revision <= seen.max(known) || self.gone.contains(&identity.uid) {
            return Ok(None);
        }
        self.put(key, identity, object).map(Some)
    }

    /// Forgets an object that a controller has just removed; later news of this uid is old news.
    pub(crate) fn record_removed(&mut self, key: &Key, uid: &str) -> Option<Change> {
        let same = self
            .identities
            .get(key)
            .is_some_and(|known| known.uid == uid);
        if !same {
            return None;
        }
        self.gone.insert(uid.to_owned());
        Some(self.remove(key))
    }

    /// The pods bound to a node; those bound to none when `node` is empty.
    pub(crate) fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let pods = self.by_node.get(node).into_iter().flatten();
        pods.filter_map(|(namespace, name)| self.pods.get(namespace, name))
    }

    fn index_pod(&mut self, old: Option<&Object>, new: Option<&Object>) {
        let place = |object: &Object| {
            let pod = object.downcast_ref::<Pod>()?;
            let node = pod_state::node_name(pod).unwrap_or_default().to_owned();
            let metadata = &pod.metadata;
            let name = (
                namespace_of(metadata).to_owned(),
                name_of(metadata).to_owned(),
            );
            Some((node, name))
        };
        if let Some((node, name)) = old.and_then(place) {
            let left = self.by_node.get_mut(&node).map(|pods| {
                pods.remove(&name);
                pods.len()
            });
            if left == Some(0) {
                self.by_node.remove(&node);
            }
        }
        if let Some((node, name)) = new.and_then(place) {
            self.by_node.entry(node).or_default().insert(name);
        }
    }

    fn replace(
        &mut self,
        resource: ResourceType,
        objects: &[Value],
        revision: u64,
    ) -> Result<Vec<Change>, serde_json::Error> {
        self.advance(resource, revision);
        let mut absent: HashSet<Key> = self.identities.of_type(resource).into_iter().collect();
        let mut changes = Vec::new();
        for object in objects {
            let (key, identity) = identify(resource, object)?;
            absent.remove(&key);
            let unchanged = self.identities.get(&key).is_some_and(|known| {
                known.uid == identity.uid && known.revision >= identity.revision
            });
            if !unchanged {
                changes.push(self.put(key, identity, object)?);
            }
        }
        // A write newer than the list is not contradicted by its absence from the list.
        absent.retain(|key| {
            self.identities
                .get(key)
                .is_some_and(|known| known.revision <= revision)
        });
        changes.extend(absent.iter().map(|key| self.remove(key)));
        Ok(changes)
    }

    fn put(
        &mut self,
        key: Key,
        identity: Identity,
        object: &Value,
    ) -> Result<Change, serde_json::Error> {
        let (old, new) = self.put_typed(key.resource, object)?;
        self.index_pod(old.as_ref(), new.as_ref());
        let identity = Arc::new(identity);
        let old_identity = self.identities.put(&key, identity.clone());
        Ok(Change {
            key,
            old,
            new,
            old_identity,
            new_identity: Some(identity),
        })
    }

    fn remove(&mut self, key: &Key) -> Change {
        let old = self.remove_typed(key);
        self.index_pod(old.as_ref(), None);
        Change {
            old,
            new: None,
            old_identity: self.identities.remove(key),
            new_identity: None,
            key: key.clone(),
        }
    }

    fn advance(&mut self, resource: ResourceType, revision: u64) {
        let seen = self.seen.entry(resource).or_default();
        *seen = revision.max(*seen);
    }
}

fn identify(resource: ResourceType, object: &Value) -> Result<(Key, Identity), serde_json::Error> {
    let MetadataOnly { metadata } = MetadataOnly::deserialize(object)?;
    let key = Key {
        resource,
        namespace: namespace_of(&metadata).to_owned(),
        name: name_of(&metadata).to_owned(),
    };
    Ok((key, Identity::of(&metadata)))
}

fn parse<K>(object: &Value) -> Result<K, serde_json::Error>
where
    K: DeserializeOwned + k8s_openapi::Metadata<Ty = ObjectMeta>,
{
    let mut typed: K = K::deserialize(object)?;
    typed.metadata_mut().managed_fields = None;
    Ok(typed)
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
