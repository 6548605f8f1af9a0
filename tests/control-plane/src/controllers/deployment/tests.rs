use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::*;
use crate::controllers::testing::{ago, now, snapshot};

fn deployment(image: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "generation": 2,
                     "annotations": {"team": "blue"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate",
                         "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "template": template(image),
        },
    })
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}},
           "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A set as the controller leaves it: `asked` replicas, of which `available` are.
fn set(name: &str, image: &str, revision: i32, asked: i32, available: i32) -> Value {
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = json!(name);
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": "shop", "generation": 1, "creationTimestamp": ago(1000 - i64::from(revision)),
            "labels": {"app": "web", "pod-template-hash": name},
            "annotations": {
                "team": "blue",
                "deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": "4",
                "deployment.kubernetes.io/max-replicas": "5",
            },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web",
                                 "uid": "web-uid", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {"replicas": asked, "template": template,
                 "selector": {"matchLabels": {"app": "web", "pod-template-hash": name}}},
        "status": {"replicas": asked, "readyReplicas": available, "availableReplicas": available,
                   "observedGeneration": 1},
    })
}

fn reconcile(objects: &[Value]) -> Vec<Action> {
    let key = Key::new::<Deployment>("shop", "web");
    Deployments.reconcile(&key, &snapshot(objects), now())
}

/// The replicas that the actions give to existing sets, by name.
fn scaled(actions: &[Action]) -> Vec<(&str, i64)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Patch { key, patch, .. } if key.is::<ReplicaSet>() => {
                Some((key.name.as_str(), patch["spec"]["replicas"].as_i64()?))
            }
            _ => None,
        })
        .collect()
}

fn created(actions: &[Action]) -> Option<&Value> {
    actions.iter().find_map(|action| match action {
        Action::Create { object, .. } => Some(object),
        _ => None,
    })
}

fn status(actions: &[Action]) -> &Value {
    let patch = actions.iter().find_map(|action| match action {
        Action::Patch {
            subresource: Some("status"),
            patch,
            ..
        } => Some(&patch["status"]),
        _ => None,
    });
    patch.unwrap()
}

fn reasons(status: &Value) -> Vec<&str> {
    let conditions = status["conditions"].as_array().unwrap();
    conditions
        .iter()
        .map(|condition| condition["reason"].as_str().unwrap())
        .collect()
}

#[test]
fn a_new_deployment_gets_one_whole_set() {
    let actions = reconcile(&[deployment("pause:1", 4)]);
    let set = created(&actions).unwrap();
    let hash = set["metadata"]["labels"]["pod-template-hash"].clone();
    let mut labelled = template("pause:1");
    labelled["metadata"]["labels"]["pod-template-hash"] = hash.clone();
    let wanted = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("web-{}", hash.as_str().unwrap()), "namespace": "shop",
            "labels": {"app": "web", "pod-template-hash": hash},
            "annotations": {
                "team": "blue",
                "deployment.kubernetes.io/revision": "1",
                "deployment.kubernetes.io/desired-replicas": "4",
                "deployment.kubernetes.io/max-replicas": "5",
            },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web",
                                 "uid": "web-uid", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {"replicas": 4, "template": labelled,
                 "selector": {"matchLabels": {"app": "web", "pod-template-hash": hash}}},
    });
    assert_eq!(set, &wanted);
    assert_eq!(status(&actions)["observedGeneration"], 2);
    assert_eq!(
        reasons(status(&actions)),
        ["MinimumReplicasUnavailable", "NewReplicaSetCreated"]
    );
    let annotation = Action::Patch {
        key: Key::new::<Deployment>("shop", "web"),
        subresource: None,
        patch: json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}}}),
    };
    assert_eq!(actions.last(), Some(&annotation));
}

#[test]
fn a_new_template_starts_with_what_the_surge_allows() {
    let actions = reconcile(&[deployment("pause:2", 4), set("one", "pause:1", 1, 4, 4)]);
    let set = created(&actions).unwrap();
    assert_eq!(set["spec"]["replicas"], 1);
    assert_eq!(
        set["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );
    assert_eq!(scaled(&actions), [("one", 3)]);
}

#[test]
fn a_rollout_moves_within_its_limits() {
    let step = |old: (i32, i32), new: (i32, i32)| {
        let actions = reconcile(&[
            deployment("pause:2", 4),
            set("one", "pause:1", 1, old.0, old.1),
            set("two", "pause:2", 2, new.0, new.1),
        ]);
        let scaled: Vec<(String, i64)> = scaled(&actions)
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        scaled
    };
    let to = |name: &str, count: i64| vec![(name.to_owned(), count)];
    assert_eq!(
        step((3, 3), (1, 0)),
        to("two", 2),
        "one pod less of the old makes room for a new one"
    );
    assert_eq!(
        step((3, 3), (2, 0)),
        [],
        "three available: none may go before a new one is ready"
    );
    assert_eq!(
        step((3, 3), (2, 1)),
        to("one", 2),
        "a new one is ready, an old one may go"
    );
    assert_eq!(
        step((3, 1), (2, 2)),
        to("one", 1),
        "unhealthy old pods go first"
    );
    assert_eq!(
        step((0, 0), (3, 3)),
        to("two", 4),
        "the last step of growth"
    );
    assert_eq!(step((1, 1), (4, 4)), to("one", 0), "the last old pod goes");
}

#[test]
fn recreate_waits_for_the_old_pods_to_be_gone() {
    let mut recreate = deployment("pause:2", 4);
    recreate["spec"]["strategy"] = json!({"type": "Recreate"});
    let actions = reconcile(&[recreate.clone(), set("one", "pause:1", 1, 4, 4)]);
    assert_eq!(
        (scaled(&actions), created(&actions)),
        (vec![("one", 0)], None)
    );
    let last = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "shop", "deletionTimestamp": ago(1),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "one",
                                 "uid": "one-uid", "controller": true}]},
        "spec": {"containers": []},
    });
    let emptied = [recreate, set("one", "pause:1", 1, 0, 0), last];
    assert_eq!(created(&reconcile(&emptied)), None);
    assert_eq!(
        created(&reconcile(&emptied[..2])).unwrap()["spec"]["replicas"],
        4
    );
}

#[test]
fn scaling_during_a_rollout_keeps_the_balance() {
    let actions = reconcile(&[
        deployment("pause:2", 9),
        set("one", "pause:1", 1, 3, 3),
        set("two", "pause:2", 2, 2, 1),
    ]);
    // Ten pods may exist instead of five: each set doubles.
    assert_eq!(scaled(&actions), [("one", 6), ("two", 4)]);
}

#[test]
fn a_rollback_reuses_the_old_set_under_a_new_number() {
    let actions = reconcile(&[
        deployment("pause:1", 4),
        set("one", "pause:1", 1, 0, 0),
        set("two", "pause:2", 2, 4, 4),
    ]);
    assert_eq!(created(&actions), None);
    let Some(Action::Patch { key, patch, .. }) = actions
        .iter()
        .find(|action| matches!(action, Action::Patch { key, .. } if key.name == "one"))
    else {
        panic!("a patch of the old set expected, not {actions:?}")
    };
    assert_eq!(key.name, "one");
    assert_eq!(
        patch["metadata"]["annotations"],
        json!({"deployment.kubernetes.io/revision": "3"})
    );
    assert_eq!(patch["spec"]["replicas"], 1);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut paused = deployment("pause:2", 6);
    paused["spec"]["paused"] = json!(true);
    let actions = reconcile(&[paused, set("one", "pause:1", 1, 4, 4)]);
    assert_eq!(
        (scaled(&actions), created(&actions)),
        (vec![("one", 6)], None)
    );
    assert_eq!(
        reasons(status(&actions)),
        ["MinimumReplicasUnavailable", "DeploymentPaused"]
    );
}

#[test]
fn a_finished_rollout_says_so_and_old_sets_beyond_the_history_go() {
    let mut finished = deployment("pause:4", 4);
    finished["spec"]["revisionHistoryLimit"] = json!(1);
    let actions = reconcile(&[
        finished,
        set("one", "pause:1", 1, 0, 0),
        set("two", "pause:2", 2, 0, 0),
        set("four", "pause:4", 4, 4, 4),
    ]);
    let deleted: Vec<&str> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Delete { key, .. } => Some(key.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(deleted, ["one"]);
    let status = status(&actions);
    assert_eq!(
        reasons(status),
        ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]
    );
    let counts = [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ];
    assert_eq!(counts.map(|name| status[name].as_i64()), [Some(4); 4]);
    assert_eq!(status["unavailableReplicas"], Value::Null);
}

#[test]
fn a_rollout_without_progress_is_reported_at_its_deadline() {
    let stuck = |since: i64| {
        let mut stuck = deployment("pause:2", 4);
        stuck["spec"]["progressDeadlineSeconds"] = json!(60);
        stuck["status"] = json!({
            "observedGeneration": 2, "replicas": 5, "updatedReplicas": 2, "readyReplicas": 3,
            "availableReplicas": 3, "unavailableReplicas": 2,
            "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
                {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
                 "lastUpdateTime": ago(since), "lastTransitionTime": ago(since)},
            ],
        });
        stuck["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("2");
        [
            stuck,
            set("one", "pause:1", 1, 3, 3),
            set("two", "pause:2", 2, 2, 0),
        ]
    };
    let wait = Action::Recheck(std::time::Duration::from_secs(20));
    assert_eq!(reconcile(&stuck(40)), [wait]);
    let actions = reconcile(&stuck(61));
    assert_eq!(
        reasons(status(&actions)),
        ["MinimumReplicasAvailable", "ProgressDeadlineExceeded"]
    );
}

#[test]
fn a_name_taken_by_something_else_is_counted_as_a_collision() {
    let name = {
        let actions = reconcile(&[deployment("pause:1", 4)]);
        created(&actions).unwrap()["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut foreign = set(&name, "other", 1, 1, 1);
    foreign["metadata"]["ownerReferences"][0]["uid"] = json!("somebody-else");
    let actions = reconcile(&[deployment("pause:1", 4), foreign]);
    assert_eq!(
        actions,
        [Action::Patch {
            key: Key::new::<Deployment>("shop", "web"),
            subresource: Some("status"),
            patch: json!({"status": {"collisionCount": 1}}),
        }]
    );
}

#[test]
fn shares_round_surge_up_and_unavailability_down() {
    let limits = |strategy: Value| {
        let mut object = deployment("pause", 10);
        object["spec"]["strategy"] = strategy;
        let limits = Limits::of(&serde_json::from_value(object).unwrap());
        (limits.surge, limits.unavailable)
    };
    let rolling = |surge: Value, unavailable: Value| json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    assert_eq!(limits(json!({})), (3, 2));
    assert_eq!(limits(rolling(json!("15%"), json!("15%"))), (2, 1));
    assert_eq!(limits(rolling(json!(0), json!(0))), (0, 1));
    assert_eq!(limits(rolling(json!(4), json!(40))), (4, 10));
    assert_eq!(limits(json!({"type": "Recreate"})), (0, 0));
}
