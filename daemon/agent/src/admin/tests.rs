mod leases;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use desired::cluster::{Cluster, Rule};
use desired::fixture;
use desired::names::Protocol;
use desired::policy::policy as policy_tables;
use ebpf_shared::event::{EVENT_DROP, Event};
use ebpf_shared::policy::INGRESS;
use ebpf_shared::protocol::TCP;
use ebpf_shared::reason::Reason;
use jiff::Timestamp;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::board::Board;
use crate::config::{Config, Datapath, LeaseSource, NetConf, Settings};
use crate::datapath::{CounterView, Difference, FlowView, KernelView, MapView};
use crate::findings::Findings;
use crate::health::Health;
use crate::http_client::request;
use crate::lease::{Lease, StoreReport, Tenure};
use crate::metrics::Metrics;
use crate::reconcile::Gate;
use crate::server::{bind_socket, serve_socket};
use crate::store::Store;
use crate::subnet_file::SubnetFiles;

/// A kernel that says what the test wants.
struct Told;

impl KernelView for Told {
    fn flows(&self, _: &Cluster) -> anyhow::Result<Vec<FlowView>> {
        let flow = |state| FlowView {
            pod: Some("default/a".to_owned()),
            direction: "in",
            protocol: "TCP".to_owned(),
            pod_side: "10.244.0.5:80".to_owned(),
            remote_side: "10.244.1.5:40000".to_owned(),
            remote_name: None,
            via: None,
            state,
            rule: None,
            idle_seconds: 1,
        };
        Ok(vec![flow("established"), flow("closed")])
    }

    fn maps(&self) -> anyhow::Result<Vec<MapView>> {
        anyhow::bail!("the map is gone")
    }

    fn counters(&self) -> anyhow::Result<Vec<CounterView>> {
        Ok(Vec::new())
    }

    fn differences(&self) -> anyhow::Result<Vec<Difference>> {
        let key = "10.244.1.0/24".to_owned();
        Ok(vec![Difference {
            table: "routes",
            problem: "missing",
            key,
        }])
    }
}

/// The API over a real socket.
struct Api {
    socket: PathBuf,
    events: Arc<EventHub>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Api {
    fn over(cluster: Cluster) -> Self {
        Self::with(cluster, Findings::default())
    }

    /// The same with something wrong with what the API server tells.
    fn with(cluster: Cluster, findings: Findings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("towlined.sock");
        let settings = Settings {
            node_name: Some("n1".to_owned()),
            datapath: Some(Datapath::Ebpf),
            ..Settings::default()
        };
        let conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
        let net = NetConf::parse("net-conf.json", conf).unwrap();
        let metrics = Arc::new(Metrics::default());
        let lease = Lease {
            subnets: vec!["10.244.0.0/24".parse().unwrap()],
            announced: fixture::node("n1", "10.244.0.0/24", "02:00:00:00:00:01", "172.30.0.1")
                .announced
                .unwrap(),
            overlay: fixture::overlay("02:00:00:00:00:01", "172.30.0.1"),
            mtu: 1450.try_into().unwrap(),
        };
        let overlay = watch::Sender::new(Some(lease));
        let lease = overlay.subscribe();
        let tenure = watch::Sender::new(Tenure::Wanted);
        let health = Arc::new(Health {
            store: Arc::new(Store::new(cluster)),
            board: Arc::new(Board::new(vec!["overlay"], metrics.clone())),
            lease: lease.clone(),
            leases: watch::channel(StoreReport::default()).1,
            findings: watch::Sender::new(findings).subscribe(),
            services: true,
            tenure: tenure.subscribe(),
            metrics: metrics.clone(),
            resync: Duration::from_secs(10),
            refresh: Box::new(|| {}),
        });
        let events = Arc::new(EventHub::new(metrics));
        let admin = Arc::new(Admin {
            config: Arc::new(Config::check(settings, LeaseSource::Kube(net.clone())).unwrap()),
            overlay: None,
            release: Release {
                tenure,
                gate: Gate::default(),
                net,
                subnet_files: SubnetFiles::new(Vec::new()),
                rules: None,
                overlay,
            },
            ages: Arc::default(),
            health,
            lease,
            kernel: Arc::new(Told),
            events: events.clone(),
            started: Timestamp::UNIX_EPOCH,
        });
        let stop = CancellationToken::new();
        let listener = bind_socket(&socket).unwrap();
        tokio::spawn(serve_socket(listener, router(admin), stop.clone()));
        Self {
            socket,
            events,
            stop,
            _folder: folder,
        }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        request(&self.socket, "GET", path, "").await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Two nodes, a server on this one that only clients may reach, and a Service before it.
fn cluster() -> Cluster {
    let rule = Rule::any()
        .pods(&["app=client"])
        .ports(Protocol::Tcp, 80, 80);
    let slice = fixture::slice("web-1", "web").with_port("http", Protocol::Tcp, 80);
    fixture::cluster("n1")
        .with_node(fixture::node(
            "n2",
            "10.244.1.0/24",
            "02:00:00:00:00:02",
            "172.30.0.2",
        ))
        .with_namespace(fixture::namespace("default", &[]))
        .with_local_pod(fixture::pod("server", "10.244.0.5", &["app=server"]), 7)
        .with_pod(fixture::pod("stranger", "10.244.1.6", &["app=other"]))
        .with_service(fixture::service("web", "10.96.0.10").with_port("http", Protocol::Tcp, 80))
        .with_slice(slice.with_ready("10.244.0.5", "n1"))
        .with_policy(fixture::policy("only-clients", &["app=server"]).ingress([rule]))
}

#[tokio::test]
async fn routes_services_and_policies_are_shown_as_wanted() {
    let api = Api::over(cluster());
    assert_eq!(
        api.get("/v1/routes").await,
        (
            200,
            json!({
                "routes": [{
                    "destination": "10.244.1.0/24",
                    "gateway": "10.244.1.0",
                    "device": "flannel.1",
                    "neighbourMac": "02:00:00:00:00:02",
                    "nodeAddress": "172.30.0.2",
                }],
                "problems": [],
            })
        )
    );
    let (status, services) = api.get("/v1/services?name=default/web").await;
    assert_eq!(status, 200);
    assert_eq!(services[0]["clusterIps"], json!(["10.96.0.10"]));
    assert_eq!(
        services[0]["ports"][0]["endpoints"],
        json!([{
            "address": "10.244.0.5:80", "node": "n1", "pod": null, "local": true, "readiness": "ready",
        }])
    );
    let (_, policies) = api.get("/v1/policies").await;
    assert_eq!(
        policies,
        json!([{
            "name": "default/only-clients",
            "podSelector": "app=server",
            "ingressRules": 1,
            "egressRules": null,
            "localPods": ["default/server"],
        }])
    );
    let (_, pods) = api.get("/v1/pods?name=server").await;
    assert_eq!(pods[0]["policies"], json!(["default/only-clients"]));
}

#[tokio::test]
async fn the_status_says_what_is_waited_for() {
    let api = Api::over(cluster());
    let (status, answer) = api.get("/v1/status").await;
    assert_eq!(status, 200);
    assert_eq!(answer["node"], "n1");
    assert_eq!(answer["ready"], false);
    assert_eq!(
        answer["lease"]["subnets"],
        serde_json::json!(["10.244.0.0/24"])
    );
    let lists = "the API server's first list of Node, Namespace, Pod, Service, EndpointSlice, NetworkPolicy";
    assert_eq!(answer["waitingFor"], json!([lists]));
    assert_eq!(answer["notes"], json!([]));
}

#[tokio::test]
async fn a_release_that_pods_would_suffer_from_is_refused() {
    let api = Api::over(cluster());
    let (status, answer) = request(&api.socket, "POST", "/v1/node/release", "").await;
    assert_eq!(status, 409);
    let details = answer["details"].as_str().unwrap();
    assert_eq!(
        details,
        "1 pods would lose their network: default/server; drain the node first, or say --yes"
    );
}

#[tokio::test]
async fn why_explains_and_wrong_questions_are_named() {
    let api = Api::over(cluster());
    let (status, answer) = api.get("/v1/why?src=stranger&dst=web:80").await;
    assert_eq!(status, 200);
    assert_eq!(answer["verdict"], "denied");
    assert_eq!(
        answer["paths"][0]["ingress"]["policies"],
        json!(["default/only-clients"])
    );
    assert_eq!(api.get("/v1/why?src=stranger&dst=web:0").await.0, 400);
    let (status, answer) = api.get("/v1/why?src=nobody&dst=web:80").await;
    assert_eq!(status, 404);
    assert!(
        answer["details"]
            .as_str()
            .unwrap()
            .starts_with("source default/nobody: no such")
    );
    assert_eq!(api.get("/v1/services?name=default/none").await.0, 404);
    assert_eq!(api.get("/v1/pods?name=A").await.0, 400);
}

#[tokio::test]
async fn the_kernels_side_is_shown_and_its_errors_are_told() {
    let api = Api::over(cluster());
    let (_, open) = api.get("/v1/flows").await;
    assert_eq!(open.as_array().unwrap().len(), 1);
    let (_, all) = api.get("/v1/flows?closed=true").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let missing = json!([{ "table": "routes", "problem": "missing", "key": "10.244.1.0/24" }]);
    assert_eq!(api.get("/v1/drift").await, (200, missing));
    assert_eq!(
        api.get("/v1/maps").await,
        (
            500,
            json!({ "code": 5, "msg": "internal error", "details": "the map is gone" })
        )
    );
}

#[tokio::test]
async fn a_drop_is_told_with_names_and_policies() {
    let cluster = cluster();
    let tables = policy_tables(&cluster).unwrap();
    let api = Api::over(cluster.clone());
    let (_, nothing) = api.get("/v1/events?follow=false").await;
    assert_eq!(nothing, Value::Null);
    let address = |text: &str| {
        let v4: std::net::Ipv4Addr = text.parse().unwrap();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&v4.octets());
        bytes
    };
    let event = Event {
        time_ns: 1,
        ifindex: 7,
        len: 74,
        policy_set: *tables.policy_sets.keys().next().unwrap(),
        class: 0,
        rule: 0,
        kind: EVENT_DROP,
        reason: Reason::PolicyNoMatch as u8,
        direction: INGRESS,
        family: 4,
        proto: TCP,
        tcp_flags: 2,
        src_port: 40_000_u16.to_be_bytes(),
        dst_port: 80_u16.to_be_bytes(),
        pad: [0; 2],
        src: address("10.244.1.6"),
        dst: address("10.244.0.5"),
    };
    let namer = Namer::new(Arc::new(cluster));
    api.events
        .publish(namer.view(&event, &tables, Timestamp::UNIX_EPOCH));
    let (_, told) = api.get("/v1/events?kind=drop&follow=false").await;
    assert_eq!(
        told,
        json!({
            "time": "1970-01-01T00:00:00Z",
            "kind": "drop",
            "reason": "policy-no-match",
            "direction": "ingress",
            "pod": "default/server",
            "interface": "veth7",
            "protocol": "TCP",
            "source": "10.244.1.6:40000",
            "sourceName": "default/stranger",
            "destination": "10.244.0.5:80",
            "destinationName": "default/server",
            "rule": null,
            "policies": ["default/only-clients"],
            "length": 74,
        })
    );
    let (_, verdicts) = api.get("/v1/events?kind=verdict&follow=false").await;
    assert_eq!(verdicts, Value::Null);
}
