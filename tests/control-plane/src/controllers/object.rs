//! What identifies an API object inside the controllers: its resource type, namespace and name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A resource type, for example `apps/v1 deployments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ResourceType {
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    /// Lower-case plural, as in URLs.
    pub(crate) plural: &'static str,
    /// API version without the group.
    pub(crate) version: &'static str,
    /// Kind of one object.
    pub(crate) kind: &'static str,
}

impl ResourceType {
    /// The resource type of a k8s-openapi type.
    pub(crate) const fn of<K: Resource>() -> Self {
        Self {
            group: K::GROUP,
            plural: K::URL_PATH_SEGMENT,
            version: K::VERSION,
            kind: K::KIND,
        }
    }

    /// Whether an owner reference speaks of this resource type (versions of one group are one type).
    pub(crate) fn is_named_by(&self, owner: &OwnerReference) -> bool {
        let group = owner
            .api_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group);
        self.kind == owner.kind && self.group == group
    }
}

/// One object: resource type, namespace (empty when cluster-scoped) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Resource type.
    pub(crate) resource: ResourceType,
    /// Namespace; empty for cluster-scoped objects.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    /// The key of the object `namespace/name` of type `K`; pass an empty namespace when cluster-scoped.
    pub(crate) fn new<K: Resource>(namespace: &str, name: &str) -> Self {
        Self {
            resource: ResourceType::of::<K>(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of a typed object.
    pub(crate) fn of<K: Resource + Metadata<Ty = ObjectMeta>>(object: &K) -> Self {
        let metadata = object.metadata();
        Self::new::<K>(namespace_of(metadata), name_of(metadata))
    }

    /// Whether this key is of type `K`.
    pub(crate) fn is<K: Resource>(&self) -> bool {
        self.resource == ResourceType::of::<K>()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.resource.plural)?;
        if !self.resource.group.is_empty() {
            write!(formatter, ".{}", self.resource.group)?;
        }
        if !self.namespace.is_empty() {
            write!(formatter, " {}/{}", self.namespace, self.name)
        } else {
            write!(formatter, " {}", self.name)
        }
    }
}

/// A typed object in a cache, or nothing when the type is kept as metadata only.
pub(crate) type Object = Arc<dyn Any + Send + Sync>;

/// A change of one object, as the caches saw it.
pub(crate) struct Change {
    /// Which object.
    pub(crate) key: Key,
    /// The object before; `None` when it is new or of a type that is not cached whole.
    pub(crate) old: Option<Object>,
    /// The object now; `None` when it is gone or of a type that is not cached whole.
    pub(crate) new: Option<Object>,
    /// Identity and references before.
    pub(crate) old_identity: Option<Arc<Identity>>,
    /// Identity and references now.
    pub(crate) new_identity: Option<Arc<Identity>>,
}

impl Change {
    /// The object before the change, when it is a `K`.
    pub(crate) fn before<K: 'static>(&self) -> Option<&K> {
        self.old.as_ref().and_then(|object| object.downcast_ref())
    }

    /// The object after the change, when it is a `K`.
    pub(crate) fn after<K: 'static>(&self) -> Option<&K> {
        self.new.as_ref().and_then(|object| object.downcast_ref())
    }

    /// Both sides of the change that are a `K`.
    pub(crate) fn sides<K: 'static>(&self) -> impl Iterator<Item = &K> {
        self.before::<K>().into_iter().chain(self.after::<K>())
    }

    /// Owner references on either side of the change.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &OwnerReference> {
        [&self.old_identity, &self.new_identity]
            .into_iter()
            .flatten()
            .flat_map(|identity| &identity.owners)
    }

    /// Keys of the owners of type `K` on either side of the change.
    pub(crate) fn owner_keys<K: Resource>(&self) -> Vec<Key> {
        let resource = ResourceType::of::<K>();
        let mut keys: Vec<Key> = self
            .owners()
            .filter(|owner| resource.is_named_by(owner))
            .map(|owner| Key::new::<K>(&self.key.namespace, &owner.name))
            .collect();
        keys.dedup();
        keys
    }
}

/// The part of an object's metadata that garbage collection and namespace deletion need; kept for
/// every object of every type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Identity {
    /// Unique id.
    pub(crate) uid: String,
    /// Revision of the last write seen.
    pub(crate) revision: u64,
    /// Owner references.
    pub(crate) owners: Vec<OwnerReference>,
    /// Finalizers that still hold the object.
    pub(crate) finalizers: Vec<String>,
    /// Whether deletion was asked for.
    pub(crate) deleting: bool,
}

impl Identity {
    /// The identity within whole metadata.
    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        Self {
            uid: uid_of(metadata).to_owned(),
            revision: revision_of(metadata),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The object's name; empty when absent.
pub(crate) fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// The object's namespace; empty when cluster-scoped.
pub(crate) fn namespace_of(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

/// The object's uid; empty when absent.
pub(crate) fn uid_of(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}

/// The object's resource version as the store's revision number; 0 when absent.
pub(crate) fn revision_of(metadata: &ObjectMeta) -> u64 {
    metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// The owner that controls the object, if any.
pub(crate) fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// Whether `owner_uid` controls the object.
pub(crate) fn is_controlled_by(metadata: &ObjectMeta, owner_uid: &str) -> bool {
    controller_of(metadata).is_some_and(|owner| owner.uid == owner_uid)
}

/// The owner reference with which `owner` controls what it makes.
pub(crate) fn controller_reference<K>(owner: &K) -> OwnerReference
where
    K: Resource + Metadata<Ty = ObjectMeta>,
{
    let metadata = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: name_of(metadata).to_owned(),
        uid: uid_of(metadata).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
