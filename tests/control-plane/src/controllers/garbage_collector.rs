//! Garbage collection: an object goes when the last of its owners is gone.
//!
//! Owners are recognised by uid, so a new object of an old name inherits nothing. With foreground
//! deletion the owner waits for its dependents, with orphaning they are cut loose first.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::action::{Action, Deletion, to_value};
use super::controller::Controller;
use super::object::{Change, Identity, Key, ResourceType};
use super::snapshot::Snapshot;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// The controller.
pub(crate) struct GarbageCollector {
    types: Vec<ResourceType>,
}

impl GarbageCollector {
    /// A collector over these types; owners of other types are taken to exist.
    pub(crate) fn new(types: Vec<ResourceType>) -> Self {
        Self { types }
    }
}

/// What is known of one owner.
enum Standing {
    /// It exists, or is of a type that is not known here.
    Solid,
    /// It waits for its dependents to go.
    Waiting,
    /// It seems to be gone; this would be its key.
    Absent(Key),
}

/// Owners of an object by standing.
#[derive(Default)]
struct Owners<'a> {
    solid: Vec<&'a OwnerReference>,
    waiting: Vec<&'a OwnerReference>,
    absent: Vec<(Key, Option<String>)>,
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn width(&self) -> usize {
        4
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        let mut keys = Vec::new();
        let dependents = |identity: &Identity| -> Vec<Key> {
            let found = snapshot.identities.dependents(&identity.uid);
            found.map(|(key, _)| key.clone()).collect()
        };
        if let Some(identity) = &change.new_identity {
            if !identity.owners.is_empty() || finalizer(identity).is_some() {
                keys.push(change.key.clone());
            }
            if finalizer(identity) == Some(FOREGROUND) {
                keys.extend(dependents(identity));
            }
        } else if let Some(identity) = &change.old_identity {
            keys.extend(dependents(identity));
        }
        let waiting = change
            .owners()
            .filter_map(|owner| snapshot.identities.by_uid(&owner.uid));
        keys.extend(
            waiting
                .filter(|(_, identity)| finalizer(identity).is_some())
                .map(|(key, _)| key.clone()),
        );
        keys
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, _now: Timestamp) -> Vec<Action> {
        let Some(identity) = snapshot.identities.get(key) else {
            return Vec::new();
        };
        match finalizer(identity) {
            Some(FOREGROUND) => release_when_alone(key, identity, snapshot),
            Some(_) => orphan_dependents(key, identity, snapshot),
            None if identity.deleting => Vec::new(),
            None => self.collect(key, identity, snapshot),
        }
    }
}

/// The finalizer of garbage collection that holds a deleted object.
fn finalizer(identity: &Identity) -> Option<&'static str> {
    let has = |wanted: &str| identity.finalizers.iter().any(|name| name == wanted);
    match identity.deleting {
        true if has(ORPHAN) => Some(ORPHAN),
        true if has(FOREGROUND) => Some(FOREGROUND),
        _ => None,
    }
}

fn without_finalizer(key: &Key, identity: &Identity, finalizer: &str) -> Action {
    let mut left = identity.finalizers.clone();
    left.retain(|name| name != finalizer);
    Action::Patch {
        key: key.clone(),
        subresource: None,
        patch: json!({"metadata": {
            "finalizers": left,
            "resourceVersion": identity.revision.to_string(),
        }}),
    }
}

fn with_owners(key: &Key, identity: &Identity, owners: &[&OwnerReference]) -> Action {
    Action::Patch {
        key: key.clone(),
        subresource: None,
        patch: json!({"metadata": {
            "ownerReferences": to_value(&owners),
            "resourceVersion": identity.revision.to_string(),
        }}),
    }
}

fn release_when_alone(key: &Key, identity: &Identity, snapshot: &Snapshot) -> Vec<Action> {
    let blocked = snapshot
        .identities
        .dependents(&identity.uid)
        .any(|(_, dependent)| {
            dependent
                .owners
                .iter()
                .any(|owner| owner.uid == identity.uid && owner.block_owner_deletion == Some(true))
        });
    if blocked {
        return Vec::new();
    }
    vec![without_finalizer(key, identity, FOREGROUND)]
}

fn orphan_dependents(key: &Key, identity: &Identity, snapshot: &Snapshot) -> Vec<Action> {
    snapshot
        .identities
        .dependents(&identity.uid)
        .map(|(key, dependent)| {
            let others = dependent
                .owners
                .iter()
                .filter(|owner| owner.uid != identity.uid);
            with_owners(key, dependent, &others.collect::<Vec<_>>())
        })
        .chain([without_finalizer(key, identity, ORPHAN)])
        .collect()
}

impl GarbageCollector {
    fn collect(&self, key: &Key, identity: &Identity, snapshot: &Snapshot) -> Vec<Action> {
        let mut owners = Owners::default();
        for owner in &identity.owners {
            match self.standing(key, owner, snapshot) {
                Standing::Solid => owners.solid.push(owner),
                Standing::Waiting => owners.waiting.push(owner),
                Standing::Absent(key) => owners.absent.push((key, Some(owner.uid.clone()))),
            }
        }
        if owners.waiting.is_empty() && owners.absent.is_empty() {
            return Vec::new();
        }
        let action = if !owners.solid.is_empty() {
            with_owners(key, identity, &owners.solid)
        } else {
            let has_dependents = snapshot
                .identities
                .dependents(&identity.uid)
                .next()
                .is_some();
            let foreground = !owners.waiting.is_empty() && has_dependents;
            let how = if foreground {
                Deletion::FOREGROUND
            } else {
                Deletion::BACKGROUND
            };
            Action::delete_identity(key, identity, how)
        };
        if owners.absent.is_empty() {
            return vec![action];
        }
        vec![Action::IfAbsent {
            absent: owners.absent,
            then: Box::new(action),
        }]
    }

    fn standing(&self, dependent: &Key, owner: &OwnerReference, snapshot: &Snapshot) -> Standing {
        let Some(resource) = self.types.iter().find(|known| known.is_named_by(owner)) else {
            return Standing::Solid;
        };
        let key = Key {
            resource: *resource,
            namespace: dependent.namespace.clone(),
            name: owner.name.clone(),
        };
        match snapshot.identities.by_uid(&owner.uid) {
            Some((found, _)) if !same_object(found, &key) => Standing::Absent(key),
            Some((_, identity)) if finalizer(identity) == Some(FOREGROUND) => Standing::Waiting,
            Some(_) => Standing::Solid,
            None => Standing::Absent(key),
        }
    }
}

/// Whether the owner found is the one referred to: of that type and name, and cluster-scoped or in
/// the dependent's namespace.
fn same_object(found: &Key, wanted: &Key) -> bool {
    found.resource == wanted.resource
        && found.name == wanted.name
        && (found.namespace.is_empty() || found.namespace == wanted.namespace)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ago, now, observe, snapshot};
    use super::*;
    use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
    use k8s_openapi::api::core::v1::{Node, Pod};
    use pretty_assertions::assert_eq;
    use serde_json::Value;

    fn collector() -> GarbageCollector {
        GarbageCollector::new(vec![
            ResourceType::of::<Deployment>(),
            ResourceType::of::<ReplicaSet>(),
            ResourceType::of::<Node>(),
            ResourceType::of::<Pod>(),
        ])
    }

    fn object(kind: &str, name: &str, owners: &[Value]) -> Value {
        let api = if kind == "Pod" { "v1" } else { "apps/v1" };
        json!({"apiVersion": api, "kind": kind,
               "metadata": {"name": name, "namespace": "shop", "ownerReferences": owners}})
    }

    fn owner(kind: &str, name: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("{name}-uid"),
               "blockOwnerDeletion": true})
    }

    fn leaving(mut object: Value, finalizer: &str) -> Value {
        object["metadata"]["deletionTimestamp"] = json!(ago(1));
        object["metadata"]["finalizers"] = json!([finalizer, "other"]);
        object
    }

    fn reconcile(key: &Key, objects: &[Value]) -> Vec<Action> {
        collector().reconcile(key, &snapshot(objects), now())
    }

    fn pod() -> Key {
        Key::new::<Pod>("shop", "p")
    }

    fn set(name: &str) -> Key {
        Key::new::<ReplicaSet>("shop", name)
    }

    fn deletion(key: Key, how: Deletion) -> Action {
        Action::Delete {
            uid: format!("{}-uid", key.name),
            key,
            how,
        }
    }

    #[test]
    fn an_object_goes_with_its_last_owner() {
        let both = [owner("ReplicaSet", "a"), owner("ReplicaSet", "b")];
        let gone = |name: &str| (set(name), Some(format!("{name}-uid")));
        assert_eq!(
            reconcile(&pod(), &[object("Pod", "p", &both)]),
            [Action::IfAbsent {
                absent: vec![gone("a"), gone("b")],
                then: Box::new(deletion(pod(), Deletion::BACKGROUND)),
            }]
        );
    }

    #[test]
    fn one_of_two_owners_keeps_it_and_the_other_is_struck_out() {
        let both = [owner("ReplicaSet", "a"), owner("ReplicaSet", "b")];
        let objects = [object("ReplicaSet", "b", &[]), object("Pod", "p", &both)];
        assert_eq!(
            reconcile(&pod(), &objects),
            [Action::IfAbsent {
                absent: vec![(set("a"), Some("a-uid".to_owned()))],
                then: Box::new(Action::Patch {
                    key: pod(),
                    subresource: None,
                    patch: json!({"metadata": {"ownerReferences": [both[1]], "resourceVersion": "2"}}),
                }),
            }]
        );
    }

    #[test]
    fn a_new_object_of_an_old_name_is_no_owner() {
        let mut impostor = object("ReplicaSet", "a", &[]);
        impostor["metadata"]["uid"] = json!("another");
        let objects = [impostor, object("Pod", "p", &[owner("ReplicaSet", "a")])];
        let [Action::IfAbsent { then, .. }] = &reconcile(&pod(), &objects)[..] else {
            panic!("a guarded action expected")
        };
        assert_eq!(**then, deletion(pod(), Deletion::BACKGROUND));
    }

    #[test]
    fn owners_that_exist_or_are_of_unknown_type_are_left_in_peace() {
        let owners = [owner("ReplicaSet", "a"), owner("Gadget", "g")];
        let objects = [object("ReplicaSet", "a", &[]), object("Pod", "p", &owners)];
        assert_eq!(reconcile(&pod(), &objects), []);
        assert_eq!(reconcile(&pod(), &[object("Pod", "p", &owners[1..])]), []);
    }

    #[test]
    fn foreground_deletion_takes_dependents_first() {
        let top = leaving(object("Deployment", "d", &[]), FOREGROUND);
        let middle = object("ReplicaSet", "a", &[owner("Deployment", "d")]);
        let bottom = object("Pod", "p", &[owner("ReplicaSet", "a")]);
        let objects = [top.clone(), middle, bottom];
        let deployment = Key::new::<Deployment>("shop", "d");
        assert_eq!(reconcile(&deployment, &objects), []);
        assert_eq!(
            reconcile(&set("a"), &objects),
            [deletion(set("a"), Deletion::FOREGROUND)]
        );
        assert_eq!(
            reconcile(&deployment, &[top]),
            [Action::Patch {
                key: deployment,
                subresource: None,
                patch: json!({"metadata": {"finalizers": ["other"], "resourceVersion": "1"}}),
            }]
        );
    }

    #[test]
    fn orphaning_cuts_dependents_loose_before_the_owner_goes() {
        let objects = [
            leaving(object("ReplicaSet", "a", &[]), ORPHAN),
            object(
                "Pod",
                "p",
                &[owner("ReplicaSet", "a"), owner("ReplicaSet", "b")],
            ),
        ];
        let patch = |key: Key, patch: Value| Action::Patch {
            key,
            subresource: None,
            patch: json!({"metadata": patch}),
        };
        let left = json!({"ownerReferences": [owner("ReplicaSet", "b")], "resourceVersion": "2"});
        let free = json!({"finalizers": ["other"], "resourceVersion": "1"});
        assert_eq!(
            reconcile(&set("a"), &objects),
            [patch(pod(), left), patch(set("a"), free)]
        );
    }

    #[test]
    fn the_removal_of_an_owner_concerns_its_dependents() {
        let mut state = snapshot(&[
            object("ReplicaSet", "a", &[]),
            object("Pod", "p", &[owner("ReplicaSet", "a")]),
        ]);
        let change = state.record_removed(&set("a"), "a-uid").unwrap();
        assert_eq!(collector().affected(&change, &state), [pod()]);
        let change = observe(&mut state, &object("Pod", "q", &[]), 9).remove(0);
        assert_eq!(collector().affected(&change, &state), []);
    }
}
