//! Identifiers that are hashes of content.
//!
//! The same content has the same identifier on every run, on every node and after a restart, so
//! tables computed twice are equal and nothing needs to be remembered. Two contents with one hash
//! are told apart by probing in the order of the contents, which depends on the snapshot alone.

use std::collections::{BTreeMap, BTreeSet};

/// Hashes content piece by piece: 64-bit FNV-1a, then MurmurHash3's finalizer to spread the bits.
///
/// Not meant against forgery: a clash costs a probe ([`assign`]) and nothing else.
#[derive(Debug, Clone)]
pub struct ContentHash(u64);

impl ContentHash {
    /// Begins a hash; different `domain`s never share identifiers by construction.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self(0xcbf2_9ce4_8422_2325).part(domain.as_bytes())
    }

    /// Adds a piece; its length is hashed too, so pieces cannot run into each other.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Self {
        for &byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.part(&number.to_le_bytes())
    }

    /// The hash, cut to 32 bits.
    #[must_use]
    pub fn finish(self) -> u32 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        ((hash ^ (hash >> 33)) & u64::from(u32::MAX)) as u32
    }

    /// The hash, never 0: for values in which 0 means "none".
    #[must_use]
    pub fn finish_nonzero(self) -> u32 {
        self.finish().max(1)
    }
}

/// Gives every content an identifier of at least `first` (smaller ones are reserved).
///
/// `hash(content, attempt)` proposes an identifier; attempts count from 0 until one is free.
pub fn assign<K: Ord>(
    contents: BTreeSet<K>,
    first: u32,
    hash: impl Fn(&K, u64) -> u32,
) -> BTreeMap<K, u32> {
    let mut taken = BTreeSet::new();
    let mut ids = BTreeMap::new();
    for content in contents {
        let id = (0..)
            .map(|attempt| hash(&content, attempt))
            .find(|&id| id >= first && taken.insert(id));
        if let Some(id) = id {
            ids.insert(content, id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_run_into_each_other() {
        let hash = |parts: &[&str]| {
            parts
                .iter()
                .fold(ContentHash::new("t"), |hash, part| {
                    hash.part(part.as_bytes())
                })
                .finish()
        };
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["a"]), hash(&["a", ""]));
        assert_ne!(
            ContentHash::new("a").finish(),
            ContentHash::new("b").finish()
        );
    }

    #[test]
    fn identifiers_survive_a_restart() {
        assert_eq!(
            ContentHash::new("class")
                .part(b"app=web")
                .number(7)
                .finish(),
            FIXED
        );
    }

    /// Computed apart from this code, from the definition of the two hash functions.
    const FIXED: u32 = 1_286_343_920;

    #[test]
    fn clashing_and_reserved_identifiers_are_probed_in_order_of_content() {
        let ids = assign(BTreeSet::from(["c", "a", "b"]), 2, |content, attempt| {
            let attempt = u32::try_from(attempt).unwrap();
            if *content == "c" {
                10 + attempt
            } else {
                2 * attempt
            }
        });
        // a: 0, 2 -> 2; b: 0, 2 (taken), 4 -> 4; c: 10.
        assert_eq!(ids, BTreeMap::from([("a", 2), ("b", 4), ("c", 10)]));
    }

    #[test]
    fn many_contents_have_distinct_identifiers() {
        let ids = assign((0..50_000_u64).collect(), 1, |content, attempt| {
            ContentHash::new("n")
                .number(*content)
                .number(attempt)
                .finish()
        });
        assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), 50_000);
    }
}
