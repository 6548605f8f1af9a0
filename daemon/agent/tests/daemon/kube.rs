//! Leases on Node objects of the test control plane.

use std::net::SocketAddr;

use control_plane::run::{ControlPlane, Options};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::host::{Host, Towlined, health, metric, on_a_host, until};

const SERVER: &str = "127.0.0.1:6443";
const PREFIX: &str = "flannel.alpha.coreos.com";

/// A control plane without controllers: Nodes are what the test makes them.
struct Cluster {
    runtime: Runtime,
    control_plane: Option<ControlPlane>,
    nodes: Api<Node>,
}

// === impl Cluster ===

impl Cluster {
    /// Its threads are in the namespace of the one that starts it.
    fn start(host: &Host) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let control_plane = runtime.block_on(control_plane(host));
        let address: SocketAddr = SERVER.parse().unwrap();
        let kubeconfig = control_plane.kubeconfig(address);
        std::fs::write(host.path("kubeconfig"), &kubeconfig).unwrap();
        let conf = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
        std::fs::write(host.path("net-conf.json"), conf).unwrap();
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            Client::try_from(config.unwrap()).unwrap()
        });
        Self {
            nodes: Api::all(client),
            control_plane: Some(control_plane),
            runtime,
        }
    }

    fn stop(&mut self) {
        if let Some(mut control_plane) = self.control_plane.take() {
            control_plane.shutdown();
            self.runtime.block_on(control_plane.wait()).unwrap();
        }
    }

    fn go_on(&mut self, host: &Host) {
        self.control_plane = Some(self.runtime.block_on(control_plane(host)));
    }

    fn create(&self, node: Value) {
        let node = serde_json::from_value(node).unwrap();
        let params = PostParams::default();
        let created = self.nodes.create(&params, &node);
        self.runtime.block_on(created).unwrap();
    }

    fn patch(&self, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        let patched = self.nodes.patch(name, &params, &patch);
        self.runtime.block_on(patched).unwrap();
    }

    fn set_condition(&self, status: &str) {
        let condition =
            json!({ "type": "NetworkUnavailable", "status": status, "reason": "NoRouteCreated" });
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let params = PatchParams::default();
        let patched = self.nodes.patch_status("n1", &params, &patch);
        self.runtime.block_on(patched).unwrap();
    }

    /// Annotations of n1 under the prefix, and its condition.
    fn said(&self) -> (Vec<String>, Option<String>) {
        let node = self.runtime.block_on(self.nodes.get_opt("n1")).unwrap();
        let Some(node) = node else {
            return (vec![], None);
        };
        let annotations = node.metadata.annotations.unwrap_or_default();
        let ours = annotations
            .iter()
            .filter(|(key, _)| key.starts_with(PREFIX));
        let conditions = node.status.and_then(|status| status.conditions);
        let mut conditions = conditions.unwrap_or_default().into_iter();
        let condition = conditions.find(|one| one.type_ == "NetworkUnavailable");
        let ours = ours.map(|(key, value)| format!("{key}={value}"));
        (ours.collect(), condition.map(|one| one.status))
    }

    /// Waits until n1 says this again.
    #[track_caller]
    fn says(&self, said: &(Vec<String>, Option<String>)) {
        until(|| (self.said() == *said).then_some(()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn control_plane(host: &Host) -> ControlPlane {
    let options = Options {
        data_dir: host.path("api"),
        sync: false,
        listen: vec![SERVER.parse().unwrap()],
        listen_netns: Vec::new(),
        advertise: None,
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        node_cidr_mask: 24,
        controllers: false,
    };
    ControlPlane::start(options).await.unwrap()
}

fn towlined(host: &Host) -> Towlined {
    let (kubeconfig, conf) = (host.path("kubeconfig"), host.path("net-conf.json"));
    host.start_with(&[
        "--datapath=none",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--net-config-path",
        conf.to_str().unwrap(),
    ])
}

fn node(name: &str, pod_cidr: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name },
        "spec": { "podCIDR": pod_cidr, "podCIDRs": [pod_cidr] },
    })
}

#[test]
fn a_pod_cidr_that_comes_late_is_waited_for_in_one_line() {
    on_a_host(|host| {
        let cluster = Cluster::start(&host);
        let _towlined = towlined(&host);
        let line = "a Node called n1: the API server has none; is node-name what this node's kubelet calls it?";
        health("/readyz", |_, body| body["waitingFor"] == json!([line]));
        cluster.create(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
        let line = "an IPv4 podCIDR: Node n1 has none in spec.podCIDRs; does its controller manager run with --allocate-node-cidrs?";
        let (status, _) = health("/readyz", |_, body| body["waitingFor"] == json!([line]));
        assert_eq!(status, 503);
        assert_eq!(
            host.hears("STATUS=waits for an IPv4"),
            format!("STATUS=waits for {line}")
        );
        let log = host.log();
        let waits = log
            .lines()
            .filter(|line| line.contains("has no pod subnet yet"));
        assert_eq!(waits.count(), 1, "{log}");
        assert_eq!(cluster.said().1, None, "the network is not there yet");

        cluster.patch(
            "n1",
            json!({ "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] } }),
        );
        host.hears("READY=1");
        assert_eq!(
            health("/readyz", |_, _| true),
            (200, json!({ "waitingFor": [], "notes": [] }))
        );
        assert_eq!(cluster.said().1.as_deref(), Some("False"));
    });
}

#[test]
fn what_this_node_says_on_its_object_comes_back_whoever_takes_it() {
    on_a_host(|host| {
        let cluster = Cluster::start(&host);
        cluster.create(node("n1", "10.244.1.0/24"));
        let _towlined = towlined(&host);
        host.hears("READY=1");
        let (said, left) = (cluster.said(), host.left());
        assert_eq!(
            (said.0.len(), said.1.as_deref()),
            (4, Some("False")),
            "{said:?}"
        );

        let names = said.0.iter().map(|line| line.split_once('=').unwrap().0);
        let gone: serde_json::Map<_, _> =
            names.map(|name| (name.to_owned(), Value::Null)).collect();
        cluster.patch("n1", json!({ "metadata": { "annotations": gone } }));
        cluster.says(&said);
        cluster.patch(
            "n1",
            json!({ "metadata": { "annotations": { format!("{PREFIX}/backend-data"): "{}" } } }),
        );
        cluster.says(&said);
        cluster.set_condition("True");
        cluster.says(&said);

        // The node is registered anew, as a kubelet does with an object that was deleted.
        let params = DeleteParams::default();
        let deleted = cluster.nodes.delete("n1", &params);
        cluster.runtime.block_on(deleted).unwrap();
        health("/readyz", |status, _| status == 503);
        assert_eq!(host.left(), left);
        cluster.create(node("n1", "10.244.1.0/24"));
        cluster.says(&said);
        health("/readyz", |status, _| status == 200);
        assert_eq!(host.left(), left);
    });
}

#[test]
fn a_wrong_annotation_of_another_node_is_told_with_name_value_and_remedy() {
    on_a_host(|host| {
        let cluster = Cluster::start(&host);
        cluster.create(node("n1", "10.244.1.0/24"));
        let peer = |name: &str, cidr: &str, data: &str, ip: &str| {
            let mut node = node(name, cidr);
            node["metadata"]["annotations"] = json!({
                format!("{PREFIX}/kube-subnet-manager"): "true",
                format!("{PREFIX}/backend-type"): "vxlan",
                format!("{PREFIX}/backend-data"): data,
                format!("{PREFIX}/public-ip"): ip,
            });
            cluster.create(node);
        };
        let data = |vni: u8, mac: u8| {
            format!("{{\"VNI\":{vni},\"VtepMAC\":\"02:00:00:00:00:{mac:02x}\"}}")
        };
        peer("n2", "10.244.2.0/24", &data(1, 2), "172.30.0.2");
        peer("n3", "10.244.3.0/24", "VNI 1", "172.30.0.3");
        peer("n4", "10.244.4.0/24", &data(9, 4), "172.30.0.4");
        peer(
            "n5",
            "10.244.5.0/24",
            r#"{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}"#,
            "172.30.0.5",
        );
        let _towlined = towlined(&host);
        host.hears("READY=1");
        let (_, nodes) = host.ask("GET", "/v1/nodes");
        let nodes = nodes.as_array().unwrap();
        let shown: Vec<_> = nodes
            .iter()
            .map(|node| {
                let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
                (
                    text(&node["name"]),
                    text(&node["overlay"]["state"]),
                    text(&node["problem"]),
                )
            })
            .collect();
        let row = |name: &str, state: &str, problem: &str| {
            (name.to_owned(), state.to_owned(), problem.to_owned())
        };
        let wrong_mac = "metadata.annotations[flannel.alpha.coreos.com/backend-data] \
            \"{\\\"VNI\\\":1,\\\"VtepMAC\\\":\\\"ff:ff:ff:ff:ff:ff\\\"}\": use {\"VNI\":1,\"VtepMAC\":\"02:…\"} with a unicast address";
        let no_json =
            "metadata.annotations[flannel.alpha.coreos.com/backend-data] \"VNI 1\": use JSON";
        let wrong_vni = "node n4: VNI 9 differs from ours, 1: use one VNI in net-conf.json";
        assert_eq!(
            shown,
            [
                row("n1", "own", "-"),
                row("n2", "ok", "-"),
                row("n3", "problem", no_json),
                row("n4", "problem", wrong_vni),
                row("n5", "problem", wrong_mac),
            ]
        );
        let notes = [
            format!("left out: Node n3: {no_json}"),
            format!("left out: Node n5: {wrong_mac}"),
            format!("left out of the overlay: {wrong_vni}"),
        ];
        assert_eq!(
            health("/readyz", |_, _| true),
            (200, json!({ "waitingFor": [], "notes": notes }))
        );
        assert_eq!(host.left()["routes"], json!(["10.244.2.0/24"]));
        // It is right as soon as it is right.
        cluster.patch("n3", json!({ "metadata": { "annotations": { format!("{PREFIX}/backend-data"): data(1, 3) } } }));
        health("/readyz", |_, body| {
            body["notes"].as_array().unwrap().len() == 2
        });
        until(|| {
            (host.left()["routes"] == json!(["10.244.2.0/24", "10.244.3.0/24"])).then_some(())
        });
    });
}

#[test]
fn an_api_server_that_is_away_is_told_and_harms_nobody() {
    on_a_host(|host| {
        let mut cluster = Cluster::start(&host);
        cluster.create(node("n1", "10.244.1.0/24"));
        let _towlined = towlined(&host);
        host.hears("READY=1");
        let left = host.left();
        cluster.stop();
        let (status, body) = health("/readyz", |_, body| {
            let note = body["notes"][0].as_str().unwrap_or_default();
            note.contains("(Node, Namespace, Pod, Service, EndpointSlice, NetworkPolicy)")
        });
        assert_eq!((status, &body["waitingFor"]), (200, &json!([])));
        let note = body["notes"][0].as_str().unwrap();
        assert!(
            note.starts_with("the API server is not followed since "),
            "{note}"
        );
        assert_eq!(metric("towline_lease_store_connected "), Some(0.0));
        let (_, leases) = host.ask("GET", "/v1/leases");
        assert_eq!(leases["connected"], false);
        assert!(leases["trouble"].is_string(), "{leases}");
        assert_eq!(host.left(), left);
        cluster.go_on(&host);
        // There need not be any event for it.
        health("/readyz", |_, body| body["notes"] == json!([]));
        assert_eq!(metric("towline_lease_store_connected "), Some(1.0));
    });
}
