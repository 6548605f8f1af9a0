//! Revision-ordered store of serialised objects.
//!
//! One thread commits: it drains whatever writes are waiting, checks their expectations, gives each
//! the next revision, appends the batch to the write-ahead log, makes it durable with one
//! `fdatasync`, and only then lets readers and watchers see it. So nobody ever saw a revision that
//! a crash can take back. Objects are kept as bytes; labels and selectable fields are extracted
//! once, when the object is written.

mod commit;
mod draft;
mod event;
mod snapshot;
mod state;
mod wal;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

pub use commit::{Change, CommitError, Expect, Write};
pub use draft::Draft;
pub use event::{Event, EventKind};
pub use watch::{Watch, WatchError};

use state::State;

/// Place of an object: resource, namespace (empty when cluster-scoped) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Storage identity of the resource, e.g. `pods` or `apps/deployments`.
    pub resource: Arc<str>,
    /// Namespace and name.
    pub object: ObjectName,
}

/// Namespace and name of an object, in list order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// Makes a key; `namespace` is empty for cluster-scoped objects.
    pub fn new(resource: &Arc<str>, namespace: &str, name: &str) -> Self {
        let object = ObjectName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Self {
            resource: resource.clone(),
            object,
        }
    }
}

/// What selectors look at, extracted when an object is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// `metadata.labels`, sorted by key.
    pub labels: Vec<(String, String)>,
    /// Selectable fields by path, e.g. `spec.nodeName`.
    pub fields: Vec<(&'static str, String)>,
}

/// Extracts the [`Index`] of an object of a resource; used again when the log is replayed.
pub type Extract = dyn Fn(&str, &Value) -> Index + Send + Sync;

/// One version of one object.
#[derive(Debug)]
pub struct Stored {
    /// Where it is kept.
    pub key: Key,
    /// Revision at which the object was created.
    pub create_revision: u64,
    /// Revision of this version; also `metadata.resourceVersion` inside [`Stored::body`].
    pub revision: u64,
    /// The JSON object.
    pub body: Bytes,
    /// Labels and selectable fields.
    pub index: Index,
}

impl Stored {
    /// Parses the body.
    ///
    /// # Errors
    /// When the bytes are not JSON, which only a damaged log can cause.
    pub fn value(&self) -> serde_json::Result<Value> {
        serde_json::from_slice(&self.body)
    }
}

/// A failure to open or to write the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("store: {action} {path}: {cause}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// Another process has the directory open.
    #[error("store: data directory {path} is in use by another process; choose another --data-dir", path = .0.display())]
    Locked(PathBuf),
    /// A file's content is not what the store wrote.
    #[error("store: {path} is damaged at byte {offset}: {reason}; remove the data directory to start afresh", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset of the bad record.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of log and snapshots; made with mode 0700 when absent.
    pub dir: PathBuf,
    /// Whether each batch is made durable by `fdatasync`.
    pub sync: bool,
    /// Events kept per resource for watches that resume.
    pub history: usize,
    /// Age at which a kept event is dropped even when there is room.
    pub history_age: Duration,
    /// Size of the log, in bytes, at which a snapshot is written and a new log begun.
    pub snapshot_bytes: u64,
}

impl Options {
    /// The defaults for a directory: durable, 32,768 events or 5 minutes of history, 64 MiB of log.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            sync: true,
            history: 32_768,
            history_age: Duration::from_secs(300),
            snapshot_bytes: 64 << 20,
        }
    }
}

/// A consistent view of some objects and the revision at which it was taken.
#[derive(Debug)]
pub struct Snapshot {
    /// Revision of the view.
    pub revision: u64,
    /// The objects in order of namespace and name.
    pub objects: Vec<Arc<Stored>>,
}

/// The store; cheap to share by [`Arc`], closed when dropped.
#[derive(Debug)]
pub struct Store {
    state: Arc<Shared>,
    committer: commit::Committer,
}

/// State behind its lock; written by the commit thread only (and to add an empty table).
pub(crate) type Shared = RwLock<State>;

pub(crate) fn read(state: &Shared) -> std::sync::RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write(state: &Shared) -> std::sync::RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens the directory, replaying snapshot and log.
    ///
    /// # Errors
    /// When the directory cannot be used, is in use, or holds damaged files. A torn last record, as
    /// a crash leaves it, is not damage: it was never acknowledged and is cut off.
    pub fn open(options: &Options, extract: &Extract) -> Result<Self, StoreError> {
        let (state, log) = snapshot::restore(options, extract)?;
        let state = Arc::new(RwLock::new(state));
        let committer = commit::Committer::start(options.clone(), state.clone(), log)?;
        Ok(Self { state, committer })
    }

    /// Revision of the last commit.
    pub fn revision(&self) -> u64 {
        read(&self.state).revision
    }

    /// The current version of an object.
    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        read(&self.state).get(key).cloned()
    }

    /// All objects of a resource, or of one namespace of it.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Snapshot {
        read(&self.state).list(resource, namespace)
    }

    /// As [`Store::list`], but as things were at `revision`.
    ///
    /// # Errors
    /// [`WatchError::Expired`] when the history no longer reaches back that far.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Snapshot, WatchError> {
        read(&self.state).list_at(resource, namespace, revision)
    }

    /// Number of objects of a resource in a namespace, or in all.
    pub fn count(&self, resource: &str, namespace: Option<&str>) -> usize {
        read(&self.state).count(resource, namespace)
    }

    /// Commits one write and waits until it is durable. For a deletion the answer is the object's
    /// last version, carrying the revision of the deletion.
    ///
    /// # Errors
    /// When the expectation does not hold, or the log cannot be written.
    pub async fn commit(&self, write: Write) -> Result<Arc<Stored>, CommitError> {
        self.committer.commit(write).await
    }

    /// Watches a resource from (not including) `revision`.
    ///
    /// # Errors
    /// [`WatchError::Expired`] when history no longer reaches back that far.
    pub fn watch(&self, resource: &Arc<str>, revision: u64) -> Result<Watch, WatchError> {
        Watch::start(&self.state, resource, revision)
    }

    /// Forgets the history of every resource up to now: watches and lists at older revisions are
    /// answered with [`WatchError::Expired`].
    pub fn compact(&self) {
        write(&self.state).compact();
    }
}

#[cfg(test)]
mod tests;
