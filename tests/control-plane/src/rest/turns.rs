//! Writers of one object take turns, so that a patch is applied once instead of again and again
//! while others win. The store's own check of revisions stays: this is for speed and fairness.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

use crate::store::Key;

/// Number of locks; objects share them by hash.
const LOCKS: usize = 256;

/// The locks.
#[derive(Debug)]
pub(super) struct Turns {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        Self {
            locks,
            hasher: RandomState::new(),
        }
    }
}

impl Turns {
    /// Waits for one's turn to write an object.
    pub(super) async fn take(&self, key: &Key) -> MutexGuard<'_, ()> {
        let index = usize::try_from(self.hasher.hash_one(key)).unwrap_or_default() % LOCKS;
        self.locks[index].lock().await
    }
}
