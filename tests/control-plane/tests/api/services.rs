//! Addresses and ports of Services over the API.

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::support::Cluster;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["ports"] = json!([{"port": 80}]);
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn addresses_are_given_kept_and_taken_back() {
    let cluster = Cluster::start().await;
    let (status, first) = cluster
        .post(SERVICES, &service("a", &json!({"selector": {"app": "a"}})))
        .await;
    assert_eq!(status, 201, "{first}");
    let address = first["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let range: ipnetwork::IpNetwork = "10.96.0.0/16".parse().unwrap();
    assert!(range.contains(address.parse().unwrap()), "{address}");
    assert_eq!(
        first["spec"],
        json!({
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "selector": {"app": "a"}, "sessionAffinity": "None",
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
        })
    );
    let taken = service("b", &json!({"clusterIP": address}));
    let (status, answer) = cluster.post(SERVICES, &taken).await;
    assert_eq!(
        (status, &answer["details"]["causes"][0]["field"]),
        (422, &json!("spec.clusterIPs"))
    );
    let outside = service("b", &json!({"clusterIP": "192.0.2.1"}));
    assert_eq!(cluster.post(SERVICES, &outside).await.0, 422);

    let path = format!("{SERVICES}/a");
    let mut moved = first.clone();
    moved["spec"]["clusterIP"] = "10.96.0.77".into();
    moved["spec"]["clusterIPs"] = json!(["10.96.0.77"]);
    let put = async |body: &Value| {
        cluster
            .request("PUT", &path, "application/json", body)
            .await
    };
    assert_eq!(put(&moved).await.0, 422, "an address does not change");
    let (status, kept) = put(&service("a", &json!({"selector": {"app": "b"}}))).await;
    assert_eq!((status, &kept["spec"]["clusterIP"]), (200, &json!(address)));

    let (status, deleted) = cluster.delete(&path, &Value::Null).await;
    assert_eq!((status, &deleted["kind"]), (200, &json!("Service")));
    assert_eq!(
        cluster.post(SERVICES, &taken).await.0,
        201,
        "the address is free again"
    );
}

#[tokio::test]
async fn node_ports_and_types() {
    let cluster = Cluster::start().await;
    let (_, created) = cluster
        .post(SERVICES, &service("a", &json!({"type": "NodePort"})))
        .await;
    let port = created["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30_000..=32_767).contains(&port), "{port}");
    let mut other = service("b", &json!({"type": "NodePort"}));
    other["spec"]["ports"][0]["nodePort"] = port.into();
    let (status, answer) = cluster.post(SERVICES, &other).await;
    assert_eq!(status, 422);
    assert_eq!(
        answer["details"]["causes"][0]["field"],
        "spec.ports[0].nodePort"
    );
    let patch = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": null}]}});
    let request = http::Request::patch(format!("{SERVICES}/a"))
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .unwrap();
    let changed: Value = cluster.client.request(request).await.unwrap();
    assert_eq!(changed["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(
        cluster.post(SERVICES, &other).await.0,
        201,
        "the port is free again"
    );

    let headless = service("h", &json!({"clusterIP": "None"}));
    let (_, created) = cluster.post(SERVICES, &headless).await;
    assert_eq!(created["spec"]["clusterIPs"], json!(["None"]));
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let (_, created) = cluster.post(SERVICES, &service("e", &external)).await;
    assert_eq!(created["spec"].get("clusterIP"), None);
}
