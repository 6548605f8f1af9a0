//! The seam between wanted state and whatever holds the actual state.

use std::collections::BTreeMap;

/// A keyed table that can be observed and changed.
pub trait Target {
    /// What tells entries apart.
    type Key: Ord + Clone;
    /// What an entry holds.
    type Value: Eq + Clone;
    /// Why the table could not be read or changed.
    type Error;

    /// Everything in the table, and only what we own (our route protocol number, our nft table,
    /// our pins).
    ///
    /// # Errors
    /// When the table cannot be read.
    fn observe(&mut self) -> Result<BTreeMap<Self::Key, Self::Value>, Self::Error>;

    /// Makes `key` hold `value`, whether or not it is there.
    ///
    /// # Errors
    /// When the table refuses.
    fn put(&mut self, key: &Self::Key, value: &Self::Value) -> Result<(), Self::Error>;

    /// Removes `key`; an absent key is no error.
    ///
    /// # Errors
    /// When the table refuses.
    fn delete(&mut self, key: &Self::Key) -> Result<(), Self::Error>;

    /// Whether the last observation found `key` other than this Target had left it: somebody else
    /// has changed it. A Target that remembers nothing cannot tell.
    fn has_strayed(&self, _: &Self::Key) -> bool {
        false
    }
}

impl<T: Target + ?Sized> Target for &mut T {
    type Key = T::Key;
    type Value = T::Value;
    type Error = T::Error;

    fn observe(&mut self) -> Result<BTreeMap<Self::Key, Self::Value>, Self::Error> {
        (**self).observe()
    }

    fn put(&mut self, key: &Self::Key, value: &Self::Value) -> Result<(), Self::Error> {
        (**self).put(key, value)
    }

    fn delete(&mut self, key: &Self::Key) -> Result<(), Self::Error> {
        (**self).delete(key)
    }

    fn has_strayed(&self, key: &Self::Key) -> bool {
        (**self).has_strayed(key)
    }
}
