//! The snapshot of the cluster, changed synchronously and given out through one watch channel.
//!
//! A change that leaves every value as it was (a node's heartbeat, a pod's status line) wakes
//! nobody. Readers get an `Arc` and see each snapshot whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use desired::cluster::{
    Announced, Cluster, EndpointId, EndpointSlice, Leases, LocalEndpoint, Namespace, NetworkPolicy,
    Node, Pod, Service,
};
use desired::lease::LeaseKey;
use desired::names::{NamespaceName, NodeName, PodName, PolicyName, ServiceName, SliceName};
use tokio::sync::watch;

/// The kinds of objects that a snapshot may have to wait for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Node.
    Node,
    /// Namespace.
    Namespace,
    /// Pod.
    Pod,
    /// Service.
    Service,
    /// EndpointSlice.
    EndpointSlice,
    /// NetworkPolicy.
    NetworkPolicy,
    /// Leases, where they have a store of their own.
    Lease,
}

/// A domain object with its place in the snapshot.
pub trait Stored: Clone + PartialEq + Send + Sync + 'static {
    /// What tells objects of this kind apart.
    type Key: Ord + Clone + fmt::Debug + Send + Sync;
    /// Which of the six lists it belongs to.
    const KIND: Kind;
    /// The object's own key.
    fn key(&self) -> Self::Key;
    /// Where objects of this kind are in `cluster`.
    fn table(cluster: &Cluster) -> &BTreeMap<Self::Key, Arc<Self>>;
    /// Where objects of this kind are in `cluster`, to be changed.
    fn table_mut(cluster: &mut Cluster) -> &mut BTreeMap<Self::Key, Arc<Self>>;
}

/// One change to the objects of one kind.
#[derive(Clone, Debug)]
pub enum Change<T: Stored> {
    /// The object is new or different.
    Apply(T),
    /// The object is gone.
    Delete(T::Key),
    /// These are all objects there are.
    Reset {
        /// Every object that could be understood.
        objects: Vec<T>,
        /// Objects that exist but could not be understood: what is known of them stays.
        keep: BTreeSet<T::Key>,
    },
}

/// The store: written by the watches and the registration API, read by everybody else.
#[derive(Debug)]
pub struct Store {
    snapshot: watch::Sender<Arc<Cluster>>,
    /// The kinds whose first complete lists make a snapshot complete.
    expected: BTreeSet<Kind>,
    listed: Mutex<BTreeSet<Kind>>,
}

macro_rules! stored {
    ($type:ident, $key:ty, $table:ident) => {
        impl Stored for $type {
            type Key = $key;
            const KIND: Kind = Kind::$type;

            fn key(&self) -> Self::Key {
                self.name.clone()
            }

            fn table(cluster: &Cluster) -> &BTreeMap<Self::Key, Arc<Self>> {
                &cluster.$table
            }

            fn table_mut(cluster: &mut Cluster) -> &mut BTreeMap<Self::Key, Arc<Self>> {
                &mut cluster.$table
            }
        }
    };
}

stored!(Node, NodeName, nodes);
stored!(Namespace, NamespaceName, namespaces);
stored!(Pod, PodName, pods);
stored!(Service, ServiceName, services);
stored!(EndpointSlice, SliceName, endpoint_slices);
stored!(NetworkPolicy, PolicyName, network_policies);

// === impl Kind ===

impl Kind {
    /// The six that the API server has.
    pub const OBJECTS: [Self; 6] = [
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// === impl Store ===

impl Store {
    /// A store that begins with `cluster`, which is not complete before all objects are listed.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self::expecting(cluster, Kind::OBJECTS.into())
    }

    /// A store that begins with `cluster`, which is not complete before all of `expected` is listed.
    #[must_use]
    pub fn expecting(cluster: Cluster, expected: BTreeSet<Kind>) -> Self {
        Self {
            snapshot: watch::Sender::new(Arc::new(cluster)),
            expected,
            listed: Mutex::new(BTreeSet::new()),
        }
    }

    /// The snapshots from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Cluster>> {
        self.snapshot.subscribe()
    }

    /// The snapshot of this moment.
    pub fn snapshot(&self) -> Arc<Cluster> {
        self.snapshot.borrow().clone()
    }

    /// The kinds whose first list is still missing.
    pub fn missing(&self) -> Vec<Kind> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        self.expected.difference(&listed).copied().collect()
    }

    /// Makes `changes` in order and wakes readers once, if anything is different afterwards.
    pub fn change<T: Stored>(&self, changes: Vec<Change<T>>) {
        let reset = changes
            .iter()
            .any(|change| matches!(change, Change::Reset { .. }));
        let complete = reset && self.note_list(T::KIND);
        self.snapshot.send_if_modified(|snapshot| {
            let mut modified = false;
            for change in changes {
                modified |= apply(snapshot, change);
            }
            if complete && !snapshot.complete {
                Arc::make_mut(snapshot).complete = true;
                modified = true;
            }
            modified
        });
    }

    /// Registers a pod interface, or replaces what is registered under its id.
    pub fn put_endpoint(&self, endpoint: LocalEndpoint) {
        self.snapshot.send_if_modified(|snapshot| {
            let known = snapshot.local_endpoints.get(&endpoint.id);
            if known.is_some_and(|known| **known == endpoint) {
                return false;
            }
            let endpoints = &mut Arc::make_mut(snapshot).local_endpoints;
            endpoints.insert(endpoint.id.clone(), Arc::new(endpoint));
            true
        });
    }

    /// Forgets a pod interface; whether it was known.
    pub fn delete_endpoint(&self, id: &EndpointId) -> bool {
        self.snapshot.send_if_modified(|snapshot| {
            snapshot.local_endpoints.contains_key(id)
                && Arc::make_mut(snapshot).local_endpoints.remove(id).is_some()
        })
    }

    /// The leases of a store of their own, and which is this node's.
    pub fn set_leases(&self, held: BTreeMap<LeaseKey, Arc<Announced>>, own: Option<LeaseKey>) {
        let leases = Leases::InStore { held, own };
        let complete = self.note_list(Kind::Lease);
        self.snapshot.send_if_modified(|snapshot| {
            let complete = complete && !snapshot.complete;
            if snapshot.leases == leases && !complete {
                return false;
            }
            let snapshot = Arc::make_mut(snapshot);
            snapshot.leases = leases;
            snapshot.complete |= complete;
            true
        });
    }

    /// The node's own addresses, as observed in the kernel.
    pub fn set_addresses(&self, addresses: &BTreeSet<IpAddr>) {
        self.snapshot.send_if_modified(|snapshot| {
            if snapshot.this_node.addresses == *addresses {
                return false;
            }
            Arc::make_mut(snapshot)
                .this_node
                .addresses
                .clone_from(addresses);
            true
        });
    }

    /// Remembers that `kind` was listed; whether all that are expected have been by now.
    fn note_list(&self, kind: Kind) -> bool {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.insert(kind);
        self.expected.is_subset(&listed)
    }
}

fn apply<T: Stored>(snapshot: &mut Arc<Cluster>, change: Change<T>) -> bool {
    match change {
        Change::Apply(object) => {
            let key = object.key();
            if T::table(snapshot)
                .get(&key)
                .is_some_and(|known| **known == object)
            {
                return false;
            }
            T::table_mut(Arc::make_mut(snapshot)).insert(key, Arc::new(object));
            true
        }
        Change::Delete(key) => {
            T::table(snapshot).contains_key(&key)
                && T::table_mut(Arc::make_mut(snapshot)).remove(&key).is_some()
        }
        Change::Reset { objects, keep } => {
            let known = T::table(snapshot);
            let mut table: BTreeMap<T::Key, Arc<T>> = objects
                .into_iter()
                .map(|object| (object.key(), Arc::new(object)))
                .collect();
            for key in keep {
                if let Some(object) = known.get(&key) {
                    table.entry(key).or_insert_with(|| object.clone());
                }
            }
            if *known == table {
                return false;
            }
            *T::table_mut(Arc::make_mut(snapshot)) = table;
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use desired::cluster::ThisNode;
    use pretty_assertions::assert_eq;

    use super::*;

    fn store() -> Store {
        let this_node = ThisNode {
            name: "n1".parse().unwrap(),
            addresses: BTreeSet::new(),
        };
        Store::new(Cluster::new(this_node, Vec::new()))
    }

    fn node(name: &str) -> Node {
        Node::new(name.parse().unwrap())
    }

    fn reset<T: Stored>(objects: Vec<T>) -> Vec<Change<T>> {
        vec![Change::Reset {
            objects,
            keep: BTreeSet::new(),
        }]
    }

    fn names(store: &Store) -> Vec<String> {
        store
            .snapshot()
            .nodes
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_snapshot_is_complete_once_all_six_lists_are_in() {
        let store = store();
        let mut snapshots = store.subscribe();
        store.change(reset::<Node>(vec![node("n1")]));
        store.change(reset::<Namespace>(vec![]));
        store.change(reset::<Pod>(vec![]));
        store.change(reset::<Service>(vec![]));
        store.change(reset::<EndpointSlice>(vec![]));
        store.change(reset::<EndpointSlice>(vec![]));
        assert_eq!(store.missing(), [Kind::NetworkPolicy]);
        assert!(!snapshots.borrow_and_update().complete);
        store.change(reset::<NetworkPolicy>(vec![]));
        assert_eq!(store.missing(), []);
        assert!(snapshots.has_changed().unwrap());
        assert!(snapshots.borrow_and_update().complete);
    }

    #[test]
    fn a_store_of_leases_is_waited_for_too() {
        let this_node = store().snapshot().this_node.clone();
        let expected = [Kind::Node, Kind::Lease];
        let store = Store::expecting(Cluster::new(this_node, Vec::new()), expected.into());
        store.change(reset::<Node>(vec![]));
        assert_eq!(store.missing(), [Kind::Lease]);
        assert!(!store.snapshot().complete);
        store.set_leases(BTreeMap::new(), None);
        assert_eq!(store.missing(), []);
        assert!(store.snapshot().complete);
    }

    #[test]
    fn objects_come_change_and_go() {
        let store = store();
        store.change(vec![Change::Apply(node("a")), Change::Apply(node("b"))]);
        assert_eq!(names(&store), ["a", "b"]);
        store.change(vec![Change::<Node>::Delete("a".parse().unwrap())]);
        assert_eq!(names(&store), ["b"]);
        store.change(reset(vec![node("c"), node("d")]));
        assert_eq!(names(&store), ["c", "d"]);
    }

    #[test]
    fn what_could_not_be_understood_stays_as_it_was() {
        let store = store();
        store.change(vec![Change::Apply(node("a")), Change::Apply(node("b"))]);
        let keep = ["b", "never-seen"].map(|name| name.parse().unwrap());
        store.change(vec![Change::Reset {
            objects: vec![node("c")],
            keep: keep.into(),
        }]);
        assert_eq!(names(&store), ["b", "c"]);
    }

    #[test]
    fn a_change_to_nothing_wakes_nobody() {
        let store = store();
        store.change(reset(vec![node("a")]));
        let mut snapshots = store.subscribe();
        snapshots.mark_unchanged();
        store.change(vec![Change::Apply(node("a"))]);
        store.change(reset(vec![node("a")]));
        store.change(vec![Change::<Node>::Delete("b".parse().unwrap())]);
        store.set_addresses(&BTreeSet::new());
        assert!(!snapshots.has_changed().unwrap());
        store.change(vec![Change::Apply(node("b"))]);
        assert!(snapshots.has_changed().unwrap());
    }

    #[test]
    fn a_batch_is_one_snapshot() {
        let store = store();
        let mut snapshots = store.subscribe();
        store.change(vec![Change::Apply(node("a")), Change::Apply(node("b"))]);
        assert_eq!(snapshots.borrow_and_update().nodes.len(), 2);
        assert!(!snapshots.has_changed().unwrap());
    }
}
