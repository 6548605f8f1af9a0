//! A table of the data path, remembered between observations, whatever holds it.

use std::collections::BTreeMap;
use std::fmt::Display;

use netstate::{Cached, Target};

/// Any Target with these keys and values; errors are text.
pub struct Map<K: Ord + Clone, V: Eq + Clone> {
    cached: Cached<Erased<K, V>>,
}

type Inner<K, V> = Box<dyn Target<Key = K, Value = V, Error = String> + Send>;

struct Erased<K, V>(Inner<K, V>);

struct Texted<T>(T);

// === impl Map ===

impl<K: Ord + Clone + 'static, V: Eq + Clone + 'static> Map<K, V> {
    /// Remembers what `target` holds.
    pub fn new<T>(target: T) -> Self
    where
        T: Target<Key = K, Value = V, Error: Display> + Send + 'static,
    {
        let inner: Inner<K, V> = Box::new(Texted(target));
        Self {
            cached: Cached::new(Erased(inner)),
        }
    }

    /// Observes at the next pass, if `look`; otherwise what was last applied is good enough.
    pub fn begin(&mut self, look: bool) {
        if look {
            self.cached.forget();
        }
    }
}

impl<K: Ord + Clone, V: Eq + Clone> Target for Map<K, V> {
    type Key = K;
    type Value = V;
    type Error = String;

    fn observe(&mut self) -> Result<BTreeMap<K, V>, String> {
        self.cached.observe()
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), String> {
        self.cached.put(key, value)
    }

    fn delete(&mut self, key: &K) -> Result<(), String> {
        self.cached.delete(key)
    }

    fn has_strayed(&self, key: &K) -> bool {
        self.cached.has_strayed(key)
    }
}

impl<K: Ord + Clone, V: Eq + Clone> Target for Erased<K, V> {
    type Key = K;
    type Value = V;
    type Error = String;

    fn observe(&mut self) -> Result<BTreeMap<K, V>, String> {
        self.0.observe()
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), String> {
        self.0.put(key, value)
    }

    fn delete(&mut self, key: &K) -> Result<(), String> {
        self.0.delete(key)
    }
}

impl<T: Target<Error: Display>> Target for Texted<T> {
    type Key = T::Key;
    type Value = T::Value;
    type Error = String;

    fn observe(&mut self) -> Result<BTreeMap<T::Key, T::Value>, String> {
        self.0.observe().map_err(|error| error.to_string())
    }

    fn put(&mut self, key: &T::Key, value: &T::Value) -> Result<(), String> {
        self.0.put(key, value).map_err(|error| error.to_string())
    }

    fn delete(&mut self, key: &T::Key) -> Result<(), String> {
        self.0.delete(key).map_err(|error| error.to_string())
    }
}
