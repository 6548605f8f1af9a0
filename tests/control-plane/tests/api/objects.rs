//! Create, read, update, patch, delete.

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::support::{Cluster, code, config_map};

#[tokio::test]
async fn an_object_lives_and_dies() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let post = PostParams::default();
    let created = maps.create(&post, &config_map("a", "1")).await.unwrap();
    assert!(created.metadata.uid.is_some() && created.metadata.creation_timestamp.is_some());
    assert_eq!(code(maps.create(&post, &config_map("a", "1")).await), 409);

    let mut changed = created.clone();
    changed.data = Some([("key".to_owned(), "2".to_owned())].into());
    let changed = maps.replace("a", &post, &changed).await.unwrap();
    assert_eq!(
        code(maps.replace("a", &post, &created).await),
        409,
        "stale version"
    );
    let same = maps.replace("a", &post, &changed).await.unwrap();
    assert_eq!(
        same.metadata.resource_version, changed.metadata.resource_version,
        "no-op"
    );
    assert_eq!(maps.get("a").await.unwrap(), changed);

    let mut blind = config_map("a", "3");
    blind.metadata.resource_version = None;
    let blind = maps.replace("a", &post, &blind).await.unwrap();
    assert_eq!(
        blind.metadata.uid, created.metadata.uid,
        "a PUT without version keeps identity"
    );

    let deleted = maps.delete("a", &DeleteParams::default()).await.unwrap();
    let status = deleted
        .right()
        .expect("deletion of a ConfigMap answers with a Status");
    assert_eq!(status.details.unwrap().uid, created.metadata.uid.unwrap());
    assert_eq!(code(maps.get("a").await), 404);
    assert_eq!(code(maps.delete("a", &DeleteParams::default()).await), 404);
}

#[tokio::test]
async fn unknown_fields_survive_and_are_reported() {
    let cluster = Cluster::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let body =
        json!({"metadata": {"name": "a"}, "data": {"x": "1"}, "fromTheFuture": {"deep": [1]}});
    let (status, answer) = cluster
        .post(&format!("{maps}?fieldValidation=Strict"), &body)
        .await;
    assert_eq!(
        (status, answer["reason"].as_str()),
        (400, Some("BadRequest"))
    );
    assert_eq!(
        answer["message"],
        "strict decoding error: unknown field \"fromTheFuture\""
    );
    let (status, answer) = cluster.post(maps, &body).await;
    assert_eq!(
        (status, &answer["fromTheFuture"]),
        (201, &json!({"deep": [1]}))
    );
    let (_, answer) = cluster.get(&format!("{maps}/a")).await;
    assert_eq!(answer["fromTheFuture"], json!({"deep": [1]}));
    let (status, answer) = cluster
        .post(maps, &json!({"metadata": {"name": "b"}, "data": {"x": 1}}))
        .await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test]
async fn patches_of_all_kinds() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"a": "1"}},
        "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.2"}]},
    });
    let node: Node = serde_json::from_value(node).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let params = PatchParams::default();
    let merge = json!({"metadata": {"labels": {"a": null, "b": "2"}}});
    let merged = nodes
        .patch("n", &params, &Patch::Merge(&merge))
        .await
        .unwrap();
    assert_eq!(
        merged.metadata.labels,
        Some([("b".to_owned(), "2".to_owned())].into())
    );

    let condition = |reason: &str| json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": reason}]}});
    for reason in ["First", "Second"] {
        let patch = Patch::Strategic(condition(reason));
        nodes.patch_status("n", &params, &patch).await.unwrap();
    }
    let network = json!({"status": {"conditions": [
        {"type": "NetworkUnavailable", "status": "False", "reason": "RouteCreated"},
    ]}});
    let both = nodes
        .patch_status("n", &params, &Patch::Strategic(&network))
        .await
        .unwrap();
    let status = both.status.unwrap();
    let conditions: Vec<_> = status
        .conditions
        .unwrap()
        .into_iter()
        .map(|c| (c.type_, c.reason.unwrap()))
        .collect();
    let pair = |kind: &str, reason: &str| (kind.to_owned(), reason.to_owned());
    assert_eq!(
        conditions,
        [
            pair("Ready", "Second"),
            pair("NetworkUnavailable", "RouteCreated")
        ]
    );
    assert_eq!(status.addresses.unwrap().len(), 1);

    let json_patch = async |operations: Value| {
        let operations = serde_json::from_value(operations).unwrap();
        nodes
            .patch("n", &params, &Patch::Json::<()>(operations))
            .await
    };
    let patched = json_patch(json!([
        {"op": "test", "path": "/metadata/labels/b", "value": "2"},
        {"op": "add", "path": "/spec/unschedulable", "value": true},
    ]));
    assert_eq!(
        patched.await.unwrap().spec.unwrap().unschedulable,
        Some(true)
    );
    let failing = json!([{"op": "test", "path": "/metadata/labels/b", "value": "3"}]);
    assert_eq!(code(json_patch(failing).await), 422);
    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"c": "1"}}});
    assert_eq!(
        code(nodes.patch("n", &params, &Patch::Merge(&stale)).await),
        409
    );
}

#[tokio::test]
async fn status_and_specification_do_not_touch_each_other() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({
        "metadata": {"name": "d"}, "status": {"replicas": 9},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    let (status, created) = cluster.post(path, &deployment).await;
    assert_eq!((status, &created["status"]), (201, &json!({})), "{created}");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(
        created["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    let object = format!("{path}/d");
    let mut wanted = created.clone();
    wanted["status"] = json!({"replicas": 3});
    wanted["spec"]["replicas"] = 5.into();
    let put = |path: String, body: Value| {
        let cluster = &cluster;
        async move {
            cluster
                .request("PUT", &path, "application/json", &body)
                .await
        }
    };
    let (_, after) = put(format!("{object}/status"), wanted.clone()).await;
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(after["metadata"]["generation"], 1);
    wanted["metadata"]["resourceVersion"] = after["metadata"]["resourceVersion"].clone();
    wanted["status"] = json!({"replicas": 7});
    let (_, after) = put(object.clone(), wanted.clone()).await;
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(5), &json!(3))
    );
    assert_eq!(after["metadata"]["generation"], 2);
    let scale = json!({"spec": {"replicas": 2}});
    let (status, scaled) = put(format!("{object}/scale"), scale).await;
    assert_eq!(
        (status, &scaled["spec"]["replicas"]),
        (200, &json!(2)),
        "{scaled}"
    );
    wanted["metadata"]["resourceVersion"] = Value::Null;
    wanted["spec"]["selector"]["matchLabels"]["app"] = "other".into();
    let (status, answer) = put(object, wanted).await;
    let fields: Vec<&Value> = answer["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["field"])
        .collect();
    assert_eq!(status, 422);
    assert_eq!(fields, ["spec.template.metadata.labels", "spec.selector"]);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let mut map = config_map("held", "1");
    map.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&PostParams::default(), &map).await.unwrap();
    let marked = maps
        .delete("held", &DeleteParams::default())
        .await
        .unwrap()
        .left();
    assert!(marked.unwrap().metadata.deletion_timestamp.is_some());
    let add = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let params = PatchParams::default();
    assert_eq!(
        code(maps.patch("held", &params, &Patch::Merge(&add)).await),
        422
    );
    let free = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &params, &Patch::Merge(&free))
        .await
        .unwrap();
    assert_eq!(code(maps.get("held").await), 404);
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    assert!(
        maps.create(&dry, &config_map("a", "1"))
            .await
            .unwrap()
            .metadata
            .uid
            .is_some()
    );
    assert_eq!(code(maps.get("a").await), 404);
    let real = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    maps.replace("a", &dry, &config_map("a", "2"))
        .await
        .unwrap();
    maps.delete("a", &DeleteParams::default().dry_run())
        .await
        .unwrap();
    assert_eq!(maps.get("a").await.unwrap(), real);
}

#[tokio::test]
async fn generated_names_and_collections() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    for index in 0..5 {
        let mut map = config_map("", "1");
        map.metadata.name = None;
        map.metadata.generate_name = Some("gen-".into());
        map.metadata.labels = Some([("odd".to_owned(), (index % 2).to_string())].into());
        let name = maps
            .create(&PostParams::default(), &map)
            .await
            .unwrap()
            .metadata
            .name
            .unwrap();
        assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    }
    let odd = ListParams::default().labels("odd=1");
    maps.delete_collection(&DeleteParams::default(), &odd)
        .await
        .unwrap();
    let left = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.len(), 3);
    assert!(maps.list(&odd).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn namespaces_guard_their_content() {
    let cluster = Cluster::start().await;
    let body = json!({"metadata": {"name": "a"}});
    let (status, answer) = cluster
        .post("/api/v1/namespaces/none/configmaps", &body)
        .await;
    assert_eq!(
        (status, &answer["message"]),
        (404, &json!("namespaces \"none\" not found"))
    );
    let (status, namespace) = cluster
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}}))
        .await;
    assert_eq!(status, 201);
    assert_eq!(
        namespace["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": "team"})
    );
    assert_eq!(
        cluster
            .post("/api/v1/namespaces/team/configmaps", &body)
            .await
            .0,
        201
    );
    let (_, marked) = cluster
        .delete("/api/v1/namespaces/team", &Value::Null)
        .await;
    assert_eq!(marked["status"]["phase"], "Terminating");
    let (status, answer) = cluster
        .post("/api/v1/namespaces/team/configmaps", &body)
        .await;
    assert_eq!(status, 403);
    assert_eq!(
        answer["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    let mut done = marked.clone();
    done["spec"]["finalizers"] = json!([]);
    let finalize = "/api/v1/namespaces/team/finalize";
    let (status, _) = cluster
        .request("PUT", finalize, "application/json", &done)
        .await;
    assert_eq!(status, 200);
    assert_eq!(cluster.get("/api/v1/namespaces/team").await.0, 404);
}

#[tokio::test]
async fn bad_requests_name_what_is_wrong() {
    let cluster = Cluster::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let (status, answer) = cluster
        .post(maps, &json!({"metadata": {"name": "Not_A_Name"}}))
        .await;
    assert_eq!(status, 422);
    assert_eq!(answer["details"]["causes"][0]["field"], "metadata.name");
    let (status, answer) = cluster
        .post(maps, &json!({"kind": "Secret", "metadata": {"name": "a"}}))
        .await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = cluster
        .get("/api/v1/pods?fieldSelector=spec.color%3Dred")
        .await;
    assert_eq!(status, 400);
    assert!(
        answer["message"].as_str().unwrap().contains("spec.color"),
        "{answer}"
    );
    assert_eq!(cluster.get("/api/v1/pods?limit=many").await.0, 400);
    assert_eq!(cluster.get("/api/v1/gadgets").await.0, 404);
    assert_eq!(cluster.get("/apis/example.com/v1").await.0, 404);
    let large = json!({"metadata": {"name": "a"}, "data": {"x": "x".repeat(4 << 20)}});
    assert_eq!(cluster.post(maps, &large).await.0, 413);
}
