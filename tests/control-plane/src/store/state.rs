//! Objects and recent events in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Event, EventKind, Key, ObjectName, Snapshot, Stored, WatchError};

/// Everything readers see.
#[derive(Debug)]
pub(crate) struct State {
    /// Revision of the last applied commit.
    pub(crate) revision: u64,
    /// No commit follows: the store was dropped or its log failed.
    pub(crate) closed: bool,
    /// Revision below which no table can have history (that of the snapshot).
    floor: u64,
    history: usize,
    history_age: Duration,
    tables: HashMap<Arc<str>, Table>,
}

/// Objects of one resource.
#[derive(Debug)]
pub(crate) struct Table {
    objects: BTreeMap<ObjectName, Arc<Stored>>,
    /// Recent events in revision order; all events above `floor` are here.
    ring: VecDeque<Arc<Event>>,
    floor: u64,
    changed: watch::Sender<u64>,
}

impl State {
    pub(crate) fn new(history: usize, history_age: Duration) -> Self {
        // Clients take 0 for "any revision", so the first is 1 and an empty list has it.
        let tables = HashMap::new();
        Self {
            revision: 1,
            closed: false,
            floor: 1,
            history,
            history_age,
            tables,
        }
    }

    /// Loads an object of a snapshot; no event.
    pub(crate) fn load(&mut self, object: Arc<Stored>) {
        let table = self.table(&object.key.resource.clone());
        table.objects.insert(object.key.object.clone(), object);
    }

    /// Ends loading: history begins at `revision`.
    pub(crate) fn loaded(&mut self, revision: u64) {
        self.revision = revision;
        self.floor = revision;
        for table in self.tables.values_mut() {
            table.floor = revision;
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.tables.get(&key.resource)?.objects.get(&key.object)
    }

    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> Snapshot {
        let table = self.tables.get(resource);
        let objects = table.map_or_else(Vec::new, |table| select(&table.objects, namespace));
        Snapshot {
            revision: self.revision,
            objects,
        }
    }

    pub(crate) fn count(&self, resource: &str, namespace: Option<&str>) -> usize {
        let Some(table) = self.tables.get(resource) else {
            return 0;
        };
        match namespace {
            None => table.objects.len(),
            Some(namespace) => in_namespace(&table.objects, namespace).count(),
        }
    }

    /// Takes back, newest first, what happened after `revision`.
    pub(crate) fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Snapshot, WatchError> {
        let Some(table) = self.tables.get(resource) else {
            return Ok(Snapshot {
                revision,
                objects: Vec::new(),
            });
        };
        if revision < table.floor {
            return Err(WatchError::Expired {
                asked: revision,
                oldest: table.floor,
            });
        }
        let mut past: BTreeMap<&ObjectName, Option<&Arc<Stored>>> = BTreeMap::new();
        for event in table.since(revision).rev() {
            past.insert(&event.object.key.object, event.previous.as_ref());
        }
        let mut objects = table.objects.clone();
        for (name, previous) in past {
            match previous {
                Some(object) => objects.insert(name.clone(), object.clone()),
                None => objects.remove(name),
            };
        }
        Ok(Snapshot {
            revision,
            objects: select(&objects, namespace),
        })
    }

    /// Makes a commit visible. `deleted` says that `object` is a last version.
    pub(crate) fn apply(&mut self, object: Arc<Stored>, deleted: bool) {
        self.revision = object.revision;
        let (history, age) = (self.history, self.history_age);
        let table = self.table(&object.key.resource.clone());
        let name = object.key.object.clone();
        let previous = if deleted {
            table.objects.remove(&name)
        } else {
            table.objects.insert(name, object.clone())
        };
        let kind = match (deleted, &previous) {
            (true, _) => EventKind::Deleted,
            (false, None) => EventKind::Added,
            (false, Some(_)) => EventKind::Modified,
        };
        table
            .ring
            .push_back(Arc::new(Event::new(kind, object, previous)));
        table.trim(history, age);
    }

    /// Wakes the watchers of a resource.
    pub(crate) fn wake(&self, resource: &str) {
        if let Some(table) = self.tables.get(resource) {
            table.changed.send_replace(self.revision);
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for table in self.tables.values() {
            table.changed.send_replace(self.revision);
        }
    }

    pub(crate) fn compact(&mut self) {
        self.floor = self.revision;
        for table in self.tables.values_mut() {
            table.ring.clear();
            table.floor = self.revision;
        }
    }

    /// All objects, for a snapshot.
    pub(crate) fn all(&self) -> Vec<Arc<Stored>> {
        self.tables
            .values()
            .flat_map(|table| table.objects.values().cloned())
            .collect()
    }

    /// A subscription to changes of a resource.
    pub(crate) fn subscribe(&mut self, resource: &Arc<str>) -> watch::Receiver<u64> {
        self.table(resource).changed.subscribe()
    }

    /// Events after `revision`.
    pub(crate) fn events(
        &self,
        resource: &str,
        revision: u64,
    ) -> Result<Vec<Arc<Event>>, WatchError> {
        let Some(table) = self.tables.get(resource) else {
            return Ok(Vec::new());
        };
        if revision < table.floor {
            return Err(WatchError::Expired {
                asked: revision,
                oldest: table.floor,
            });
        }
        Ok(table.since(revision).cloned().collect())
    }

    fn table(&mut self, resource: &Arc<str>) -> &mut Table {
        let floor = self.floor;
        self.tables
            .entry(resource.clone())
            .or_insert_with(|| Table {
                objects: BTreeMap::new(),
                ring: VecDeque::new(),
                floor,
                changed: watch::Sender::new(0),
            })
    }
}

impl Table {
    fn since(&self, revision: u64) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let from = self
            .ring
            .partition_point(|event| event.revision() <= revision);
        self.ring.range(from..)
    }

    fn trim(&mut self, history: usize, age: Duration) {
        let now = Instant::now();
        while let Some(first) = self.ring.front() {
            if self.ring.len() <= history && now.duration_since(first.at()) <= age {
                return;
            }
            self.floor = first.revision();
            self.ring.pop_front();
        }
    }
}

fn in_namespace<'a>(
    objects: &'a BTreeMap<ObjectName, Arc<Stored>>,
    namespace: &str,
) -> impl Iterator<Item = &'a Arc<Stored>> {
    let first = ObjectName {
        namespace: namespace.to_owned(),
        name: String::new(),
    };
    let namespace = first.namespace.clone();
    objects
        .range((Bound::Included(first), Bound::Unbounded))
        .take_while(move |(name, _)| name.namespace == namespace)
        .map(|(_, object)| object)
}

fn select(
    objects: &BTreeMap<ObjectName, Arc<Stored>>,
    namespace: Option<&str>,
) -> Vec<Arc<Stored>> {
    match namespace {
        None => objects.values().cloned().collect(),
        Some(namespace) => in_namespace(objects, namespace).cloned().collect(),
    }
}
