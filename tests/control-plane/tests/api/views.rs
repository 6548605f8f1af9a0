//! Lists, selectors, pages, tables, discovery, access.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::support::{Cluster, config, config_map, pod};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn selectors() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    for (name, app, node) in [("a", "web", "n1"), ("b", "web", "n2"), ("c", "db", "n1")] {
        let mut pod = pod(name, &json!({"app": app}));
        pod.spec.as_mut().unwrap().node_name = Some(node.into());
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
    let all: Api<Pod> = Api::all(cluster.client.clone());
    let names = async |params: ListParams| -> Vec<String> {
        let list = all.list(&params).await.unwrap();
        list.items
            .into_iter()
            .map(|pod| pod.metadata.name.unwrap())
            .collect()
    };
    let list = ListParams::default;
    assert_eq!(names(list().labels("app=web")).await, ["a", "b"]);
    assert_eq!(names(list().labels("app notin (web),app")).await, ["c"]);
    assert_eq!(names(list().fields("spec.nodeName=n1")).await, ["a", "c"]);
    assert_eq!(
        names(list().fields("spec.nodeName=n1,metadata.name!=a")).await,
        ["c"]
    );
    assert_eq!(
        names(list().labels("app=web").fields("spec.nodeName=n2")).await,
        ["b"]
    );
    assert_eq!(names(list().fields("status.phase=Running")).await, [""; 0]);
    let (_, one) = cluster
        .get("/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Db")
        .await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pages_show_one_moment() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    for index in 0..7 {
        let map = config_map(&format!("m{index}"), "1");
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let path = "/api/v1/namespaces/default/configmaps?limit=3";
    let (_, first) = cluster.get(path).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    maps.delete("m4", &DeleteParams::default()).await.unwrap();
    maps.create(&PostParams::default(), &config_map("m33", "1"))
        .await
        .unwrap();
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let token = |page: &Value| page["metadata"]["continue"].as_str().unwrap().to_owned();
    let (_, second) = cluster
        .get(&format!("{path}&continue={}", token(&first)))
        .await;
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    assert_eq!(
        names(&second),
        ["m3", "m4", "m5"],
        "as things were at the first page"
    );
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    cluster.control_plane.api().store().compact();
    let (status, expired) = cluster
        .get(&format!("{path}&continue={}", token(&second)))
        .await;
    assert_eq!((status, &expired["reason"]), (410, &json!("Expired")));
    let (status, rest) = cluster
        .get(&format!("{path}&continue={}", token(&expired)))
        .await;
    assert_eq!((status, names(&rest)), (200, vec!["m6".to_owned()]));
    assert_eq!(
        cluster.get(&format!("{path}&continue=nonsense")).await.0,
        400
    );
    let (status, future) = cluster.get("/api/v1/pods?resourceVersion=99999999").await;
    let cause = &future["details"]["causes"][0]["reason"];
    assert_eq!((status, cause), (504, &json!("ResourceVersionTooLarge")));
}

#[tokio::test]
async fn tables() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    pods.create(&PostParams::default(), &pod("a", &json!({"app": "a"})))
        .await
        .unwrap();
    let (status, table) = cluster
        .request("GET", "/api/v1/pods?limit=500", TABLE, &Value::Null)
        .await;
    assert_eq!((status, &table["kind"]), (200, &json!("Table")));
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        columns,
        [
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "IP",
            "Node",
            "Nominated Node",
            "Readiness Gates"
        ]
    );
    let row = &table["rows"][0];
    let cells = row["cells"].as_array().unwrap();
    assert_eq!(
        cells[..4],
        [json!("a"), json!("0/1"), json!("Pending"), json!("0")]
    );
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["object"]["metadata"]["labels"], json!({"app": "a"}));
    let bare = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
    assert_eq!(
        cluster
            .request("GET", "/api/v1/pods", bare, &Value::Null)
            .await
            .0,
        406
    );
    // Every kind can be shown.
    for resource in cluster.control_plane.client().resources() {
        if resource.verbs == towline_control_plane::registry::Verbs::All {
            let root = if resource.group.is_empty() {
                "/api/v1".to_owned()
            } else {
                format!("/apis/{}/{}", resource.group, resource.version)
            };
            let path = format!("{root}/{}", resource.plural);
            let (status, table) = cluster.request("GET", &path, TABLE, &Value::Null).await;
            assert_eq!((status, &table["kind"]), (200, &json!("Table")), "{path}");
        }
    }
}

#[tokio::test]
async fn discovery_in_both_forms() {
    let cluster = Cluster::start().await;
    let groups = cluster.client.list_api_groups().await.unwrap();
    assert!(
        groups
            .groups
            .iter()
            .any(|group| group.name == "networking.k8s.io")
    );
    let apps = cluster
        .client
        .list_api_group_resources("apps/v1")
        .await
        .unwrap();
    assert!(
        apps.resources
            .iter()
            .any(|resource| resource.name == "deployments/status")
    );
    let v2 =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let (_, core) = cluster.request("GET", "/api", v2, &Value::Null).await;
    assert_eq!(core["kind"], "APIGroupDiscoveryList");
    let version = cluster.client.apiserver_version().await.unwrap();
    assert_eq!(
        (version.major.as_str(), version.minor.as_str()),
        ("1", "35")
    );
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let cluster = Cluster::start().await;
    let mut stranger = config(&cluster.control_plane).await;
    stranger.auth_info = kube::config::AuthInfo::default();
    let client = kube::Client::try_from(stranger).unwrap();
    let pods: Api<Pod> = Api::all(client.clone());
    assert_eq!(
        crate::support::code(pods.list(&ListParams::default()).await),
        401
    );
    assert!(
        client.apiserver_version().await.is_ok(),
        "the version is public"
    );

    let limited = cluster
        .control_plane
        .authority()
        .client("joe", "people")
        .unwrap();
    let mut joe = config(&cluster.control_plane).await;
    let encode = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    joe.auth_info.client_certificate_data = Some(encode(&limited.certificate));
    joe.auth_info.client_key_data = Some(encode(&limited.key).into());
    let pods: Api<Pod> = Api::all(kube::Client::try_from(joe).unwrap());
    assert_eq!(
        crate::support::code(pods.list(&ListParams::default()).await),
        403
    );

    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (status, answer) = cluster.post(path, &review).await;
    assert_eq!((status, &answer["status"]["allowed"]), (201, &json!(true)));
}
