//! A Target that remembers what it holds, for tables too large to dump at every change.

use std::collections::{BTreeMap, BTreeSet};

use crate::diff::diff;
use crate::target::Target;

/// Remembers the last known contents of `T`, so that [`Target::observe`] is free until
/// [`Cached::forget`] asks for a real look (the periodic pass) or a change fails.
#[derive(Debug)]
pub struct Cached<T: Target> {
    inner: T,
    known: Option<BTreeMap<T::Key, T::Value>>,
    /// What is known may have become wrong.
    stale: bool,
    strayed: BTreeSet<T::Key>,
}

// === impl Cached ===

impl<T: Target> Cached<T> {
    /// Knows nothing yet: the first observation is real.
    pub const fn new(inner: T) -> Self {
        Self {
            inner,
            known: None,
            stale: true,
            strayed: BTreeSet::new(),
        }
    }

    /// Makes the next observation a real one.
    pub fn forget(&mut self) {
        self.stale = true;
    }

    /// The table underneath.
    pub const fn inner(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: Target> Target for Cached<T> {
    type Key = T::Key;
    type Value = T::Value;
    type Error = T::Error;

    fn observe(&mut self) -> Result<BTreeMap<T::Key, T::Value>, T::Error> {
        if let Some(known) = self.known.as_ref().filter(|_| !self.stale) {
            return Ok(known.clone());
        }
        let actual = self.inner.observe()?;
        let known = self.known.replace(actual.clone());
        self.strayed = known.map_or_else(BTreeSet::new, |known| differing(&known, &actual));
        self.stale = false;
        Ok(actual)
    }

    fn put(&mut self, key: &T::Key, value: &T::Value) -> Result<(), T::Error> {
        let result = self.inner.put(key, value);
        self.strayed.remove(key);
        match (&result, &mut self.known) {
            (Ok(()), Some(known)) => {
                known.insert(key.clone(), value.clone());
            }
            (Err(_), _) => self.forget(),
            (Ok(()), None) => {}
        }
        result
    }

    fn delete(&mut self, key: &T::Key) -> Result<(), T::Error> {
        let result = self.inner.delete(key);
        self.strayed.remove(key);
        match (&result, &mut self.known) {
            (Ok(()), Some(known)) => {
                known.remove(key);
            }
            (Err(_), _) => self.forget(),
            (Ok(()), None) => {}
        }
        result
    }

    fn has_strayed(&self, key: &T::Key) -> bool {
        self.strayed.contains(key)
    }
}

/// The keys whose entries are not the same in both.
fn differing<K: Ord + Clone, V: Eq + Clone>(
    known: &BTreeMap<K, V>,
    actual: &BTreeMap<K, V>,
) -> BTreeSet<K> {
    let change = diff(known, actual);
    change.puts.into_keys().chain(change.deletes).collect()
}
