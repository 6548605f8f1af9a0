//! PURE: the leases as etcd holds them, brought up to date by lists and events.

use std::collections::BTreeMap;
use std::sync::Arc;

use desired::cluster::Announced;
use desired::lease::acquire::overlap;
use desired::lease::{Attributes, Held, LeaseKey};
use ipnetwork::IpNetwork;

use super::guard;

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

    /// A lease is new or different. What is older than what is known already, as events about
    /// one's own writes are, changes nothing.
    pub(super) fn put(&mut self, pair: &Pair<'_>) {
        let known = self.name(pair.key).parse().ok();
        let known = known.and_then(|key| self.entries.get(&key));
        if known.is_some_and(|known| known.modified > pair.modified) {
            return;
        }
        let announced = known.and_then(|known| known.announced.clone());
        self.put_with(pair, |_| announced);
    }

    /// A lease is gone since `revision`.
    pub(super) fn delete(&mut self, key: &[u8], revision: i64) {
        let name = self.name(key);
        let Ok(key) = name.parse::<LeaseKey>() else {
            self.unreadable.remove(&name);
            return;
        };
        let is_newer = |known: &Entry| known.modified > revision;
        if !self.entries.get(&key).is_some_and(is_newer) {
            self.unreadable.remove(&name);
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

    /// All subnets that are taken.
    pub(super) fn subnets(&self) -> Vec<IpNetwork> {
        self.entries.keys().flat_map(|key| key.subnets()).collect()
    }

    /// Names that are none of a lease.
    fn strange(&self) -> impl Iterator<Item = &String> {
        let names = self.unreadable.keys();
        names.filter(|name| name.parse::<LeaseKey>().is_err())
    }

    /// The subnets of names that are none of a lease but that flannel takes for one.
    pub(super) fn resembled(&self) -> Vec<IpNetwork> {
        let keys = self.strange().filter_map(|name| LeaseKey::resembled(name));
        keys.flat_map(LeaseKey::subnets).collect()
    }

    /// Whether a name that is none of a lease is where no name may be when `key` is created.
    pub(super) fn is_barred(&self, key: LeaseKey) -> bool {
        let mut strange = self.strange().peekable();
        if strange.peek().is_none() {
            return false;
        }
        let guarded = guard::overlapping(key.v4);
        strange.any(|name| guarded.iter().any(|(at, end)| at <= name && name < end))
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

    /// Of the other leases that share addresses with `own`, the one that was made first.
    pub(super) fn overlapping(&self, own: LeaseKey) -> Option<(LeaseKey, &Entry)> {
        let overlaps = |other: &LeaseKey| {
            own.subnets()
                .any(|one| other.subnets().any(|other| overlap(one, other)))
        };
        let others = self
            .entries
            .iter()
            .filter(|(key, _)| **key != own && overlaps(key));
        let first = others.min_by_key(|(_, entry)| entry.created);
        first.map(|(key, entry)| (*key, entry))
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
        table.delete(b"/p/subnets/10.5.1.0-24", 7);
        table.delete(b"/p/subnets/notes", 8);
        assert_eq!(names(&table), ["10.5.2.0-24"]);
        assert_eq!(table.unreadable().len(), 1);
    }

    #[test]
    fn events_older_than_what_is_known_change_nothing() {
        let mut table = Table::new("/p/subnets/".to_owned());
        let mine = br#"{"PublicIP":"192.0.2.9","BackendType":"host-gw"}"#;
        let key = "/p/subnets/10.5.1.0-24";
        table.put(&pair(key, mine, 9));
        let known = table.clone();
        table.put(&pair(key, GOOD, 7));
        table.delete(key.as_bytes(), 8);
        assert_eq!(table, known);
        table.delete(key.as_bytes(), 10);
        assert_eq!(names(&table), [""; 0]);
    }

    #[test]
    fn a_value_that_went_bad_keeps_what_was_understood_even_in_a_new_list() {
        let mut table = Table::new("/p/subnets/".to_owned());
        table.put(&pair("/p/subnets/10.5.1.0-24", GOOD, 1));
        table.reset([pair("/p/subnets/10.5.1.0-24", b"junk", 6)].into_iter());
        assert_eq!(names(&table), ["10.5.1.0-24"]);
        assert_eq!(table.unreadable().len(), 1);
    }

    #[test]
    fn names_that_are_no_leases_are_in_the_way_where_they_are() {
        let mut table = Table::new("/p/subnets/".to_owned());
        table.put(&pair("/p/subnets/10.5.1.0-24", GOOD, 1));
        table.put(&pair("/p/subnets/10.5.9.0-24", b"junk", 2));
        table.put(&pair("/p/subnets/notes", b"x", 5));
        assert_eq!(table.resembled(), []);
        assert!(!table.is_barred("10.5.9.0-24".parse().unwrap()));
        for (name, subnets, barred, free) in [
            ("10.5.3.7-24", "10.5.3.0/24", "10.5.3.0-24", "10.5.4.0-24"),
            ("10.5.3.7-22", "10.5.0.0/22", "10.5.3.0-24", "10.5.1.0-24"),
            ("10.5.3.0-24.bak", "", "10.5.3.0-24", "10.5.4.0-24"),
            ("10.5.3.0.bak", "", "10.5.3.0-24", "10.5.4.0-24"),
            (
                "10.5.3.0-24&junk",
                "10.5.3.0/24",
                "10.5.3.128-26",
                "10.5.4.0-24",
            ),
        ] {
            let name = format!("/p/subnets/{name}");
            table.put(&pair(&name, GOOD, 3));
            let found: Vec<String> = table.resembled().iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), subnets, "{name}");
            assert!(table.is_barred(barred.parse().unwrap()), "{name}");
            assert!(!table.is_barred(free.parse().unwrap()), "{name}");
            table.delete(name.as_bytes(), 4);
            assert!(!table.is_barred(barred.parse().unwrap()), "{name} is gone");
        }
    }

    #[test]
    fn of_leases_that_overlap_the_first_is_found() {
        let mut table = Table::new("/p/subnets/".to_owned());
        let pairs = [
            pair("/p/subnets/10.5.0.0-22", GOOD, 6),
            pair("/p/subnets/10.5.1.0-24", GOOD, 5),
            pair("/p/subnets/10.5.9.0-24&fc00:5::-64", GOOD, 7),
            pair("/p/subnets/10.5.8.0-24&fc00:5::-64", GOOD, 8),
            pair("/p/subnets/10.5.2.0-24", GOOD, 9),
        ];
        table.reset(pairs.into_iter());
        let overlapping = |key: &str| {
            let found = table.overlapping(key.parse().unwrap());
            found.map(|(key, entry)| (key.to_string(), entry.created))
        };
        let found = |key: &str, created| Some((key.to_owned(), created));
        assert_eq!(overlapping("10.5.0.0-22"), found("10.5.1.0-24", 5));
        assert_eq!(overlapping("10.5.1.0-24"), found("10.5.0.0-22", 6));
        assert_eq!(
            overlapping("10.5.8.0-24&fc00:5::-64"),
            found("10.5.9.0-24&fc00:5::-64", 7)
        );
        assert_eq!(overlapping("10.5.10.0-24"), None);
    }
}
