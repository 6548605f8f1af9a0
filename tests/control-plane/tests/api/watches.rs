//! Watches: order, resumption, selectors, bookmarks, expiry.

use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::support::{Cluster, config_map, pod};

/// Reads `count` lines of a watch stream as (type, name, value of `data.key`).
async fn read(cluster: &Cluster, path: &str, count: usize) -> Vec<Value> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let stream = cluster.client.request_stream(request).await.unwrap();
    let lines = stream.lines().take(count).try_collect::<Vec<String>>();
    let lines = tokio::time::timeout(Duration::from_secs(20), lines).await;
    let lines = lines.expect("the watch shows what happened").unwrap();
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn brief(events: &[Value]) -> Vec<String> {
    let show = |event: &Value| {
        let object = &event["object"];
        let name = object["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap())
    };
    events.iter().map(show).collect()
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_watch_resumes_where_it_was() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let first = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    maps.create(&PostParams::default(), &config_map("b", "1"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"data": {"key": "2"}}));
    maps.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let version = first.metadata.resource_version.unwrap();
    let path = format!("{MAPS}?watch=true&resourceVersion={version}");
    let events = read(&cluster, &path, 3).await;
    assert_eq!(brief(&events), ["ADDED b", "MODIFIED a", "DELETED a"]);
    let versions: Vec<u64> = events
        .iter()
        .map(|e| {
            e["object"]["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert!(
        versions.is_sorted() && versions[0] < versions[2],
        "{versions:?}"
    );
    let path = format!("{MAPS}?watch=true&resourceVersion={}", versions[1]);
    assert_eq!(
        brief(&read(&cluster, &path, 1).await),
        ["DELETED a"],
        "deletion has its own version"
    );
    let now = read(&cluster, &format!("{MAPS}?watch=true"), 1).await;
    assert_eq!(
        brief(&now),
        ["ADDED b"],
        "without a version, what is there comes first"
    );
}

#[tokio::test]
async fn leaving_and_entering_a_selection_are_events() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    let created = pods
        .create(&PostParams::default(), &pod("a", &json!({"app": "x"})))
        .await
        .unwrap();
    let version = created.metadata.resource_version.unwrap();
    for app in ["y", "y2", "x", "x"] {
        let patch = json!({"metadata": {"labels": {"app": app}, "annotations": {"n": app}}});
        pods.patch("a", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    let path = format!("/api/v1/pods?watch=true&resourceVersion={version}&labelSelector=app%3Dx");
    let events = read(&cluster, &path, 3).await;
    assert_eq!(brief(&events), ["DELETED a", "ADDED a", "DELETED a"]);
    assert_eq!(
        events[0]["object"]["metadata"]["labels"]["app"], "x",
        "as it was when selected"
    );
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    for name in ["a", "b"] {
        maps.create(&PostParams::default(), &config_map(name, "1"))
            .await
            .unwrap();
    }
    let query = "watch=true&allowWatchBookmarks=true&sendInitialEvents=true";
    let path = format!("{MAPS}?{query}&resourceVersionMatch=NotOlderThan");
    let events = read(&cluster, &path, 3).await;
    assert_eq!(brief(&events), ["ADDED a", "ADDED b", "BOOKMARK -"]);
    let annotations = &events[2]["object"]["metadata"]["annotations"];
    assert_eq!(annotations, &json!({"k8s.io/initial-events-end": "true"}));
    let (status, answer) = cluster.get(&format!("{MAPS}?{query}")).await;
    assert_eq!((status, &answer["reason"]), (422, &json!("Invalid")));
}

#[tokio::test]
async fn forgotten_history_is_told() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let first = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    maps.create(&PostParams::default(), &config_map("b", "1"))
        .await
        .unwrap();
    cluster.control_plane.api().store().compact();
    let version = first.metadata.resource_version.unwrap();
    let path = format!("{MAPS}?watch=true&resourceVersion={version}");
    let events = read(&cluster, &path, 1).await;
    assert_eq!(events[0]["type"], "ERROR");
    let status = &events[0]["object"];
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("too old resource version: ")
    );
}

#[tokio::test]
async fn a_table_watch_sends_headings_once() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    for name in ["a", "b"] {
        maps.create(&PostParams::default(), &config_map(name, "1"))
            .await
            .unwrap();
    }
    let request = http::Request::get(format!(
        "{MAPS}?watch=true&resourceVersion=0&timeoutSeconds=1"
    ))
    .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
    .body(Vec::new())
    .unwrap();
    let stream = cluster.client.request_stream(request).await.unwrap();
    let lines: Vec<String> = stream.lines().try_collect().await.unwrap();
    let tables: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(tables.len(), 2, "the watch ended by its timeout");
    assert_eq!(tables[0]["object"]["columnDefinitions"][1]["name"], "Data");
    assert_eq!(tables[1]["object"]["columnDefinitions"], Value::Null);
    assert_eq!(tables[1]["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test]
async fn informers_of_both_kinds_follow() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let events = watcher(maps.clone(), config);
        let mut objects = Box::pin(kube::runtime::WatchStreamExt::touched_objects(events));
        let next = tokio::time::timeout(Duration::from_secs(20), objects.next()).await;
        let object = next.expect("the informer starts").unwrap().unwrap();
        assert_eq!(object.metadata.name.as_deref(), Some("a"));
    }
    let list = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1);
}
