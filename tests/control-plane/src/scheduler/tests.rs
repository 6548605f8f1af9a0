use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::*;
use crate::controllers::testing::{ago, now, observe, snapshot};

fn node(name: &str, more: &Value) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": "a"}},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
                   "allocatable": {"cpu": "1", "memory": "1Gi", "pods": "3"}},
    });
    json_patch::merge(&mut node, more);
    node
}

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"containers": [{"name": "c"}]},
    });
    json_patch::merge(&mut pod["spec"], spec);
    pod
}

fn placed(name: &str, node: &str, spec: &Value) -> Value {
    let mut pod = pod(name, spec);
    pod["spec"]["nodeName"] = json!(node);
    pod
}

/// Where the pod `new` goes, or why nowhere.
fn outcome(new: &Value, others: &[Value]) -> Result<String, String> {
    let mut objects = others.to_vec();
    objects.push(pod("new", new));
    let snapshot = snapshot(&objects);
    let pod = snapshot.pods.get("shop", "new").unwrap();
    choose(pod, &snapshot).map(|node| name_of(&node.metadata).to_owned())
}

fn refused(reason: &str) -> Result<String, String> {
    Err(format!("0/1 nodes are available: 1 {reason}."))
}

fn to(node: &str) -> Result<String, String> {
    Ok(node.to_owned())
}

#[test]
fn without_nodes_there_is_no_place() {
    assert_eq!(
        outcome(&json!({}), &[]),
        Err("no nodes available to schedule pods".to_owned())
    );
}

#[test]
fn node_rules_select_by_labels_and_name() {
    let nodes = [
        node("n1", &json!({})),
        node("n2", &json!({"metadata": {"labels": {"zone": "b"}}})),
    ];
    let required = |term: Value| {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
    };
    let expression = |key: &str, operator: &str, values: &[&str]| json!([{"key": key, "operator": operator, "values": values}]);
    assert_eq!(
        outcome(&json!({"nodeSelector": {"zone": "b"}}), &nodes),
        to("n2")
    );
    let not_a = required(json!({"matchExpressions": expression("zone", "NotIn", &["a"])}));
    assert_eq!(outcome(&not_a, &nodes), to("n2"));
    let by_name = required(json!({"matchFields": expression("metadata.name", "In", &["n2"])}));
    assert_eq!(outcome(&by_name, &nodes), to("n2"));
    let nowhere = outcome(&required(json!({})), &nodes[..1]);
    assert_eq!(
        nowhere,
        refused("node(s) didn't match Pod's node affinity/selector")
    );
}

#[test]
fn taints_and_states_repel_unless_tolerated() {
    let toleration = |key: &str| json!({"tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"}]});
    let table = [
        (
            json!({"spec": {"unschedulable": true}}),
            "node.kubernetes.io/unschedulable",
            "node(s) were unschedulable",
        ),
        (
            json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}}),
            "gpu",
            "node(s) had untolerated taint {gpu: yes}",
        ),
        (
            json!({"status": {"conditions": []}}),
            "node.kubernetes.io/not-ready",
            "node(s) had untolerated taint {node.kubernetes.io/not-ready: }",
        ),
    ];
    for (state, key, reason) in table {
        let nodes = [node("n1", &state)];
        assert_eq!(outcome(&json!({}), &nodes), refused(reason));
        assert_eq!(
            outcome(&toleration(key), &nodes),
            to("n1"),
            "{key} tolerated"
        );
        assert_eq!(
            outcome(&toleration("other"), &nodes),
            refused(reason),
            "{key} not tolerated"
        );
    }
}

#[test]
fn resources_must_suffice() {
    let asks =
        |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    let objects = [node("n1", &json!({})), placed("a", "n1", &asks("600m"))];
    assert_eq!(outcome(&asks("400m"), &objects), to("n1"));
    assert_eq!(
        outcome(&asks("401m"), &objects),
        refused("Insufficient cpu")
    );
    let mut ended = placed("a", "n1", &asks("600m"));
    ended["status"] = json!({"phase": "Succeeded"});
    assert_eq!(
        outcome(&asks("1"), &[node("n1", &json!({})), ended]),
        to("n1")
    );
    let full: Vec<Value> = std::iter::once(node("n1", &json!({})))
        .chain(["a", "b", "c"].map(|name| placed(name, "n1", &json!({}))))
        .collect();
    assert_eq!(outcome(&json!({}), &full), refused("Too many pods"));
}

#[test]
fn host_ports_collide_by_address_protocol_and_number() {
    let port = |address: &str, protocol: &str, number: u16| {
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": number,
                               "hostIP": address, "protocol": protocol}]}]})
    };
    let objects = [
        node("n1", &json!({})),
        placed("a", "n1", &port("10.0.0.1", "TCP", 8080)),
    ];
    let taken = refused("node(s) didn't have free ports for the requested pod ports");
    assert_eq!(outcome(&port("10.0.0.1", "TCP", 8080), &objects), taken);
    assert_eq!(outcome(&port("0.0.0.0", "TCP", 8080), &objects), taken);
    assert_eq!(outcome(&port("10.0.0.2", "TCP", 8080), &objects), to("n1"));
    assert_eq!(outcome(&port("10.0.0.1", "UDP", 8080), &objects), to("n1"));
    assert_eq!(outcome(&port("10.0.0.1", "TCP", 8081), &objects), to("n1"));
}

fn rule(kind: &str, app: &str, key: &str) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}]}}})
}

#[test]
fn rules_between_pods_hold_in_both_directions() {
    let nodes = [
        node("n1", &json!({})),
        node("n2", &json!({"metadata": {"labels": {"zone": "b"}}})),
    ];
    let with = |pod: Value| [nodes[0].clone(), nodes[1].clone(), pod];
    let db = with(placed("db", "n1", &json!({})));
    assert_eq!(outcome(&rule("podAffinity", "db", "zone"), &db), to("n1"));
    assert_eq!(
        outcome(&rule("podAntiAffinity", "db", "zone"), &db),
        to("n2")
    );
    let shy = with(placed("db", "n1", &rule("podAntiAffinity", "new", "zone")));
    assert_eq!(
        outcome(&json!({}), &shy),
        to("n2"),
        "the pod already there wants to be alone"
    );
    let own = outcome(&rule("podAffinity", "new", "zone"), &nodes);
    assert_eq!(
        own,
        to("n1"),
        "the first of a group that wants to be together"
    );
    let lonely = outcome(&rule("podAffinity", "db", "zone"), &nodes[..1]);
    assert_eq!(lonely, refused("node(s) didn't match pod affinity rules"));
    let crowded = outcome(
        &rule("podAntiAffinity", "db", "zone"),
        &[db[0].clone(), db[2].clone()],
    );
    assert_eq!(
        crowded,
        refused("node(s) didn't match pod anti-affinity rules")
    );
}

#[test]
fn spread_constraints_keep_the_skew() {
    let constraint = json!({"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}]});
    let far = node("n2", &json!({"metadata": {"labels": {"zone": "b"}}}));
    let objects = [
        node("n1", &json!({})),
        far.clone(),
        placed("x", "n1", &json!({})),
    ];
    assert_eq!(outcome(&constraint, &objects), to("n2"));
    let mut blocked = far;
    blocked["spec"]["unschedulable"] = json!(true);
    let objects = [
        node("n1", &json!({})),
        blocked,
        placed("x", "n1", &json!({})),
    ];
    let Err(message) = outcome(&constraint, &objects) else {
        panic!("the skew is not kept")
    };
    assert_eq!(
        message,
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, \
         1 node(s) were unschedulable."
    );
}

#[test]
fn of_several_nodes_the_preferred_and_then_the_emptiest_is_chosen() {
    let nodes = [
        node("n1", &json!({})),
        node("n2", &json!({"metadata": {"labels": {"zone": "b"}}})),
    ];
    let preference = json!({"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "preference": {
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]}}});
    assert_eq!(outcome(&preference, &nodes), to("n2"));
    let one = [
        nodes[0].clone(),
        nodes[1].clone(),
        placed("x", "n1", &json!({})),
    ];
    assert_eq!(outcome(&json!({}), &one), to("n2"));
    assert_eq!(
        outcome(&json!({}), &nodes),
        to("n1"),
        "of equals the first by name"
    );
}

#[test]
fn a_decision_is_a_binding_and_an_event() {
    let snapshot = snapshot(&[node("n1", &json!({})), pod("new", &json!({}))]);
    let key = Key::new::<Pod>("shop", "new");
    let actions = Scheduler.reconcile(&key, &snapshot, now());
    let [bind, Action::Create { object: event, .. }] = &actions[..] else {
        panic!("a binding and an event expected, not {actions:?}")
    };
    let wanted = Action::Bind {
        pod: key,
        uid: "new-uid".to_owned(),
        node: "n1".to_owned(),
    };
    assert_eq!(bind, &wanted);
    assert_eq!(event["message"], "Successfully assigned shop/new to n1");
    assert_eq!(event["involvedObject"]["uid"], "new-uid");
}

#[test]
fn why_a_pod_waits_is_said_once() {
    let objects = [pod("new", &json!({}))];
    let key = Key::new::<Pod>("shop", "new");
    let actions = Scheduler.reconcile(&key, &snapshot(&objects), now());
    let [
        Action::Patch {
            patch, subresource, ..
        },
        Action::Create { object: event, .. },
    ] = &actions[..]
    else {
        panic!("a condition and an event expected, not {actions:?}")
    };
    let conditions = json!([{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "no nodes available to schedule pods", "lastTransitionTime": now().to_string(),
    }]);
    assert_eq!(
        (*subresource, &patch["status"]["conditions"]),
        (Some("status"), &conditions)
    );
    assert_eq!(
        (&event["type"], &event["reason"]),
        (&json!("Warning"), &json!("FailedScheduling"))
    );
    let mut told = objects[0].clone();
    told["status"] = json!({"conditions": conditions});
    assert_eq!(Scheduler.reconcile(&key, &snapshot(&[told]), now()), []);
}

#[test]
fn only_pods_that_wait_for_this_scheduler_are_looked_at() {
    let nodes = [node("n1", &json!({}))];
    for spec in [
        json!({"nodeName": "n1"}),
        json!({"schedulerName": "another"}),
        json!({"schedulingGates": [{"name": "later"}]}),
    ] {
        let objects = [nodes[0].clone(), pod("new", &spec)];
        let key = Key::new::<Pod>("shop", "new");
        assert_eq!(
            Scheduler.reconcile(&key, &snapshot(&objects), now()),
            [],
            "{spec}"
        );
    }
}

#[test]
fn waiting_pods_are_looked_at_again_when_something_may_have_become_free() {
    let objects = [
        node("n1", &json!({})),
        pod("new", &json!({})),
        placed("x", "n1", &json!({})),
    ];
    let waiting = [Key::new::<Pod>("shop", "new")];
    let mut state = snapshot(&objects);
    let mut beat = node("n1", &json!({}));
    beat["status"]["conditions"][0]["lastHeartbeatTime"] = json!(ago(1));
    let change = observe(&mut state, &beat, 9).remove(0);
    assert_eq!(Scheduler.affected(&change, &state), []);
    beat["status"]["allocatable"]["cpu"] = json!("2");
    let change = observe(&mut state, &beat, 10).remove(0);
    assert_eq!(Scheduler.affected(&change, &state), waiting);
    let change = state
        .record_removed(&Key::new::<Pod>("shop", "x"), "x-uid")
        .unwrap();
    assert_eq!(Scheduler.affected(&change, &state), waiting);
}
