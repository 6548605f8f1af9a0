//! The generic loop against an in-memory table that records what happened, and in which order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use pretty_assertions::assert_eq;
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use towline_netstate::{Cached, Kept, Report, Target, Wanted, reconcile};

type Log = Rc<RefCell<Vec<String>>>;

#[derive(Default)]
struct Memory {
    name: &'static str,
    rows: BTreeMap<u8, u8>,
    refused: BTreeSet<u8>,
    blind: bool,
    observations: usize,
    log: Log,
}

impl Target for Memory {
    type Key = u8;
    type Value = u8;
    type Error = &'static str;

    fn observe(&mut self) -> Result<BTreeMap<u8, u8>, &'static str> {
        self.observations += 1;
        if self.blind {
            Err("cannot look")
        } else {
            Ok(self.rows.clone())
        }
    }

    fn put(&mut self, key: &u8, value: &u8) -> Result<(), &'static str> {
        if self.refused.contains(key) {
            return Err("table is full");
        }
        self.log
            .borrow_mut()
            .push(format!("put {} {key}", self.name));
        self.rows.insert(*key, *value);
        Ok(())
    }

    fn delete(&mut self, key: &u8) -> Result<(), &'static str> {
        if self.refused.contains(key) {
            return Err("entry is busy");
        }
        self.log
            .borrow_mut()
            .push(format!("delete {} {key}", self.name));
        self.rows.remove(key);
        Ok(())
    }
}

fn memory(name: &'static str, rows: &[(u8, u8)], log: &Log) -> Memory {
    Memory {
        name,
        rows: rows.iter().copied().collect(),
        log: log.clone(),
        ..Memory::default()
    }
}

#[test]
fn puts_go_in_listed_order_and_deletes_in_reverse() {
    let log = Log::default();
    let mut backends = memory("backend", &[(1, 1), (9, 1)], &log);
    let mut services = memory("service", &[(8, 1)], &log);
    let want_backends = BTreeMap::from([(1, 1), (2, 1)]);
    let want_services = BTreeMap::from([(5, 2)]);
    let report = reconcile(&mut [
        &mut Wanted::new("backends", &mut backends, &want_backends),
        &mut Wanted::new("services", &mut services, &want_services),
    ]);
    assert_eq!(
        report,
        Report {
            puts: 2,
            deletes: 2,
            drift: 0,
            errors: vec![]
        }
    );
    assert_eq!(
        *log.borrow(),
        [
            "put backend 2",
            "put service 5",
            "delete service 8",
            "delete backend 9"
        ]
    );
}

#[test]
fn errors_carry_the_key_and_stop_nothing() {
    let log = Log::default();
    let mut first = memory("first", &[(3, 3)], &log);
    first.refused = BTreeSet::from([1, 3]);
    let mut blind = memory("blind", &[(7, 7)], &log);
    blind.blind = true;
    let mut last = memory("last", &[], &log);
    let wanted = BTreeMap::from([(1, 1), (2, 2)]);
    let report = reconcile(&mut [
        &mut Wanted::new("first", &mut first, &wanted),
        &mut Wanted::new("blind", &mut blind, &wanted),
        &mut Wanted::new("last", &mut last, &wanted),
    ]);
    let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "blind: observe : cannot look",
            "first: put 1: table is full",
            "first: delete 3: entry is busy"
        ]
    );
    assert_eq!((report.puts, report.deletes), (3, 0));
    assert_eq!(last.rows, wanted);
    assert_eq!(
        blind.rows,
        BTreeMap::from([(7, 7)]),
        "a table nobody could read was changed"
    );
}

#[test]
fn a_cached_table_is_read_once_until_told_or_failed() {
    let log = Log::default();
    let mut cached = Cached::new(memory("large", &[(1, 1)], &log));
    let wanted = BTreeMap::from([(2, 2)]);
    let pass = |cached: &mut Cached<Memory>, wanted: &BTreeMap<u8, u8>| {
        reconcile(&mut [&mut Wanted::new("large", cached, wanted)])
    };
    assert_eq!(
        pass(&mut cached, &wanted),
        Report {
            puts: 1,
            deletes: 1,
            drift: 0,
            errors: vec![]
        }
    );
    assert!(pass(&mut cached, &wanted).is_quiet());
    assert_eq!(cached.inner().observations, 1);

    cached.inner().rows.clear();
    assert!(
        pass(&mut cached, &wanted).is_quiet(),
        "drift is for the periodic pass to find"
    );
    cached.forget();
    assert_eq!(pass(&mut cached, &wanted).puts, 1);
    assert_eq!(cached.inner().observations, 2);

    cached.inner().refused = BTreeSet::from([3]);
    let more = BTreeMap::from([(2, 2), (3, 3)]);
    assert_eq!(pass(&mut cached, &more).errors.len(), 1);
    cached.inner().refused.clear();
    assert_eq!(pass(&mut cached, &more).puts, 1);
    assert_eq!(
        cached.inner().observations,
        3,
        "a failed change asks for a real look"
    );
}

/// What a table that remembers says of changes that nobody asked for.
fn counts_what_others_change<T>(mut table: T, inner: fn(&mut T) -> &mut Memory, look: fn(&mut T))
where
    T: Target<Key = u8, Value = u8, Error = &'static str>,
{
    let mut pass = |wanted: &[(u8, u8)], change: fn(&mut Memory)| {
        change(inner(&mut table));
        look(&mut table);
        let wanted = wanted.iter().copied().collect();
        let report = reconcile(&mut [&mut Wanted::new("t", &mut table, &wanted)]);
        (report.puts, report.deletes, report.drift)
    };
    let none: fn(&mut Memory) = |_| {};
    assert_eq!(
        pass(&[(1, 1), (2, 2)], none),
        (2, 1, 0),
        "found at the start"
    );
    assert_eq!(pass(&[(1, 1), (2, 2), (3, 3)], none), (1, 0, 0), "wanted");
    let damage: fn(&mut Memory) = |memory| {
        memory.rows = BTreeMap::from([(1, 9), (2, 2), (7, 7)]);
    };
    // At the same time as another change, and beside one that cannot be done.
    let refuse: fn(&mut Memory) = |memory| {
        memory.refused = BTreeSet::from([4]);
    };
    assert_eq!(pass(&[(1, 1), (3, 3), (4, 4)], refuse), (0, 1, 0));
    assert_eq!(pass(&[(1, 1), (2, 2), (3, 3), (4, 4)], damage), (2, 1, 3));
    assert_eq!(pass(&[(1, 1), (2, 2), (3, 3), (4, 4)], none), (0, 0, 0));
    let gone: fn(&mut Memory) = |memory| {
        memory.refused.clear();
        memory.rows.remove(&1);
    };
    assert_eq!(
        pass(&[(2, 2), (3, 3), (4, 4)], gone),
        (1, 0, 0),
        "gone as it should"
    );
}

#[test]
fn what_others_change_is_told_from_what_is_wanted_otherwise() {
    let log = Log::default();
    let kept = Kept::new(memory("kept", &[(9, 9)], &log));
    counts_what_others_change(kept, Kept::inner, |_| {});
    let cached = Cached::new(memory("cached", &[(9, 9)], &log));
    counts_what_others_change(cached, Cached::inner, Cached::forget);
}

#[test]
fn what_we_took_away_ourselves_is_nobodys_change() {
    let log = Log::default();
    let mut kept = Kept::new(memory("kept", &[(1, 1)], &log));
    let wanted = BTreeMap::from([(1, 1)]);
    let pass = |kept: &mut Kept<Memory>| {
        let report = reconcile(&mut [&mut Wanted::new("t", kept, &wanted)]);
        (report.puts, report.drift)
    };
    assert_eq!(pass(&mut kept), (0, 0));
    kept.inner().rows.clear();
    kept.forget();
    assert_eq!(pass(&mut kept), (1, 0));
    kept.inner().rows.clear();
    assert_eq!(pass(&mut kept), (1, 1));
}

proptest! {
    #[test]
    fn a_second_pass_is_quiet_and_failures_are_retried(
        wanted in btree_map(0u8..20, 0u8..4, 0..12),
        actual in btree_map(0u8..20, 0u8..4, 0..12),
        refused in btree_set(0u8..20, 0..4),
    ) {
        let mut table = Memory { rows: actual, refused, ..Memory::default() };
        let first = reconcile(&mut [&mut Wanted::new("t", &mut table, &wanted)]);
        let second = reconcile(&mut [&mut Wanted::new("t", &mut table, &wanted)]);
        prop_assert_eq!(second.errors.len(), first.errors.len());
        prop_assert_eq!((second.puts, second.deletes), (0, 0));
        table.refused.clear();
        let third = reconcile(&mut [&mut Wanted::new("t", &mut table, &wanted)]);
        prop_assert!(third.errors.is_empty());
        prop_assert_eq!(&table.rows, &wanted);
    }
}
