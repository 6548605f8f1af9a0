//! From one set of policy tables to the next without a wrong drop in between.
//!
//! Tables are written one entry after the other: verdicts, then classes, then pods; what nobody
//! wants goes last. On the way a pod may still have its old policy set while a peer has its new
//! class, or the other way round for a peer whose own entry goes away. Neither pair is in either
//! of the tables, and a missing verdict denies. [`bridge`] makes the missing ones.

use std::collections::{BTreeMap, BTreeSet};

use ebpf_shared::policy::{CLASS_NODE, CLASS_WORLD, VerdictKey, VerdictValue};

use crate::family::TableAddress;
use crate::policy::{PeerTables, PolicyTables};

/// Verdicts to put beside those of `next` while the tables change over from `previous`, so that
/// every new flow is judged by the old rules or by the new ones. Empty when nothing changes
/// classes.
///
/// A peer that moves to a class which the other tables know already is judged as one of that class.
/// Where peers of different old classes come into one new class, the old rules may not have agreed
/// on them; then there is no verdict, which denies for that moment.
#[must_use]
pub fn bridge(previous: &PolicyTables, next: &PolicyTables) -> BTreeMap<VerdictKey, VerdictValue> {
    let mut verdicts = BTreeMap::new();
    // Old sets meet new classes once the classes are written.
    let mut renamed = classes_at(next, previous);
    let known = classes_in(previous);
    renamed.retain(|class, _| !known.contains(class));
    copy_verdicts(previous, &renamed, &mut verdicts);
    // New sets meet old classes of peers whose entries are still to be removed.
    let mut leaving = classes_at(previous, next);
    let known = classes_in(next);
    leaving.retain(|class, _| !known.contains(class));
    copy_verdicts(next, &leaving, &mut verdicts);
    verdicts
}

/// The classes about which tables say all there is to say: their verdicts must be left alone.
fn classes_in(tables: &PolicyTables) -> BTreeSet<u32> {
    let v4 = tables
        .v4
        .classes
        .values()
        .chain(tables.v4.cidr_classes.values());
    let v6 = tables
        .v6
        .classes
        .values()
        .chain(tables.v6.cidr_classes.values());
    v4.chain(v6)
        .map(|value| value.class)
        .chain([CLASS_WORLD, CLASS_NODE])
        .collect()
}

/// For each class in `at` the classes that its members have in `other`.
fn classes_at(at: &PolicyTables, other: &PolicyTables) -> BTreeMap<u32, BTreeSet<u32>> {
    let mut classes = BTreeMap::new();
    add_classes(&at.v4, other, &mut classes);
    add_classes(&at.v6, other, &mut classes);
    classes
}

fn add_classes<A: TableAddress>(
    tables: &PeerTables<A>,
    other: &PolicyTables,
    classes: &mut BTreeMap<u32, BTreeSet<u32>>,
) {
    let mut add = |class: u32, elsewhere: u32| {
        classes.entry(class).or_default().insert(elsewhere);
    };
    for (key, value) in &tables.classes {
        add(value.class, other.class(key.addr.to_ip()));
    }
    for (key, value) in &tables.cidr_classes {
        let length = u8::try_from(key.prefix).unwrap_or(u8::MAX);
        add(value.class, other.prefix_class(key.addr.to_ip(), length));
    }
}

/// Repeats the verdicts of `from` under the classes of `names`.
fn copy_verdicts(
    from: &PolicyTables,
    names: &BTreeMap<u32, BTreeSet<u32>>,
    verdicts: &mut BTreeMap<VerdictKey, VerdictValue>,
) {
    let sets: BTreeSet<_> = from
        .verdicts
        .keys()
        .map(|key| (key.policy_set, key.direction))
        .collect();
    for (&class, others) in names {
        for &(policy_set, direction) in &sets {
            let key = |class| VerdictKey {
                policy_set,
                class,
                direction,
                pad: [0; 3],
            };
            let mut found = others.iter().map(|&other| from.verdicts.get(&key(other)));
            let Some(Some(first)) = found.next() else {
                continue;
            };
            if found.all(|other| other == Some(first)) {
                verdicts.insert(key(class), *first);
            }
        }
    }
}
