//! Many clients at once.

use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::json;

use crate::support::{Cluster, config_map};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_patch_is_lost() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let created = maps
        .create(&PostParams::default(), &config_map("a", "0"))
        .await
        .unwrap();
    let writers = (0..16).map(|writer| {
        let maps = maps.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let patch = json!({"data": {format!("w{writer}-{round}"): "x"}});
                let patch = Patch::Merge(&patch);
                maps.patch("a", &PatchParams::default(), &patch)
                    .await
                    .unwrap();
            }
        })
    });
    for done in join_all(writers).await {
        done.unwrap();
    }
    assert_eq!(maps.get("a").await.unwrap().data.unwrap().len(), 161);
    let first = created.metadata.resource_version.unwrap().parse().unwrap();
    let resource = cluster
        .control_plane
        .client()
        .untyped("", "configmaps")
        .unwrap();
    let api = cluster.control_plane.api();
    let mut watch = api
        .store()
        .watch(&resource.resource().storage, first)
        .unwrap();
    let revisions: Vec<u64> = watch
        .drain()
        .unwrap()
        .iter()
        .map(|e| e.revision())
        .collect();
    assert_eq!(revisions.len(), 160, "one event per change");
    assert!(revisions.is_sorted_by(|a, b| a < b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_address_is_given_twice() {
    let cluster = Cluster::start().await;
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "default");
    let creations = (0..60).map(|index| {
        let services = services.clone();
        tokio::spawn(async move {
            let service = json!({
                "metadata": {"name": format!("s{index}")},
                "spec": {"type": "NodePort", "ports": [{"port": 80}]},
            });
            let service: Service = serde_json::from_value(service).unwrap();
            let spec = services
                .create(&PostParams::default(), &service)
                .await
                .unwrap()
                .spec
                .unwrap();
            (
                spec.cluster_ip.unwrap(),
                spec.ports.unwrap()[0].node_port.unwrap(),
            )
        })
    });
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for created in join_all(creations).await {
        let (address, port) = created.unwrap();
        addresses.insert(address);
        ports.insert(port);
    }
    assert_eq!((addresses.len(), ports.len()), (60, 60));
}
