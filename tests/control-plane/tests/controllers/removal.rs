//! What goes when something is deleted, with the whole set of controllers.

use crate::cluster::Cluster;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use towline_control_plane::rest::Propagation;

fn deployment(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "pause"}]},
            },
        },
    })
}

/// A cluster in which three pods of a Deployment are ready on one node.
async fn with_deployment(namespace: &str) -> Cluster {
    let cluster = Cluster::start().await;
    cluster.add_node("n1").await;
    if namespace != "default" {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        cluster.create("", "namespaces", object).await;
    }
    cluster
        .create("apps", "deployments", deployment(namespace))
        .await;
    cluster
        .eventually("three ready pods", |cluster| {
            let pods = cluster.list("", "pods");
            let ready = pods
                .iter()
                .filter(|pod| pod["status"]["podIP"].is_string())
                .count();
            (ready == 3).then_some(())
        })
        .await;
    cluster
}

async fn gone(cluster: &Cluster, kinds: &[(&str, &str)]) {
    for (group, plural) in kinds {
        cluster
            .eventually(&format!("no {plural} left"), |cluster| {
                cluster.list(group, plural).is_empty().then_some(())
            })
            .await;
    }
}

const WORKLOAD: [(&str, &str); 3] = [
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("", "pods"),
];

#[tokio::test]
async fn in_the_background_dependents_follow_their_owner() {
    let cluster = with_deployment("default").await;
    cluster
        .delete("apps", "deployments", "web", Some(Propagation::Background))
        .await;
    assert_eq!(cluster.get("apps", "deployments", "web"), None);
    gone(&cluster, &WORKLOAD).await;
    cluster.stop().await;
}

#[tokio::test]
async fn in_the_foreground_the_owner_waits_for_its_dependents() {
    let cluster = with_deployment("default").await;
    cluster
        .delete("apps", "deployments", "web", Some(Propagation::Foreground))
        .await;
    cluster
        .eventually("no deployments left", |cluster| {
            let left = cluster.list("", "pods").len();
            let gone = cluster.list("apps", "deployments").is_empty();
            assert!(
                !gone || left == 0,
                "the owner is gone before {left} of its pods"
            );
            gone.then_some(())
        })
        .await;
    gone(&cluster, &WORKLOAD).await;
    cluster.stop().await;
}

#[tokio::test]
async fn orphans_stay_and_are_adopted_by_a_successor() {
    let cluster = with_deployment("default").await;
    let names = |cluster: &Cluster| -> Vec<Value> {
        let pods = cluster.list("", "pods");
        pods.iter()
            .map(|pod| pod["metadata"]["name"].clone())
            .collect()
    };
    let before = names(&cluster);
    cluster
        .delete("apps", "deployments", "web", Some(Propagation::Orphan))
        .await;
    gone(&cluster, &WORKLOAD[..1]).await;
    let set = cluster.list("apps", "replicasets").remove(0);
    assert_eq!(
        set["metadata"]["ownerReferences"]
            .as_array()
            .map_or(0, Vec::len),
        0
    );
    let successor = cluster
        .create("apps", "deployments", deployment("default"))
        .await;
    cluster
        .eventually("the successor has adopted the set", |cluster| {
            let set = cluster.list("apps", "replicasets").remove(0);
            let owner = &set["metadata"]["ownerReferences"][0]["uid"];
            (*owner == successor["metadata"]["uid"]).then_some(())
        })
        .await;
    cluster
        .eventually("the successor counts the pods as its own", |cluster| {
            let deployment = cluster.get("apps", "deployments", "web")?;
            (deployment["status"]["availableReplicas"] == 3).then_some(())
        })
        .await;
    assert_eq!(names(&cluster), before);
    cluster.stop().await;
}

#[tokio::test]
async fn a_namespace_takes_everything_in_it_along() {
    let cluster = with_deployment("shop").await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    cluster.create("", "services", service).await;
    cluster.delete("", "namespaces", "shop", None).await;
    cluster
        .eventually("the namespace is gone", |cluster| {
            cluster
                .get("", "namespaces", "shop")
                .is_none()
                .then_some(())
        })
        .await;
    for (group, plural) in [
        WORKLOAD[0],
        WORKLOAD[1],
        WORKLOAD[2],
        ("", "services"),
        ("", "endpoints"),
        ("discovery.k8s.io", "endpointslices"),
        ("", "serviceaccounts"),
    ] {
        let left: Vec<Value> = cluster.list(group, plural);
        let left = left
            .iter()
            .filter(|object| object["metadata"]["namespace"] == "shop")
            .count();
        assert_eq!(left, 0, "{plural}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_deleted_node_releases_its_subnet_and_loses_its_pods() {
    let cluster = with_deployment("default").await;
    cluster.add_node("n2").await;
    let subnet = |cluster: &Cluster, name: &str| {
        cluster.get("", "nodes", name)?["spec"]["podCIDR"]
            .as_str()
            .map(str::to_owned)
    };
    let freed = cluster
        .eventually("a subnet for n1", |cluster| subnet(cluster, "n1"))
        .await;
    cluster
        .eventually("a subnet for n2", |cluster| subnet(cluster, "n2"))
        .await;
    cluster.delete("", "nodes", "n1", None).await;
    cluster
        .eventually("three pods on the other node", |cluster| {
            let pods = cluster.list("", "pods");
            let moved = pods
                .iter()
                .filter(|pod| pod["spec"]["nodeName"] == "n2")
                .count();
            (moved == 3 && pods.len() == 3).then_some(())
        })
        .await;
    cluster.add_node("n3").await;
    let given = cluster
        .eventually("a subnet for n3", |cluster| subnet(cluster, "n3"))
        .await;
    assert_eq!(given, freed);
    cluster.stop().await;
}

#[tokio::test]
async fn what_every_cluster_has_is_restored() {
    let cluster = Cluster::start().await;
    let before = cluster
        .eventually("the kubernetes Service", |cluster| {
            cluster.get("", "services", "kubernetes")
        })
        .await;
    cluster.delete("", "services", "kubernetes", None).await;
    let after = cluster
        .eventually("the kubernetes Service again", |cluster| {
            let found = cluster.get("", "services", "kubernetes")?;
            (found["metadata"]["uid"] != before["metadata"]["uid"]).then_some(found)
        })
        .await;
    assert_eq!(after["spec"]["clusterIP"], before["spec"]["clusterIP"]);
    cluster.stop().await;
}
