use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use desired::cluster::{
    Cluster, EndpointSlice, Namespace, NetworkPolicy, Node, Pod, Service, ThisNode,
};
use netstate::IfName;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http_client::request;
use crate::metrics::Metrics;
use crate::server::{bind_socket, serve_socket};
use crate::store::{Change, Store, Stored};

/// A daemon with a real socket, and a data path that says "in force" when the test says so.
struct Lab {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    devices: Arc<Mutex<BTreeMap<String, u32>>>,
    in_force: watch::Sender<InForce>,
    endpoints: Arc<Endpoints>,
    stop: CancellationToken,
}

impl Lab {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder)
    }

    fn start_in(folder: tempfile::TempDir) -> Self {
        let this_node = ThisNode {
            name: "n1".parse().unwrap(),
            addresses: BTreeSet::new(),
        };
        let store = Arc::new(Store::new(Cluster::new(this_node, Vec::new())));
        let devices = Arc::new(Mutex::new(BTreeMap::from([("veth1".to_owned(), 7)])));
        let (in_force, seen) = watch::channel(InForce::default());
        let looked_up = devices.clone();
        let ifindex_of = move |name: &IfName| looked_up.lock().unwrap().get(name.as_str()).copied();
        let endpoints = Arc::new(Endpoints::new(
            store.clone(),
            Registry::open(folder.path()).unwrap(),
            Some(seen),
            ifindex_of,
            Arc::new(Metrics::default()),
        ));
        let stop = CancellationToken::new();
        let listener = bind_socket(&folder.path().join("towlined.sock")).unwrap();
        tokio::spawn(serve_socket(
            listener,
            router(endpoints.clone()),
            stop.clone(),
        ));
        Self {
            folder,
            store,
            devices,
            in_force,
            endpoints,
            stop,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("towlined.sock")
    }

    fn complete(&self) {
        fn empty<T: Stored>(store: &Store) {
            store.change(vec![Change::<T>::Reset {
                objects: vec![],
                keep: BTreeSet::new(),
            }]);
        }
        empty::<Node>(&self.store);
        empty::<Namespace>(&self.store);
        empty::<Pod>(&self.store);
        empty::<Service>(&self.store);
        empty::<EndpointSlice>(&self.store);
        empty::<NetworkPolicy>(&self.store);
    }

    /// Plays the policy loop: everything registered is in force at `revision`.
    fn enforce_all(&self, revision: u32) {
        let snapshot = self.store.snapshot();
        let ready = snapshot.local_endpoints.iter();
        let ready = ready
            .map(|(id, endpoint)| (id.clone(), (endpoint.clone(), revision)))
            .collect();
        self.in_force.send_replace(InForce {
            ready,
            waiting: BTreeMap::new(),
        });
    }

    async fn registered(&self, count: usize) {
        let mut snapshots = self.store.subscribe();
        snapshots
            .wait_for(|cluster| cluster.local_endpoints.len() == count)
            .await
            .unwrap();
    }

    async fn put(&self, id: &str, body: Value) -> (u16, Value) {
        put(&self.socket(), id, body).await
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn put(socket: &Path, id: &str, body: Value) -> (u16, Value) {
    request(
        socket,
        "PUT",
        &format!("/v1/endpoints/{id}"),
        &body.to_string(),
    )
    .await
}

fn body() -> Value {
    json!({
        "podNamespace": "default",
        "podName": "a",
        "podUID": "u-1",
        "hostInterface": "veth1",
        "addresses": ["10.244.1.5/32"],
        "netns": "/run/netns/x",
        "netnsCookie": 123,
        "policyTimeoutSeconds": 10,
    })
}

#[tokio::test]
async fn before_all_lists_are_in_the_answer_is_try_again() {
    let lab = Lab::start();
    let (status, answer) = lab.put("c1/eth0", body()).await;
    assert_eq!(status, 503);
    assert_eq!(
        answer,
        json!({
            "code": 11,
            "msg": "not ready",
            "details": "towlined still waits for the first list of: Node, Namespace, Pod, Service, EndpointSlice, NetworkPolicy",
        })
    );
    assert!(lab.store.snapshot().local_endpoints.is_empty());
}

#[tokio::test]
async fn a_registration_answers_once_its_policy_is_in_force() {
    let lab = Lab::start();
    lab.complete();
    let waiting = tokio::spawn({
        let socket = lab.socket();
        async move { put(&socket, "c1/eth0", body()).await }
    });
    lab.registered(1).await;
    assert!(!waiting.is_finished());
    lab.enforce_all(42);
    assert_eq!(
        waiting.await.unwrap(),
        (200, json!({ "policyRevision": 42 }))
    );
    let (_, listed) = request(&lab.socket(), "GET", "/v1/endpoints", "").await;
    assert_eq!(
        listed,
        json!([{
            "containerId": "c1",
            "ifname": "eth0",
            "pod": "default/a",
            "podUID": "u-1",
            "hostInterface": "veth1",
            "hostIfindex": 7,
            "netnsCookie": 123,
            "addresses": ["10.244.1.5"],
            "policyRevision": 42,
            "waitingFor": null,
        }])
    );
    // Asked again, the same answer comes at once.
    assert_eq!(lab.put("c1/eth0", body()).await.0, 200);
}

#[tokio::test]
async fn a_time_out_names_its_reason_and_undoes_the_registration() {
    let lab = Lab::start();
    lab.complete();
    let id = Registration::id("c1", "eth0").unwrap();
    let waiting = BTreeMap::from([(id, Waiting::Pod)]);
    lab.in_force.send_replace(InForce {
        ready: BTreeMap::new(),
        waiting,
    });
    let mut body = body();
    body["policyTimeoutSeconds"] = json!(1);
    let (status, answer) = lab.put("c1/eth0", body).await;
    assert_eq!(status, 504);
    assert_eq!(
        answer,
        json!({
            "code": 11,
            "msg": "policy timeout",
            "details": "policy of pod default/a is not in force after 1 s: the pod's object has not been seen from the API server",
        })
    );
    assert!(lab.store.snapshot().local_endpoints.is_empty());
    assert_eq!(
        std::fs::read_dir(lab.folder.path().join("endpoints"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn delete_is_idempotent() {
    let lab = Lab::start();
    lab.complete();
    let socket = lab.socket();
    let pending = tokio::spawn(async move { put(&socket, "c1/eth0", body()).await });
    lab.registered(1).await;
    lab.enforce_all(1);
    pending.await.unwrap();
    for _ in 0..2 {
        let (status, answer) = request(&lab.socket(), "DELETE", "/v1/endpoints/c1/eth0", "").await;
        assert_eq!((status, answer), (204, Value::Null));
        assert!(lab.store.snapshot().local_endpoints.is_empty());
    }
}

#[tokio::test]
async fn an_address_used_again_replaces_the_old_endpoint() {
    let lab = Lab::start();
    lab.complete();
    lab.devices.lock().unwrap().insert("veth2".to_owned(), 9);
    for (id, pod, device) in [("c1/eth0", "a", "veth1"), ("c2/eth0", "b", "veth2")] {
        let mut body = body();
        body["podName"] = json!(pod);
        body["hostInterface"] = json!(device);
        let socket = lab.socket();
        let pending = tokio::spawn(async move { put(&socket, id, body).await });
        let mut snapshots = lab.store.subscribe();
        snapshots
            .wait_for(|c| {
                c.local_endpoints
                    .values()
                    .any(|e| e.pod.name.as_str() == pod)
            })
            .await
            .unwrap();
        lab.enforce_all(1);
        assert_eq!(pending.await.unwrap().0, 200);
    }
    let snapshot = lab.store.snapshot();
    let pods: Vec<String> = snapshot
        .local_endpoints
        .values()
        .map(|e| e.pod.to_string())
        .collect();
    assert_eq!(pods, ["default/b"]);
    assert_eq!(
        std::fs::read_dir(lab.folder.path().join("endpoints"))
            .unwrap()
            .count(),
        1
    );
}

#[tokio::test]
async fn a_wrong_field_or_body_is_a_bad_request() {
    let lab = Lab::start();
    lab.complete();
    let mut wrong = body();
    wrong["hostInterface"] = json!("veth9");
    let (status, answer) = lab.put("c1/eth0", wrong).await;
    assert_eq!(status, 400);
    assert_eq!(
        answer,
        json!({
            "code": 7,
            "msg": "invalid request",
            "details": "hostInterface: \"veth9\": there is no such interface on this node",
        })
    );
    let (status, answer) = lab.put("c1/eth0", json!({ "podName": "a" })).await;
    let details = answer["details"].as_str().unwrap();
    assert!(
        status == 400 && details.contains("missing field"),
        "{answer}"
    );
    assert!(lab.store.snapshot().local_endpoints.is_empty());
}

#[tokio::test]
async fn a_restarted_daemon_adopts_endpoints_whose_device_is_still_the_same() {
    let lab = Lab::start();
    lab.complete();
    lab.devices.lock().unwrap().insert("veth2".to_owned(), 9);
    for (id, address, device) in [
        ("c1/eth0", "10.244.1.5/32", "veth1"),
        ("c2/eth0", "10.244.1.6/32", "veth2"),
    ] {
        let mut body = body();
        body["addresses"] = json!([address]);
        body["hostInterface"] = json!(device);
        let before = lab.store.snapshot().local_endpoints.len();
        let socket = lab.socket();
        let pending = tokio::spawn(async move { put(&socket, id, body).await });
        lab.registered(before + 1).await;
        lab.enforce_all(1);
        assert_eq!(pending.await.unwrap().0, 200);
    }
    let before = lab.store.snapshot();
    // The machine of the second pod was replaced while the daemon was down.
    lab.devices.lock().unwrap().insert("veth2".to_owned(), 11);
    let devices = lab.devices.clone();
    let this_node = before.this_node.clone();
    let store = Arc::new(Store::new(Cluster::new(this_node, Vec::new())));
    let restarted = Endpoints::new(
        store.clone(),
        Registry::open(lab.folder.path()).unwrap(),
        None,
        move |name: &IfName| devices.lock().unwrap().get(name.as_str()).copied(),
        Arc::new(Metrics::default()),
    );
    assert_eq!(restarted.adopt().unwrap(), 1);
    let id = Registration::id("c1", "eth0").unwrap();
    let adopted = store.snapshot();
    assert_eq!(adopted.local_endpoints.len(), 1);
    assert_eq!(
        adopted.local_endpoints.get(&id),
        before.local_endpoints.get(&id)
    );
}

#[tokio::test]
async fn an_endpoint_whose_device_is_gone_is_forgotten() {
    let lab = Lab::start();
    lab.complete();
    let socket = lab.socket();
    let pending = tokio::spawn(async move { put(&socket, "c1/eth0", body()).await });
    lab.registered(1).await;
    lab.enforce_all(1);
    pending.await.unwrap();
    lab.endpoints.drop_gone(&lab.store.snapshot());
    assert_eq!(lab.store.snapshot().local_endpoints.len(), 1);
    lab.devices.lock().unwrap().clear();
    lab.endpoints.drop_gone(&lab.store.snapshot());
    assert!(lab.store.snapshot().local_endpoints.is_empty());
    assert_eq!(
        std::fs::read_dir(lab.folder.path().join("endpoints"))
            .unwrap()
            .count(),
        0
    );
}
