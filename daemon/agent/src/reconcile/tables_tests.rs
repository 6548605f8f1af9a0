//! The services and policy loops over tables in memory: what they hold, in which order, and what
//! is said to be in force.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use desired::cluster::{Cluster, Rule};
use desired::fixture::{cluster, namespace, pod, policy as network_policy, service, slice};
use desired::names::Protocol;
use desired::policy::{PolicyTables, policy as policy_tables};
use desired::services::services as service_tables;
use ebpf_shared::maps::{CONFIG_SERVICES, Config};
use netstate::{IfName, Target};
use pretty_assertions::assert_eq;
use tokio::sync::watch;

use super::policy::{PeerMaps, PolicyLoop, PolicyMaps};
use super::services::{FamilyMaps, ServiceMaps, ServicesLoop};
use super::{Map, Pass, Reconciler};
use crate::endpoint::{InForce, Waiting};
use crate::host::Observer;

/// What was done to any table, in order.
type Log = Arc<Mutex<Vec<String>>>;
/// A table's entries, shared with the test.
type Entries<K, V> = Arc<Mutex<BTreeMap<K, V>>>;

struct Memory<K, V> {
    name: &'static str,
    entries: Entries<K, V>,
    refuse: Arc<Mutex<bool>>,
    log: Log,
}

impl<K: Ord + Clone, V: Eq + Clone> Target for Memory<K, V> {
    type Key = K;
    type Value = V;
    type Error = String;

    fn observe(&mut self) -> Result<BTreeMap<K, V>, String> {
        Ok(self.entries.lock().unwrap().clone())
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), String> {
        if *self.refuse.lock().unwrap() {
            return Err("the map is full".to_owned());
        }
        self.log.lock().unwrap().push(format!("put {}", self.name));
        self.entries
            .lock()
            .unwrap()
            .insert(key.clone(), value.clone());
        Ok(())
    }

    fn delete(&mut self, key: &K) -> Result<(), String> {
        self.log
            .lock()
            .unwrap()
            .push(format!("delete {}", self.name));
        self.entries.lock().unwrap().remove(key);
        Ok(())
    }
}

/// Makes tables that share a log and a switch to refuse.
#[derive(Default)]
struct Bench {
    log: Log,
    refuse_verdicts: Arc<Mutex<bool>>,
}

impl Bench {
    fn table<K, V>(&self, name: &'static str) -> (Map<K, V>, Entries<K, V>)
    where
        K: Ord + Clone + Send + 'static,
        V: Eq + Clone + Send + 'static,
    {
        let entries = Entries::default();
        let refuse = match name {
            "verdict" => self.refuse_verdicts.clone(),
            _ => Arc::default(),
        };
        let log = self.log.clone();
        let memory = Memory {
            name,
            entries: entries.clone(),
            refuse,
            log,
        };
        (Map::new(memory), entries)
    }

    fn map<K, V>(&self, name: &'static str) -> Map<K, V>
    where
        K: Ord + Clone + Send + 'static,
        V: Eq + Clone + Send + 'static,
    {
        self.table(name).0
    }

    /// The log with repetitions of one line made one, and empties it.
    fn steps(&self) -> Vec<String> {
        let mut steps = std::mem::take(&mut *self.log.lock().unwrap());
        steps.dedup();
        steps
    }
}

const CHANGE: Pass = Pass {
    changed: true,
    look: false,
};

/// Leaves the snapshot as it is.
struct Unobserved;

impl Observer for Unobserved {
    fn observed(&mut self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        cluster.clone()
    }
}

fn web(ready: &[&str]) -> Cluster {
    let service = service("web", "10.96.0.10").with_port("http", Protocol::Tcp, 80);
    let slice = slice("web-1", "web").with_port("http", Protocol::Tcp, 8080);
    let slice = ready
        .iter()
        .fold(slice, |slice, address| slice.with_ready(address, "n2"));
    cluster("n1").with_service(service).with_slice(slice)
}

#[test]
fn backends_come_before_frontends_and_go_after_them() {
    let bench = Bench::default();
    let (frontends, in_kernel) = bench.table("frontend");
    let maps = ServiceMaps {
        v4: FamilyMaps {
            backends: bench.map("backend"),
            slots: bench.map("slot"),
            frontends,
        },
        v6: FamilyMaps {
            backends: bench.map("backend"),
            slots: bench.map("slot"),
            frontends: bench.map("frontend"),
        },
        sockets: bench.map("socket-program"),
    };
    let (tables, told) = watch::channel(Arc::default());
    let mut services = ServicesLoop::new(maps, tables);

    let snapshot = Arc::new(web(&["10.244.1.5", "10.244.1.6"]));
    let report = services.pass(&snapshot, CHANGE);
    assert!(report.errors.is_empty());
    assert_eq!(
        bench.steps(),
        [
            "put backend",
            "put slot",
            "put frontend",
            "put socket-program"
        ]
    );
    let wanted = service_tables(&snapshot);
    assert_eq!(*in_kernel.lock().unwrap(), wanted.v4.frontends);
    assert_eq!(**told.borrow(), wanted);
    assert!(services.pass(&snapshot, CHANGE).is_quiet());

    // One endpoint less: new slots, then the switch, then what is left over goes.
    services.pass(&Arc::new(web(&["10.244.1.5"])), CHANGE);
    assert_eq!(
        bench.steps(),
        ["put slot", "put frontend", "delete slot", "delete backend"]
    );

    services.pass(&Arc::new(cluster("n1")), CHANGE);
    assert_eq!(
        bench.steps(),
        ["delete frontend", "delete slot", "delete backend"]
    );
}

struct PolicyBench {
    bench: Bench,
    policy: PolicyLoop,
    attached: Entries<u32, IfName>,
    in_force: watch::Receiver<InForce>,
    tables: watch::Receiver<Arc<PolicyTables>>,
}

impl PolicyBench {
    fn new(enforce: bool) -> Self {
        let bench = Bench::default();
        let (attachments, attached) = bench.table("attachment");
        let maps = PolicyMaps {
            config: bench.map("config"),
            wanted_config: Config {
                flags: CONFIG_SERVICES,
                ..Config::default()
            },
            attachments,
            verdicts: bench.map("verdict"),
            v4: PeerMaps {
                classes: bench.map("class"),
                cidr_classes: bench.map("cidr"),
            },
            v6: PeerMaps {
                classes: bench.map("class"),
                cidr_classes: bench.map("cidr"),
            },
            pods: bench.map("pod"),
            pod_netns: bench.map("pod-netns"),
        };
        let (tables_in, tables) = watch::channel(Arc::default());
        let (in_force_in, in_force) = watch::channel(InForce::default());
        let observer = Box::new(Unobserved);
        let policy = PolicyLoop::new(maps, observer, enforce, tables_in, in_force_in);
        Self {
            bench,
            policy,
            attached,
            in_force,
            tables,
        }
    }
}

/// A pod of this node that accepts only what `default/only-client` allows.
fn guarded() -> Cluster {
    let rules = [Rule::any()
        .pods(&["app=client"])
        .ports(Protocol::Tcp, 80, 80)];
    cluster("n1")
        .with_namespace(namespace("default", &[]))
        .with_local_pod(pod("server", "10.244.0.5", &["app=server"]), 7)
        .with_policy(network_policy("only-client", &["app=server"]).ingress(rules))
}

#[test]
fn a_pod_is_in_force_once_its_entry_is_there_and_the_entry_comes_last() {
    let mut it = PolicyBench::new(true);
    let snapshot = Arc::new(guarded());
    let report = it.policy.pass(&snapshot, CHANGE);
    assert!(report.errors.is_empty());
    let steps = it.bench.steps();
    assert_eq!(steps.first().map(String::as_str), Some("put config"));
    assert_eq!(steps.get(1).map(String::as_str), Some("put attachment"));
    assert_eq!(steps.last().map(String::as_str), Some("put pod"));
    let wanted = policy_tables(&snapshot).unwrap();
    let endpoint = snapshot.local_endpoints.values().next().unwrap();
    assert_eq!(
        it.in_force.borrow().revision(endpoint),
        Some(wanted.revision)
    );
    assert_eq!(**it.tables.borrow(), wanted);
    let attached: Vec<u32> = it.attached.lock().unwrap().keys().copied().collect();
    assert_eq!(attached, [7]);
    assert!(it.policy.pass(&snapshot, CHANGE).is_quiet());
}

#[test]
fn a_pod_whose_object_is_unknown_is_closed_and_waits() {
    let mut it = PolicyBench::new(true);
    let mut snapshot = guarded();
    snapshot.pods.clear();
    let snapshot = Arc::new(snapshot);
    it.policy.pass(&snapshot, CHANGE);
    let steps = it.bench.steps();
    assert!(steps.contains(&"put attachment".to_owned()), "{steps:?}");
    assert!(!steps.contains(&"put pod".to_owned()), "{steps:?}");
    let id = snapshot.local_endpoints.keys().next().unwrap();
    assert_eq!(it.in_force.borrow().waiting.get(id), Some(&Waiting::Pod));
}

#[test]
fn what_the_kernel_refuses_keeps_new_pods_waiting_and_old_ones_in_force() {
    let mut it = PolicyBench::new(true);
    *it.bench.refuse_verdicts.lock().unwrap() = true;
    let snapshot = Arc::new(guarded());
    let id = snapshot.local_endpoints.keys().next().unwrap();
    it.policy.pass(&snapshot, CHANGE);
    let waiting = it
        .in_force
        .borrow()
        .waiting
        .get(id)
        .map(ToString::to_string)
        .unwrap();
    assert!(
        waiting.starts_with("the tables could not be applied: verdict: put"),
        "{waiting}"
    );

    *it.bench.refuse_verdicts.lock().unwrap() = false;
    it.policy.pass(&snapshot, CHANGE);
    let endpoint = snapshot.local_endpoints.values().next().unwrap();
    let revision = it.in_force.borrow().revision(endpoint);
    assert!(revision.is_some());

    *it.bench.refuse_verdicts.lock().unwrap() = true;
    let more = network_policy("more", &["app=server"]).ingress([Rule::any()]);
    it.policy
        .pass(&Arc::new(guarded().with_policy(more)), CHANGE);
    assert_eq!(it.in_force.borrow().revision(endpoint), revision);
}

#[test]
fn with_policy_off_pods_are_open_but_known() {
    let mut it = PolicyBench::new(false);
    let snapshot = Arc::new(guarded());
    it.policy.pass(&snapshot, CHANGE);
    let tables = it.tables.borrow().clone();
    assert!(tables.verdicts.is_empty());
    let flags: Vec<u32> = tables.pods.values().map(|pod| pod.flags).collect();
    assert_eq!(flags, [0]);
}
