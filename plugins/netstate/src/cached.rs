//! A Target that remembers what it holds, for tables too large to dump at every change.

use std::collections::BTreeMap;

use crate::target::Target;

/// Remembers the last known contents of `T`, so that [`Target::observe`] is free until
/// [`Cached::forget`] asks for a real look (the periodic pass) or a change fails.
#[derive(Debug)]
pub struct Cached<T: Target> {
    inner: T,
    known: Option<BTreeMap<T::Key, T::Value>>,
}

// === impl Cached ===

impl<T: Target> Cached<T> {
    /// Knows nothing yet: the first observation is real.
    pub const fn new(inner: T) -> Self {
        Self { inner, known: None }
    }

    /// Makes the next observation a real one.
    pub fn forget(&mut self) {
        self.known = None;
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
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let actual = self.inner.observe()?;
        self.known = Some(actual.clone());
        Ok(actual)
    }

    fn put(&mut self, key: &T::Key, value: &T::Value) -> Result<(), T::Error> {
        let result = self.inner.put(key, value);
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
        match (&result, &mut self.known) {
            (Ok(()), Some(known)) => {
                known.remove(key);
            }
            (Err(_), _) => self.forget(),
            (Ok(()), None) => {}
        }
        result
    }
}
