use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use desired::cluster::{
    Cluster, EndpointSlice, Namespace, NetworkPolicy, Node, Pod, Service, ThisNode,
};
use netstate::{Cached, Report, Target, Wanted, reconcile};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::board::{Board, LoopStatus};
use crate::metrics::Metrics;
use crate::store::{Change, Store, Stored};

/// A kernel table that the test can look into, edit and make refuse.
#[derive(Clone, Default)]
struct FakeTable {
    entries: Arc<Mutex<BTreeMap<String, u32>>>,
    refused: Arc<Mutex<BTreeSet<String>>>,
    looks: Arc<Mutex<u32>>,
}

impl Target for FakeTable {
    type Key = String;
    type Value = u32;
    type Error = String;

    fn observe(&mut self) -> Result<BTreeMap<String, u32>, String> {
        *self.looks.lock().unwrap() += 1;
        Ok(self.entries.lock().unwrap().clone())
    }

    fn put(&mut self, key: &String, value: &u32) -> Result<(), String> {
        if self.refused.lock().unwrap().contains(key) {
            return Err("refused".to_owned());
        }
        self.entries.lock().unwrap().insert(key.clone(), *value);
        Ok(())
    }

    fn delete(&mut self, key: &String) -> Result<(), String> {
        self.entries.lock().unwrap().remove(key);
        Ok(())
    }
}

/// Wants one entry per node: its name and how many pod prefixes it has.
struct NodeNames {
    table: Cached<FakeTable>,
    /// Whether each pass's snapshot was complete.
    completeness: Arc<Mutex<Vec<bool>>>,
}

impl Reconciler for NodeNames {
    fn name(&self) -> &'static str {
        "node-names"
    }

    fn concerned_by(before: &Cluster, now: &Cluster) -> bool {
        before.nodes != now.nodes
    }

    fn pass(&mut self, cluster: &Arc<Cluster>, pass: Pass) -> Report {
        if pass.look {
            self.table.forget();
        }
        self.completeness.lock().unwrap().push(cluster.complete);
        let wanted = cluster
            .nodes
            .values()
            .map(|n| (n.name.to_string(), n.pod_cidrs.len() as u32));
        let wanted = wanted.collect();
        reconcile(&mut [&mut Wanted::new("names", &mut self.table, &wanted)])
    }
}

struct Harness {
    store: Arc<Store>,
    table: FakeTable,
    completeness: Arc<Mutex<Vec<bool>>>,
    board: Arc<Board>,
    stop: CancellationToken,
}

impl Harness {
    fn start(resync: Duration) -> Self {
        let this_node = ThisNode {
            name: "n1".parse().unwrap(),
            addresses: BTreeSet::new(),
        };
        let store = Arc::new(Store::new(Cluster::new(this_node, Vec::new())));
        let board = Arc::new(Board::new(vec!["node-names"], Arc::new(Metrics::default())));
        let table = FakeTable::default();
        let stop = CancellationToken::new();
        let completeness = Arc::new(Mutex::new(Vec::new()));
        let reconciler = NodeNames {
            table: Cached::new(table.clone()),
            completeness: completeness.clone(),
        };
        tokio::spawn(run(
            reconciler,
            store.subscribe(),
            resync,
            board.clone(),
            stop.clone(),
            None,
        ));
        Self {
            store,
            table,
            completeness,
            board,
            stop,
        }
    }

    fn complete_with(&self, names: &[&str]) {
        fn reset<T: Stored>(store: &Store, objects: Vec<T>) {
            store.change(vec![Change::Reset {
                objects,
                keep: BTreeSet::new(),
            }]);
        }
        reset::<Namespace>(&self.store, vec![]);
        reset::<Pod>(&self.store, vec![]);
        reset::<Service>(&self.store, vec![]);
        reset::<EndpointSlice>(&self.store, vec![]);
        reset::<NetworkPolicy>(&self.store, vec![]);
        reset(
            &self.store,
            names
                .iter()
                .map(|name| Node::new(name.parse().unwrap()))
                .collect(),
        );
    }

    fn status(&self) -> LoopStatus {
        self.board.loops().remove("node-names").unwrap_or_default()
    }

    /// Waits until the table holds exactly `names`.
    async fn holds(&self, names: &[&str]) {
        let wanted: Vec<String> = names.iter().map(ToString::to_string).collect();
        eventually(|| {
            self.table
                .entries
                .lock()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                == wanted
        })
        .await;
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), poll)
        .await
        .expect("the condition within 10 s");
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn nothing_is_deleted_before_the_first_complete_snapshot() {
    let harness = Harness::start(Duration::from_millis(20));
    harness
        .table
        .entries
        .lock()
        .unwrap()
        .insert("left-by-a-predecessor".to_owned(), 0);
    harness
        .store
        .change(vec![Change::Apply(Node::new("a".parse().unwrap()))]);
    harness.complete_with(&["a"]);
    harness.holds(&["a"]).await;
    eventually(|| harness.status().passes > 2).await;
    assert!(
        harness
            .completeness
            .lock()
            .unwrap()
            .iter()
            .all(|complete| *complete)
    );
}

#[tokio::test]
async fn a_change_is_applied_without_observing_anew() {
    let harness = Harness::start(LONG);
    harness.complete_with(&["a", "b"]);
    harness.holds(&["a", "b"]).await;
    harness.store.change(vec![
        Change::Apply(Node::new("c".parse().unwrap())),
        Change::Delete("a".parse().unwrap()),
    ]);
    harness.holds(&["b", "c"]).await;
    assert_eq!(*harness.table.looks.lock().unwrap(), 1);
    eventually(|| harness.status().deletes == 1).await;
    assert_eq!(harness.status().puts, 3);
}

#[tokio::test]
async fn drift_is_repaired_by_the_periodic_pass_and_counted() {
    let harness = Harness::start(Duration::from_millis(20));
    harness.complete_with(&["a", "b"]);
    harness.holds(&["a", "b"]).await;
    eventually(|| harness.status().passes > 1).await;
    assert_eq!(harness.status().drift_repaired, 0);
    {
        let mut entries = harness.table.entries.lock().unwrap();
        entries.remove("a");
        entries.insert("stranger".to_owned(), 9);
    }
    harness.holds(&["a", "b"]).await;
    eventually(|| harness.status().drift_repaired == 2).await;
}

#[tokio::test]
async fn what_is_refused_is_reported_tried_again_and_stops_nothing_else() {
    let harness = Harness::start(LONG);
    harness.table.refused.lock().unwrap().insert("a".to_owned());
    harness.complete_with(&["a", "b"]);
    harness.holds(&["b"]).await;
    eventually(|| !harness.status().errors.is_empty()).await;
    assert_eq!(harness.status().errors, ["names: put \"a\": refused"]);
    let refused = vec!["names: put \"a\": refused".to_owned()];
    let last = harness.board.last_passes();
    assert_eq!(last, [("node-names", Some(refused))]);
    harness.table.refused.lock().unwrap().clear();
    harness.holds(&["a", "b"]).await;
    eventually(|| harness.status().errors.is_empty()).await;
    let last = harness.board.last_passes();
    assert_eq!(last, [("node-names", Some(vec![]))]);
    assert_eq!(harness.status().drift_repaired, 0);
}

#[tokio::test]
async fn a_change_of_something_else_costs_no_pass() {
    let harness = Harness::start(LONG);
    harness.complete_with(&["a"]);
    harness.holds(&["a"]).await;
    eventually(|| harness.status().passes == 1).await;
    let other = Service::new("default/other".parse().unwrap());
    harness.store.change(vec![Change::Apply(other)]);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    harness
        .store
        .change(vec![Change::Apply(Node::new("b".parse().unwrap()))]);
    harness.holds(&["a", "b"]).await;
    eventually(|| harness.status().passes == 2).await;
}

#[tokio::test]
async fn drift_beside_what_is_refused_or_changed_is_counted() {
    let harness = Harness::start(Duration::from_millis(20));
    harness.table.refused.lock().unwrap().insert("a".to_owned());
    harness.complete_with(&["a", "b"]);
    harness.holds(&["b"]).await;
    eventually(|| !harness.status().errors.is_empty()).await;
    harness.table.entries.lock().unwrap().remove("b");
    harness.holds(&["b"]).await;
    eventually(|| harness.status().drift_repaired == 1).await;
}

struct Panics;

impl Reconciler for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn pass(&mut self, _: &Arc<Cluster>, _: Pass) -> Report {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_panic_ends_the_loop_with_an_error() {
    let harness = Harness::start(LONG);
    harness.complete_with(&[]);
    let ended = run(
        Panics,
        harness.store.subscribe(),
        LONG,
        harness.board.clone(),
        harness.stop.clone(),
        None,
    );
    let error = ended.await.unwrap_err().to_string();
    assert!(
        error.starts_with("the panics loop ended in a panic"),
        "{error}"
    );
}
