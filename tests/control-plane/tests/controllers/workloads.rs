//! The whole set of controllers and the scheduler against the API in-process.

use crate::cluster::Cluster;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn deployment(image: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image,
                                         "ports": [{"name": "web", "containerPort": 8080}]}]},
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]},
    })
}

/// The addresses of the ready endpoints of the Service `web`, sorted.
fn ready_addresses(cluster: &Cluster) -> Vec<String> {
    let mut addresses: Vec<String> = cluster
        .list("discovery.k8s.io", "endpointslices")
        .iter()
        .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned())
        .collect();
    addresses.sort();
    addresses
}

fn pod_addresses(cluster: &Cluster) -> Vec<String> {
    let mut addresses: Vec<String> = cluster
        .list("", "pods")
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|pod| pod["status"]["podIP"].as_str().map(str::to_owned))
        .collect();
    addresses.sort();
    addresses
}

#[tokio::test]
async fn a_new_cluster_has_its_namespaces_accounts_and_the_kubernetes_service() {
    let cluster = Cluster::start().await;
    let namespaces = ["default", "kube-node-lease", "kube-public", "kube-system"];
    cluster
        .eventually("namespaces have their accounts", |cluster| {
            let accounts = cluster.list("", "serviceaccounts");
            let names: Vec<&str> = accounts
                .iter()
                .filter(|account| account["metadata"]["name"] == "default")
                .map(|account| account["metadata"]["namespace"].as_str().unwrap())
                .collect();
            (names == namespaces).then_some(())
        })
        .await;
    let service = cluster
        .eventually("the kubernetes Service", |cluster| {
            cluster.get("", "services", "kubernetes")
        })
        .await;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let slice = cluster
        .eventually("its EndpointSlice", |cluster| {
            cluster.get("discovery.k8s.io", "endpointslices", "kubernetes")
        })
        .await;
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["127.0.0.1"]));
    assert_eq!(slice["ports"][0]["port"], 6443);
    cluster.stop().await;
}

#[tokio::test]
async fn a_deployment_is_spread_over_nodes_and_served_by_its_service() {
    let cluster = Cluster::start().await;
    for name in ["n1", "n2", "n3"] {
        cluster.add_node(name).await;
    }
    cluster.create("", "services", service()).await;
    cluster
        .create("apps", "deployments", deployment("pause:1", 6))
        .await;
    cluster
        .eventually("six ready endpoints", |cluster| {
            (ready_addresses(cluster).len() == 6).then_some(())
        })
        .await;
    assert_eq!(ready_addresses(&cluster), pod_addresses(&cluster));
    let mut per_node: Vec<String> = cluster
        .list("", "pods")
        .iter()
        .map(|pod| pod["spec"]["nodeName"].as_str().unwrap().to_owned())
        .collect();
    per_node.sort();
    assert_eq!(per_node, ["n1", "n1", "n2", "n2", "n3", "n3"]);
    let mut subnets: Vec<String> = cluster
        .list("", "nodes")
        .iter()
        .map(|node| node["spec"]["podCIDR"].as_str().unwrap().to_owned())
        .collect();
    subnets.sort();
    assert_eq!(subnets, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]);
    let status = cluster
        .eventually("the rollout is complete", |cluster| {
            let deployment = cluster.get("apps", "deployments", "web")?;
            let reason = deployment["status"]["conditions"]
                .as_array()?
                .iter()
                .find_map(|condition| {
                    (condition["type"] == "Progressing").then(|| condition["reason"].clone())
                })?;
            (reason == "NewReplicaSetAvailable").then(|| deployment["status"].clone())
        })
        .await;
    assert_eq!(
        [
            &status["replicas"],
            &status["updatedReplicas"],
            &status["availableReplicas"]
        ],
        [&json!(6), &json!(6), &json!(6)]
    );
    cluster.stop().await;
}

#[tokio::test]
async fn scaling_follows_the_deployment_in_both_directions() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1").await;
    cluster.create("", "services", service()).await;
    cluster
        .create("apps", "deployments", deployment("pause:1", 2))
        .await;
    for replicas in [2, 5, 1, 0] {
        cluster
            .patch(
                "apps",
                "deployments",
                "web",
                json!({"spec": {"replicas": replicas}}),
            )
            .await;
        cluster
            .eventually("as many endpoints as replicas", |cluster| {
                let pods = cluster.list("", "pods").len();
                (ready_addresses(cluster).len() == replicas && pods == replicas).then_some(())
            })
            .await;
    }
    cluster.stop().await;
}

/// The images of the pods that are not on their way out.
fn images(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.list("", "pods");
    pods.iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| {
            pod["spec"]["containers"][0]["image"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_rolling_update_keeps_to_its_limits_and_ends_with_new_pods_only() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1").await;
    cluster.add_node("n2").await;
    cluster.create("", "services", service()).await;
    let mut wanted = deployment("pause:1", 4);
    wanted["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    cluster.create("apps", "deployments", wanted).await;
    cluster
        .eventually("four old pods serve", |cluster| {
            (ready_addresses(cluster).len() == 4).then_some(())
        })
        .await;
    let template = json!({"spec": {"template": {"spec": {"containers": [{
        "name": "c", "image": "pause:2", "ports": [{"name": "web", "containerPort": 8080}]}]}}}});
    cluster.patch("apps", "deployments", "web", template).await;
    cluster
        .eventually("four new pods serve", |cluster| {
            let images = images(cluster);
            assert!(
                images.len() <= 5,
                "more pods than replicas and surge: {images:?}"
            );
            let done = images.len() == 4 && images.iter().all(|image| image == "pause:2");
            (done && ready_addresses(cluster).len() == 4).then_some(())
        })
        .await;
    let sets = cluster.list("apps", "replicasets");
    let mut revisions: Vec<(String, Value)> = sets
        .iter()
        .map(|set| {
            let revision = &set["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
            (
                revision.as_str().unwrap().to_owned(),
                set["spec"]["replicas"].clone(),
            )
        })
        .collect();
    revisions.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(
        revisions,
        [("1".to_owned(), json!(0)), ("2".to_owned(), json!(4))]
    );
    let deployment = cluster.get("apps", "deployments", "web").unwrap();
    let revision = &deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
    assert_eq!(revision, "2");
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_it_can_be() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1").await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeSelector": {"disk": "fast"}, "containers": [{"name": "c", "image": "pause"}]},
    });
    cluster.create("", "pods", pod).await;
    let message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    cluster
        .eventually("the pod says why it has no node", |cluster| {
            let pod = cluster.get("", "pods", "p")?;
            let conditions = pod["status"]["conditions"].as_array()?.clone();
            conditions
                .iter()
                .any(|condition| {
                    condition["reason"] == "Unschedulable" && condition["message"] == message
                })
                .then_some(())
        })
        .await;
    cluster
        .eventually("an event says it too", |cluster| {
            let events = cluster.list("", "events");
            let found = events
                .iter()
                .any(|event| event["reason"] == "FailedScheduling" && event["message"] == message);
            found.then_some(())
        })
        .await;
    cluster
        .patch(
            "",
            "nodes",
            "n1",
            json!({"metadata": {"labels": {"disk": "fast"}}}),
        )
        .await;
    cluster
        .eventually("the pod has a node", |cluster| {
            (cluster.get("", "pods", "p")?["spec"]["nodeName"] == "n1").then_some(())
        })
        .await;
    cluster.stop().await;
}
