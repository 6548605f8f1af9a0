//! A Target that knows how it was left.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::target::Target;

/// Observes `T` every time, and remembers by digests how each pass left it, so that what somebody
/// else has changed since can be told from what is wanted otherwise now.
#[derive(Debug)]
pub struct Kept<T> {
    inner: T,
    /// Digests of values by those of keys; nothing before the first observation.
    left: Option<HashMap<u64, u64>>,
    strayed: HashSet<u64>,
}

// === impl Kept ===

impl<T> Kept<T> {
    /// Knows nothing yet: what the first observation finds is nobody's change.
    #[must_use]
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            left: None,
            strayed: HashSet::new(),
        }
    }

    /// The table underneath, to be asked.
    #[must_use]
    pub const fn table(&self) -> &T {
        &self.inner
    }

    /// The table underneath.
    pub const fn inner(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Begins anew: what the next observation finds is nobody's change. For a table that we
    /// ourselves have taken away, with the device that it was on.
    pub fn forget(&mut self) {
        self.left = None;
    }
}

impl<T: Target<Key: Hash, Value: Hash>> Target for Kept<T> {
    type Key = T::Key;
    type Value = T::Value;
    type Error = T::Error;

    fn observe(&mut self) -> Result<BTreeMap<T::Key, T::Value>, T::Error> {
        let actual = self.inner.observe()?;
        let now: HashMap<u64, u64> = actual
            .iter()
            .map(|(key, value)| (digest(key), digest(value)))
            .collect();
        self.strayed.clear();
        if let Some(left) = &self.left {
            let gone = left.keys().filter(|key| !now.contains_key(key));
            let other = now
                .iter()
                .filter(|(key, value)| left.get(key) != Some(value));
            self.strayed = gone.chain(other.map(|(key, _)| key)).copied().collect();
        }
        self.left = Some(now);
        Ok(actual)
    }

    fn put(&mut self, key: &T::Key, value: &T::Value) -> Result<(), T::Error> {
        self.inner.put(key, value)?;
        if let Some(left) = &mut self.left {
            left.insert(digest(key), digest(value));
        }
        Ok(())
    }

    fn delete(&mut self, key: &T::Key) -> Result<(), T::Error> {
        self.inner.delete(key)?;
        if let Some(left) = &mut self.left {
            left.remove(&digest(key));
        }
        Ok(())
    }

    fn has_strayed(&self, key: &T::Key) -> bool {
        self.strayed.contains(&digest(key))
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
