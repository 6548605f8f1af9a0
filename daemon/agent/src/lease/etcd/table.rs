//! PURE: the leases as etcd holds them, brought up to date by lists and events.

use std::collections::BTreeMap;
use std::sync::Arc;

use desired::cluster::Announced;
use desired::lease::{Attributes, Held, LeaseKey};
use ipnetwork::IpNetwork;

/// A key and its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pair<'a> {
    /// The whole key.
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    /// Revision of its creation and of its last change.
    pub(super) created: i64,
    pub(super) modified: i64,
    /// The etcd lease it expires with; 0 for a reservation, which does not expire.
    pub(super) etcd_lease: i64,
}

/// What is known of a lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    /// The value, if it can be read.
    pub(super) attributes: Option<Attributes>,
    /// How its node is reached: by the last value that could be understood.
    announced: Option<Arc<Announced>>,
    pub(super) created: i64,
    pub(super) modified: i64,
    pub(super) etcd_lease: i64,
}

/// All leases.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Table {
    prefix: String,
    entries: BTreeMap<LeaseKey, Entry>,
    /// What cannot be read, and why, by name.
    unreadable: BTreeMap<String, String>,
}

// === impl Table ===

impl Table {
    /// No leases yet; all keys begin with `prefix`.
    pub(super) fn new(prefix: String) -> Self {
        Self {
            prefix,
            ..Self::default()
        }
    }

    /// These are all there are. What was understood of a lease before stays if its value cannot be
    /// understood any more: one bad value must not cost its node the connection.
    pub(super) fn reset<'a>(&mut self, pairs: impl Iterator<Item = Pair<'a>>) {
        let before = std::mem::take(&mut self.entries);
        self.unreadable.clear();
        for pair in pairs {
            self.put_with(&pair, |key| before.get(&key)?.announced.clone());
        }
    }

    /// A lease is new or different.
    pub(super) fn put(&mut self, pair: &Pair<'_>) {
        let known = self.name(pair.key).parse().ok();
        let known = known.and_then(|key| self.entries.get(&key)?.announced.clone());
        self.put_with(pair, |_| known);
    }

    /// A lease is gone.
    pub(super) fn delete(&mut self, key: &[u8]) {
        let name = self.name(key);
        self.unreadable.remove(&name);
        if let Ok(key) = name.parse::<LeaseKey>() {
            self.entries.remove(&key);
        }
    }

    fn put_with(
        &mut self,
        pair: &Pair<'_>,
        known: impl FnOnce(LeaseKey) -> Option<Arc<Announced>>,
    ) {
        let name = self.name(pair.key);
        let key: LeaseKey = match name.parse() {
            Ok(key) => key,
            Err(error) => {
                let error: desired::lease::key::KeyError = error;
                self.unreadable.insert(name, error.to_string());
                return;
            }
        };
        let attributes = Attributes::decode(pair.value).map_err(|error| error.to_string());
        let announced = attributes
            .clone()
            .and_then(|attributes| Announced::of(&attributes).map_err(|error| error.to_string()));
        let announced = match announced {
            Ok(announced) => {
                self.unreadable.remove(&name);
                Some(Arc::new(announced))
            }
            Err(error) => {
                self.unreadable
                    .insert(name.clone(), format!("{name}: {error}"));
                known(key)
            }
        };
        let entry = Entry {
            attributes: attributes.ok(),
            announced,
            created: pair.created,
            modified: pair.modified,
            etcd_lease: pair.etcd_lease,
        };
        self.entries.insert(key, entry);
    }

    fn name(&self, key: &[u8]) -> String {
        let text = String::from_utf8_lossy(key);
        text.strip_prefix(&self.prefix).unwrap_or(&text).to_owned()
    }

    pub(super) fn get(&self, key: LeaseKey) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// As decisions need it.
    pub(super) fn held(&self) -> Vec<Held> {
        let held = self.entries.iter().map(|(key, entry)| Held {
            key: *key,
            attributes: entry.attributes.clone(),
            revision: entry.modified,
        });
        held.collect()
    }

    /// As the snapshot has it.
    pub(super) fn announced(&self) -> BTreeMap<LeaseKey, Arc<Announced>> {
        let entries = self.entries.iter();
        let known = entries.filter_map(|(key, entry)| Some((*key, entry.announced.clone()?)));
        known.collect()
    }

    /// What cannot be read.
    pub(super) fn unreadable(&self) -> Vec<String> {
        self.unreadable.values().cloned().collect()
    }

    /// The lease made before `own` that shares addresses with it: `own` has to give way.
    pub(super) fn overlapped_by(&self, own: LeaseKey, created: i64) -> Option<LeaseKey> {
        let overlaps = |other: &LeaseKey| {
            own.subnets().any(|one| {
                let same = |other: &IpNetwork| {
                    one.is_ipv4() == other.is_ipv4()
                        && (one.contains(other.network()) || other.contains(one.network()))
                };
                other.subnets().any(|other| same(&other))
            })
        };
        let others = self.entries.iter().filter(|(key, _)| **key != own);
        let earlier = others.filter(|(_, entry)| entry.created < created);
        earlier.map(|(key, _)| *key).find(|key| overlaps(key))
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    const GOOD: &[u8] = br#"{"PublicIP":"192.0.2.2","BackendType":"host-gw"}"#;

    fn pair<'a>(key: &'a str, value: &'a [u8], revision: i64) -> Pair<'a> {
        Pair {
            key: key.as_bytes(),
            value,
            created: revision,
            modified: revision,
            etcd_lease: 7,
        }
    }

    fn names(table: &Table) -> Vec<String> {
        table.announced().keys().map(ToString::to_string).collect()
    }

    #[test]
    fn junk_harms_nobody_but_itself() {
        let mut table = Table::new("/p/subnets/".to_owned());
        let pairs = [
            pair("/p/subnets/10.5.1.0-24", GOOD, 1),
            pair("/p/subnets/10.5.2.0-24", b"{", 2),
            pair("/p/subnets/notes", b"x", 3),
            pair("/p/subnets/10.5.3.0-24", b"\xff\xfe", 4),
        ];
        table.reset(pairs.into_iter());
        assert_eq!(names(&table), ["10.5.1.0-24"]);
        assert_eq!(
            table.held().len(),
            3,
            "an unreadable lease takes its subnet"
        );
        assert_eq!(table.unreadable().len(), 3);

        table.put(&pair("/p/subnets/10.5.2.0-24", GOOD, 5));
        table.put(&pair("/p/subnets/10.5.1.0-24", b"junk", 6));
        assert_eq!(names(&table), ["10.5.1.0-24", "10.5.2.0-24"]);
        table.delete(b"/p/subnets/10.5.1.0-24");
        table.delete(b"/p/subnets/notes");
        assert_eq!(names(&table), ["10.5.2.0-24"]);
        assert_eq!(table.unreadable().len(), 1);
    }

    #[test]
    fn of_two_that_overlap_the_later_one_gives_way() {
        let mut table = Table::new("/p/subnets/".to_owned());
        let pairs = [
            pair("/p/subnets/10.5.0.0-22", GOOD, 5),
            pair("/p/subnets/10.5.1.0-24", GOOD, 6),
            pair("/p/subnets/10.5.9.0-24&fc00:5::-64", GOOD, 7),
            pair("/p/subnets/10.5.8.0-24&fc00:5::-64", GOOD, 8),
        ];
        table.reset(pairs.into_iter());
        let overlapped = |key: &str, created| {
            let found = table.overlapped_by(key.parse().unwrap(), created);
            found.map(|key| key.to_string())
        };
        assert_eq!(overlapped("10.5.0.0-22", 5), None);
        assert_eq!(overlapped("10.5.1.0-24", 6).as_deref(), Some("10.5.0.0-22"));
        assert_eq!(
            overlapped("10.5.8.0-24&fc00:5::-64", 8).as_deref(),
            Some("10.5.9.0-24&fc00:5::-64")
        );
    }
}
