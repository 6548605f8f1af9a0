//! Which objects belong to a controller: those it owns, plus orphans its selector matches (adopted),
//! minus those its selector no longer matches (released).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::{Metadata, Resource};
use std::sync::Arc;

use super::action::{Action, to_value};
use super::labels;
use super::object::{Change, Key, controller_of, controller_reference, namespace_of, uid_of};

/// The outcome of [`claim`].
pub(crate) struct Claim<'a, K> {
    /// What belongs to the owner, adopted objects included.
    pub(crate) owned: Vec<&'a Arc<K>>,
    /// The writes that make it so.
    pub(crate) actions: Vec<Action>,
}

/// Decides for each candidate (objects of the owner's namespace) whether the owner has it. Objects
/// for which `adoptable` does not hold are not adopted.
pub(crate) fn claim<'a, O, K>(
    owner: &O,
    selector: &LabelSelector,
    candidates: impl Iterator<Item = &'a Arc<K>>,
    adoptable: impl Fn(&K) -> bool,
) -> Claim<'a, K>
where
    O: Resource + Metadata<Ty = ObjectMeta>,
    K: Resource + Metadata<Ty = ObjectMeta> + 'a,
{
    let owner_uid = uid_of(owner.metadata());
    let owner_leaves = owner.metadata().deletion_timestamp.is_some();
    let mut claim = Claim {
        owned: Vec::new(),
        actions: Vec::new(),
    };
    for object in candidates {
        let metadata = object.metadata();
        let selected = labels::matches(selector, metadata.labels.as_ref());
        let leaves = metadata.deletion_timestamp.is_some();
        match controller_of(metadata) {
            Some(controller) if controller.uid != owner_uid => {}
            Some(_) if selected => claim.owned.push(object),
            Some(_) if owner_leaves || leaves => {}
            Some(_) => claim.actions.push(release(object.as_ref(), owner_uid)),
            None if selected && !owner_leaves && !leaves && adoptable(object) => {
                claim.actions.push(adopt(object.as_ref(), owner));
                claim.owned.push(object);
            }
            None => {}
        }
    }
    claim
}

fn adopt<O, K>(object: &K, owner: &O) -> Action
where
    O: Resource + Metadata<Ty = ObjectMeta>,
    K: Resource + Metadata<Ty = ObjectMeta>,
{
    let mut owners = object
        .metadata()
        .owner_references
        .clone()
        .unwrap_or_default();
    owners.retain(|known| known.uid != uid_of(owner.metadata()));
    owners.push(controller_reference(owner));
    Action::set_owners(object, &to_value(&owners))
}

fn release<K>(object: &K, owner_uid: &str) -> Action
where
    K: Resource + Metadata<Ty = ObjectMeta>,
{
    let mut owners = object
        .metadata()
        .owner_references
        .clone()
        .unwrap_or_default();
    owners.retain(|known| known.uid != owner_uid);
    Action::set_owners(object, &to_value(&owners))
}

/// The owners of type `O` that a change of a `K` concerns: the controllers it has or had, and for an
/// orphan every owner in `owners` whose selector matches it.
pub(crate) fn interested<'a, O, K>(
    change: &Change,
    owners: impl Iterator<Item = &'a Arc<O>>,
    selector_of: impl Fn(&O) -> Option<&LabelSelector>,
) -> Vec<Key>
where
    O: Resource + Metadata<Ty = ObjectMeta> + 'a,
    K: Metadata<Ty = ObjectMeta> + 'static,
{
    let mut keys = change.owner_keys::<O>();
    let orphan = change
        .after::<K>()
        .filter(|object| controller_of(object.metadata()).is_none());
    if let Some(object) = orphan {
        let labels = object.metadata().labels.as_ref();
        let adopters = owners
            .filter(|owner| namespace_of(owner.metadata()) == change.key.namespace)
            .filter(|owner| {
                selector_of(owner).is_some_and(|selector| labels::matches(selector, labels))
            })
            .map(|owner| Key::of(owner.as_ref()));
        keys.extend(adopters);
    }
    keys
}
