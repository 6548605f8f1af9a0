//! The one REST implementation behind every kind, independent of HTTP.

mod bootstrap;
mod create;
mod delete;
mod list;
mod metadata;
mod modify;
mod subresource;
mod turns;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

pub use delete::{DeleteOptions, Deleted, Propagation};
pub use list::{ListOptions, Page};
pub use modify::Part;
pub(crate) use subresource::selector_text;
pub use watch::{Filtered, ResourceWatch};

use crate::allocate::Allocators;
use crate::config::ClusterConfig;
use crate::registry::{Registry, Resource};
use crate::status::ApiError;
use crate::store::{CommitError, Draft, Key, Options, Store, StoreError, Stored};

/// How strictly unknown fields are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Kept without a word.
    Ignore,
    /// Kept, with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// Options of a write.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but keep the result.
    pub dry_run: bool,
    /// What is done about unknown fields.
    pub fields: FieldValidation,
}

/// An object by resource and name.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its kind.
    pub resource: Arc<Resource>,
    /// Its namespace; empty when cluster-scoped.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// Names an object; `namespace` is empty for cluster-scoped kinds.
    pub fn new(resource: &Arc<Resource>, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Its key in the store.
    pub fn key(&self) -> Key {
        Key::new(&self.resource.storage, &self.namespace, &self.name)
    }
}

/// Result of a write: the object as it is now, and warnings for the client.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as the kind served.
    pub body: Bytes,
    /// Warnings, one line each.
    pub warnings: Vec<String>,
}

/// The API: store, registry and allocators.
#[derive(Debug)]
pub struct Api {
    store: Store,
    registry: Arc<Registry>,
    allocators: Allocators,
    turns: turns::Turns,
}

impl Api {
    /// Opens the store and takes stock of what is allocated in it.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn open(options: &Options, config: &ClusterConfig) -> Result<Self, StoreError> {
        let registry = Arc::new(Registry::new());
        let extract = registry.clone();
        let store = Store::open(options, &move |storage, object| {
            extract.index(storage, object)
        })?;
        let allocators = Allocators::new(config);
        for service in store.list("services", None).objects {
            match service.value() {
                Ok(value) => allocators.adopt(&value),
                Err(error) => {
                    tracing::error!(name = service.key.object.name, %error, "service unreadable");
                }
            }
        }
        Ok(Self {
            store,
            registry,
            allocators,
            turns: turns::Turns::default(),
        })
    }

    /// The kinds served.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads an object.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn get(&self, target: &Target) -> Result<Arc<Stored>, ApiError> {
        let found = self.store.get(&target.key());
        found.ok_or_else(|| ApiError::not_found(&target.resource, &target.name))
    }

    /// The bytes of a stored object in the version its resource serves.
    ///
    /// # Errors
    /// 500 when the stored bytes are damaged.
    pub fn serve(resource: &Resource, object: &Stored) -> Result<Bytes, ApiError> {
        match resource.conversion {
            None => Ok(object.body.clone()),
            Some(_) => to_bytes(&Self::value(resource, object)?),
        }
    }

    /// A stored object as a value in the version its resource serves.
    ///
    /// # Errors
    /// 500 when the stored bytes are damaged.
    pub fn value(resource: &Resource, object: &Stored) -> Result<Value, ApiError> {
        let mut value = object.value().map_err(ApiError::internal)?;
        if let Some(conversion) = resource.conversion {
            (conversion.serve)(&mut value);
        }
        Ok(value)
    }

    /// Serialises an object in its stored form.
    fn draft(resource: &Resource, mut object: Value) -> Result<Draft, ApiError> {
        if let Some(conversion) = resource.conversion {
            (conversion.store)(&mut object);
        }
        let index = resource.index(&object);
        Draft::new(object, index).map_err(ApiError::internal)
    }
}

pub(crate) fn to_bytes(value: &Value) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(ApiError::internal)
}

fn commit_failed(resource: &Resource, name: &str, error: &CommitError) -> ApiError {
    match error {
        CommitError::Exists(_) => ApiError::already_exists(resource, name),
        CommitError::NotFound => ApiError::not_found(resource, name),
        CommitError::Conflict(_) => ApiError::modified(resource, name),
        CommitError::Stopped(why) => ApiError::internal(why),
    }
}
