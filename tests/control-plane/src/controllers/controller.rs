//! What a controller is.

use jiff::Timestamp;

use super::action::Action;
use super::object::{Change, Key};
use super::snapshot::Snapshot;

/// One controller: pure functions over the snapshot.
pub(crate) trait Controller: Send + Sync {
    /// Its name, for logs.
    fn name(&self) -> &'static str;

    /// How many keys may be worked on at a time. One where a decision depends on all earlier ones
    /// (allocation), more where keys do not meet.
    fn width(&self) -> usize {
        1
    }

    /// Keys to reconcile once at the start even if no object asks for it.
    fn initial(&self) -> Vec<Key> {
        Vec::new()
    }

    /// The keys that a change concerns. The snapshot already holds the change.
    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key>;

    /// What is to be done so that the object `key` is as it should be.
    fn reconcile(&self, key: &Key, snapshot: &Snapshot, now: Timestamp) -> Vec<Action>;
}
