//! A control plane without HTTP, and a stand-in for the node agents that runs nothing but reports
//! every bound pod as ready and confirms every deletion.

use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use towline_control_plane::client::{Client, WatchEvent};
use towline_control_plane::config::ClusterConfig;
use towline_control_plane::patch::Patch;
use towline_control_plane::rest::{Api, DeleteOptions, Propagation};
use towline_control_plane::selector::Selector;
use towline_control_plane::store::Options;
use towline_control_plane::{controllers, scheduler};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    client: Client,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
    _data: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = ClusterConfig {
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            node_cidr_mask: 24,
            advertise: "127.0.0.1:6443".parse().unwrap(),
        };
        let api = Api::open(&Options::new(data.path()), &config).unwrap();
        let client = Client::new(Arc::new(api));
        let shutdown = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(controllers::run(
                client.clone(),
                config,
                None,
                shutdown.clone(),
            )),
            tokio::spawn(scheduler::run(client.clone(), shutdown.clone())),
            tokio::spawn(run_pods(client.clone(), shutdown.clone())),
        ];
        let cluster = Self {
            client,
            shutdown,
            tasks,
            _data: data,
        };
        cluster
            .eventually("the default ServiceAccount", |cluster| {
                cluster.get("", "serviceaccounts", "default")
            })
            .await;
        cluster
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap().unwrap();
        }
    }

    pub(crate) fn list(&self, group: &str, plural: &str) -> Vec<Value> {
        let handle = self.client.untyped(group, plural).unwrap();
        handle.list(None, &Selector::default()).unwrap().0
    }

    /// An object of the namespace `default`, or a cluster-scoped one.
    pub(crate) fn get(&self, group: &str, plural: &str, name: &str) -> Option<Value> {
        self.client
            .untyped(group, plural)
            .unwrap()
            .get("default", name)
            .unwrap()
    }

    pub(crate) async fn create(&self, group: &str, plural: &str, object: Value) -> Value {
        self.client
            .untyped(group, plural)
            .unwrap()
            .create(&object)
            .await
            .unwrap()
    }

    pub(crate) async fn patch(&self, group: &str, plural: &str, name: &str, patch: Value) -> Value {
        let handle = self.client.untyped(group, plural).unwrap();
        handle
            .patch("default", name, &Patch::Merge(patch))
            .await
            .unwrap()
    }

    pub(crate) async fn patch_status(
        &self,
        group: &str,
        plural: &str,
        name: &str,
        patch: Value,
    ) -> Value {
        let handle = self.client.untyped(group, plural).unwrap();
        handle
            .patch_status("default", name, &Patch::Merge(patch))
            .await
            .unwrap()
    }

    pub(crate) async fn delete(
        &self,
        group: &str,
        plural: &str,
        name: &str,
        how: Option<Propagation>,
    ) {
        let handle = self.client.untyped(group, plural).unwrap();
        let options = DeleteOptions {
            propagation: how,
            ..DeleteOptions::default()
        };
        handle.delete("default", name, &options).await.unwrap();
    }

    /// Registers a node that is ready and renews its Lease once.
    pub(crate) async fn add_node(&self, name: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        self.create("", "nodes", node).await;
        self.renew_lease(name).await;
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        }});
        self.patch_status("", "nodes", name, status).await;
    }

    pub(crate) async fn renew_lease(&self, name: &str) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40,
                     "renewTime": format!("{:.6}", jiff::Timestamp::now())},
        });
        self.eventually("the namespace of Leases", |cluster| {
            cluster.get("", "namespaces", "kube-node-lease")
        })
        .await;
        self.create("coordination.k8s.io", "leases", lease).await;
    }

    /// Waits until the probe finds what it looks for, and returns it.
    pub(crate) async fn eventually<T>(&self, what: &str, probe: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = probe(self) {
                return found;
            }
            if let Some(task) = self.tasks.iter().find(|task| task.is_finished()) {
                panic!(
                    "a task ended early (task {:?}) while waiting for: {what}",
                    task.id()
                );
            }
            if Instant::now() > deadline {
                panic!("not within {PATIENCE:?}: {what}\n{}", self.describe());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The state of the objects that most failures are about.
    fn describe(&self) -> String {
        let kinds = [
            ("apps", "deployments"),
            ("apps", "replicasets"),
            ("", "pods"),
            ("discovery.k8s.io", "endpointslices"),
        ];
        let mut text = String::new();
        for (group, plural) in kinds {
            for object in self.list(group, plural) {
                text += &format!("{plural} {} {}\n", object["metadata"], object["status"]);
            }
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Acts for all node agents.
async fn run_pods(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let addresses = AtomicU32::new(u32::from(std::net::Ipv4Addr::new(10, 244, 0, 2)));
    let pods = client.untyped("", "pods")?;
    let (present, revision) = pods.list(None, &Selector::default())?;
    for pod in present {
        act_for(&client, &pod, &addresses).await?;
    }
    let mut events = pods.watch(revision)?;
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = events.next() => event,
        };
        match event {
            Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod))) => {
                act_for(&client, &pod, &addresses).await?;
            }
            Some(Ok(WatchEvent::Deleted(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}

async fn act_for(client: &Client, pod: &Value, addresses: &AtomicU32) -> anyhow::Result<()> {
    let metadata = &pod["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let name = metadata["name"].as_str().unwrap_or_default();
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return Ok(());
    }
    let pods = client.untyped("", "pods")?;
    let result = if !metadata["deletionTimestamp"].is_null() {
        let options = DeleteOptions {
            grace_seconds: Some(0),
            uid: metadata["uid"].as_str().map(str::to_owned),
            ..DeleteOptions::default()
        };
        pods.delete(namespace, name, &options).await.map(drop)
    } else if pod["status"]["podIP"].is_null() {
        let number = addresses.fetch_add(1, Ordering::Relaxed);
        let address = std::net::Ipv4Addr::from(number).to_string();
        let now = jiff::Timestamp::now().to_string();
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
                {"type": "Ready", "status": "True", "lastTransitionTime": now},
            ],
        }});
        pods.patch_status(namespace, name, &Patch::Merge(status))
            .await
            .map(drop)
    } else {
        Ok(())
    };
    match result {
        // Somebody was faster; the watch brings the pod again if it still matters.
        Err(error) if error.code == 404 || error.code == 409 => Ok(()),
        other => other.map_err(Into::into),
    }
}
