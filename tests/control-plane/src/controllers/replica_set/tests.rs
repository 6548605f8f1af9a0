use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::*;
use crate::controllers::testing::{ago, now, snapshot};

fn set(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "shop", "generation": 3},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"note": "x"}},
                "spec": {"containers": [{"name": "c", "image": "pause"}]},
            },
        },
        "status": {"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2,
                   "availableReplicas": 2, "observedGeneration": 3},
    })
}

fn owner() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web-uid",
           "controller": true, "blockOwnerDeletion": true})
}

fn pod(name: &str, ready: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"},
                     "ownerReferences": [owner()]},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "conditions": [{
            "type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": ago(60)}]},
    })
}

fn reconcile(objects: &[Value]) -> Vec<Action> {
    let key = Key::new::<ReplicaSet>("shop", "web");
    ReplicaSets.reconcile(&key, &snapshot(objects), now())
}

fn deleted(actions: &[Action]) -> Vec<&str> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Delete { key, .. } => Some(key.name.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn missing_pods_are_made_from_the_template() {
    let actions = reconcile(&[set(3), pod("a", true), pod("b", true)]);
    let wanted = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-", "namespace": "shop", "labels": {"app": "web"},
                     "annotations": {"note": "x"}, "ownerReferences": [owner()]},
        "spec": {"containers": [{"name": "c", "image": "pause"}]},
    });
    let [Action::Create { object, .. }] = actions.as_slice() else {
        panic!("one pod expected, not {actions:?}")
    };
    assert_eq!(object, &wanted);
}

#[test]
fn a_set_as_it_should_be_is_not_touched() {
    assert_eq!(reconcile(&[set(2), pod("a", true), pod("b", true)]), []);
}

#[test]
fn ended_and_leaving_pods_are_replaced() {
    let mut failed = pod("a", false);
    failed["status"]["phase"] = json!("Failed");
    let mut leaving = pod("b", true);
    leaving["metadata"]["deletionTimestamp"] = json!(ago(1));
    let actions = reconcile(&[set(2), failed, leaving]);
    let creations = actions
        .iter()
        .filter(|action| matches!(action, Action::Create { .. }))
        .count();
    assert_eq!(creations, 2);
}

#[test]
fn the_least_useful_pods_go_first() {
    let mut unbound = pod("unbound", true);
    unbound["spec"]["nodeName"] = json!(null);
    let mut pending = pod("pending", false);
    pending["status"]["phase"] = json!("Pending");
    let mut cheap = pod("cheap", true);
    cheap["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-5"});
    let mut young = pod("young", true);
    young["status"]["conditions"][0]["lastTransitionTime"] = json!(ago(5));
    let objects = [
        set(1),
        pod("old", true),
        young,
        cheap,
        pod("unready", false),
        pending,
        unbound,
    ];
    let actions = reconcile(&objects);
    assert_eq!(
        deleted(&actions),
        ["unbound", "pending", "unready", "cheap", "young"]
    );
}

#[test]
fn the_status_counts_what_is_there() {
    let mut set = set(3);
    set["metadata"]["generation"] = json!(4);
    set["spec"]["minReadySeconds"] = json!(90);
    let mut unlabelled = pod("c", false);
    unlabelled["metadata"]["labels"]["more"] = json!("x");
    set["spec"]["template"]["metadata"]["labels"]["more"] = json!("x");
    let actions = reconcile(&[set, pod("a", true), pod("b", true), unlabelled]);
    assert_eq!(
        actions,
        [
            Action::Patch {
                key: Key::new::<ReplicaSet>("shop", "web"),
                subresource: Some("status"),
                patch: json!({
                    "metadata": {"resourceVersion": "1"},
                    "status": {"replicas": 3, "fullyLabeledReplicas": 1, "availableReplicas": 0,
                               "observedGeneration": 4},
                }),
            },
            Action::Recheck(std::time::Duration::from_secs(30)),
        ]
    );
}

#[test]
fn matching_orphans_are_adopted_and_strangers_released() {
    let mut orphan = pod("orphan", true);
    orphan["metadata"]["ownerReferences"] = json!(null);
    let mut stranger = pod("stranger", true);
    stranger["metadata"]["labels"] = json!({"app": "other"});
    let mut foreign = pod("foreign", true);
    foreign["metadata"]["ownerReferences"][0]["uid"] = json!("somebody-else");
    let actions = reconcile(&[set(2), pod("a", true), orphan, stranger, foreign]);
    let patch = |name: &str, owners: Value, revision: &str| Action::Patch {
        key: Key::new::<Pod>("shop", name),
        subresource: None,
        patch: json!({"metadata": {"ownerReferences": owners, "resourceVersion": revision,
                                   "uid": format!("{name}-uid")}}),
    };
    assert_eq!(
        actions,
        [
            patch("orphan", json!([owner()]), "3"),
            patch("stranger", json!([]), "4")
        ]
    );
}

#[test]
fn a_set_that_is_being_deleted_makes_no_pods() {
    let mut set = set(5);
    set["metadata"]["deletionTimestamp"] = json!(ago(1));
    assert_eq!(reconcile(&[set, pod("a", true), pod("b", true)]), []);
}
