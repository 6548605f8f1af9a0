//! Pods: graceful deletion, binding, events of two groups.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::support::{Cluster, code, pod};

#[tokio::test]
async fn a_pod_on_a_node_goes_when_its_agent_says_so() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    pods.create(&PostParams::default(), &pod("a", &json!({})))
        .await
        .unwrap();
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    let path = "/api/v1/namespaces/default/pods/a/binding";
    assert_eq!(cluster.post(path, &binding).await.0, 201);
    assert_eq!(cluster.post(path, &binding).await.0, 409, "bound already");
    let bound = pods.get("a").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n1"));
    assert_eq!(
        bound.status.unwrap().conditions.unwrap()[0].type_,
        "PodScheduled"
    );

    let marked = pods
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    let version = marked.metadata.resource_version.clone();
    let again = pods
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(
        again.metadata.resource_version, version,
        "a second deletion changes nothing"
    );
    let shorter = pods
        .delete("a", &DeleteParams::default().grace_period(5))
        .await
        .unwrap();
    assert_eq!(
        shorter
            .left()
            .unwrap()
            .metadata
            .deletion_grace_period_seconds,
        Some(5)
    );
    let gone = pods
        .delete("a", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(
        gone.left().unwrap().metadata.uid,
        marked.metadata.uid,
        "the Pod, not a Status"
    );
    assert_eq!(code(pods.get("a").await), 404);
}

#[tokio::test]
async fn a_pod_without_node_goes_at_once() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    pods.create(&PostParams::default(), &pod("a", &json!({})))
        .await
        .unwrap();
    let other = json!({"preconditions": {"uid": "another"}});
    let path = "/api/v1/namespaces/default/pods/a";
    assert_eq!(cluster.delete(path, &other).await.0, 409);
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(pods.get("a").await), 404);
}

#[tokio::test]
async fn one_event_is_seen_by_both_groups() {
    let cluster = Cluster::start().await;
    let event = json!({
        "metadata": {"name": "e"}, "reason": "Started", "type": "Normal", "action": "Start",
        "regarding": {"kind": "Pod", "name": "a", "namespace": "default"},
        "note": "hello", "reportingController": "agent", "reportingInstance": "n1",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    });
    let (status, created) = cluster
        .post("/apis/events.k8s.io/v1/namespaces/default/events", &event)
        .await;
    assert_eq!(
        (status, &created["note"]),
        (201, &json!("hello")),
        "{created}"
    );
    let selector = "fieldSelector=involvedObject.name%3Da%2Creason%3DStarted";
    let (_, list) = cluster
        .get(&format!("/api/v1/namespaces/default/events?{selector}"))
        .await;
    let core = &list["items"][0];
    assert_eq!(
        (
            &core["apiVersion"],
            &core["message"],
            &core["involvedObject"]["name"]
        ),
        (&json!("v1"), &json!("hello"), &json!("a"))
    );
    let (_, list) = cluster.get("/apis/events.k8s.io/v1/events").await;
    assert_eq!(list["items"][0]["note"], "hello");
    assert_eq!(list["items"][0]["message"], Value::Null);
}
