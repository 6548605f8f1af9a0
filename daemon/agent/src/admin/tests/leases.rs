use pretty_assertions::assert_eq;
use serde_json::json;

use desired::fixture;

use super::{Api, cluster};
use crate::findings::Findings;
use crate::store::Kind;
use crate::translate::TranslateError;

#[tokio::test]
async fn every_lease_is_shown_with_its_state() {
    let mut silent = desired::cluster::Node::new("n3".parse().unwrap());
    silent.pod_cidrs = vec!["10.244.3.0/24".parse().unwrap()];
    let other = fixture::node("n4", "10.244.1.0/24", "02:00:00:00:00:04", "172.30.0.4");
    let api = Api::over(cluster().with_node(silent).with_node(other));
    let (status, answer) = api.get("/v1/leases").await;
    assert_eq!(status, 200);
    assert_eq!(answer["store"], "kube");
    let states: Vec<_> = answer["leases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lease| {
            (
                lease["node"].as_str().unwrap(),
                lease["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        states,
        [("n2", "ok"), ("n3", "unannounced"), ("n4", "problem")]
    );
}

#[tokio::test]
async fn a_wrong_annotation_is_shown_at_its_node_with_value_and_remedy() {
    let wrong = TranslateError {
        object: "Node n3".to_owned(),
        field: "metadata.annotations[flannel.alpha.coreos.com/backend-data]".to_owned(),
        value: "{\"VNI\":1,\"VtepMAC\":\"x\"}".to_owned(),
        remedy: "use a MAC".to_owned(),
    };
    let mut findings = Findings::default();
    findings.of_object(Kind::Node, "n3", vec![wrong.clone()]);
    let nameless = TranslateError {
        object: "Node N_4".to_owned(),
        ..wrong.clone()
    };
    findings.of_object(Kind::Node, "N_4", vec![nameless.clone()]);
    let mut node = desired::cluster::Node::new("n3".parse().unwrap());
    node.pod_cidrs = vec!["192.168.3.0/24".parse().unwrap()];
    let api = Api::with(cluster().with_node(node), findings);
    let said = "metadata.annotations[flannel.alpha.coreos.com/backend-data] \"{\\\"VNI\\\":1,\\\"VtepMAC\\\":\\\"x\\\"}\": use a MAC; \
                subnet 192.168.3.0/24 is not within this node's Network 10.244.0.0/16: make net-conf.json the same on every node";
    let (_, leases) = api.get("/v1/leases").await;
    assert_eq!(leases["leases"][1]["node"], "n3");
    assert_eq!(leases["leases"][1]["state"], "problem");
    assert_eq!(leases["leases"][1]["problem"], said);
    assert_eq!(leases["unreadable"], json!([nameless.to_string()]));
    let (_, nodes) = api.get("/v1/nodes").await;
    assert_eq!(nodes[1]["problem"], said);
    let (_, status) = api.get("/v1/status").await;
    assert_eq!(
        status["notes"],
        json!([
            format!("left out: {nameless}"),
            format!("left out: {wrong}")
        ])
    );
}
