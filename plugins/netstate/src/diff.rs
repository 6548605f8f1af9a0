//! What to change so that an actual table equals a wanted one.

use std::collections::{BTreeMap, BTreeSet};

/// The changes from an actual to a wanted table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff<K, V> {
    /// Entries that are missing or hold something else.
    pub puts: BTreeMap<K, V>,
    /// Keys that nobody wants.
    pub deletes: BTreeSet<K>,
}

// === impl Diff ===

impl<K, V> Diff<K, V> {
    /// Whether nothing has to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

/// The least set of puts and deletes that turns `actual` into `wanted`.
#[must_use]
pub fn diff<K: Ord + Clone, V: Eq + Clone>(
    wanted: &BTreeMap<K, V>,
    actual: &BTreeMap<K, V>,
) -> Diff<K, V> {
    let puts = wanted
        .iter()
        .filter(|(key, value)| actual.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let deletes = actual
        .keys()
        .filter(|key| !wanted.contains_key(*key))
        .cloned()
        .collect();
    Diff { puts, deletes }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn applying_the_diff_gives_the_wanted_table(
            wanted in btree_map(0u8..20, 0u8..4, 0..12),
            actual in btree_map(0u8..20, 0u8..4, 0..12),
        ) {
            let change = diff(&wanted, &actual);
            let mut table = actual.clone();
            for key in &change.deletes {
                prop_assert!(table.remove(key).is_some(), "a needless delete");
            }
            for (key, value) in &change.puts {
                prop_assert!(table.insert(*key, *value) != Some(*value), "a needless put");
            }
            prop_assert_eq!(&table, &wanted);
            prop_assert!(diff(&wanted, &table).is_empty());
        }
    }
}
