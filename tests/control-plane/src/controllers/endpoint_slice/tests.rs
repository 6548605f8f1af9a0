use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::*;
use crate::controllers::testing::{now, observe, snapshot};

fn service(spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"tier": "front"},
                     "creationTimestamp": "2026-01-01T11:00:00Z"},
        "spec": spec,
    })
}

fn plain_service() -> Value {
    service(&json!({
        "selector": {"app": "web"},
        "clusterIP": "10.96.0.9",
        "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}],
    }))
}

fn node(name: &str, zone: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
           "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})
}

fn pod(name: &str, address: &str, ready: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
                            "lastTransitionTime": "2026-01-01T11:30:00Z"}]},
    })
}

fn endpoint(name: &str, address: &str, conditions: [bool; 3]) -> Value {
    let [ready, serving, terminating] = conditions;
    json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "nodeName": "n1", "zone": "z1",
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": name, "uid": format!("{name}-uid")},
    })
}

fn slice(name: &str, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": name, "namespace": "shop",
            "labels": {"tier": "front", "kubernetes.io/service-name": "web",
                       "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T11:30:00Z"},
        },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

fn reconcile(objects: &[Value]) -> Vec<Action> {
    let key = Key::new::<Service>("shop", "web");
    EndpointSlices.reconcile(&key, &snapshot(objects), now())
}

fn created(actions: &[Action]) -> Vec<&Value> {
    actions
        .iter()
        .map(|action| match action {
            Action::Create { object, .. } => object,
            other => panic!("only creations expected, not {other:?}"),
        })
        .collect()
}

#[test]
fn a_new_service_gets_one_whole_slice() {
    let mut leaving = pod("c", "10.244.0.4", true);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T11:59:00Z");
    let mut done = pod("d", "10.244.0.5", true);
    done["status"]["phase"] = json!("Succeeded");
    let mut homeless = pod("e", "10.244.0.6", true);
    homeless["spec"]["nodeName"] = json!("gone");
    let actions = reconcile(&[
        plain_service(),
        node("n1", "z1"),
        pod("a", "10.244.0.2", true),
        pod("b", "10.244.0.3", false),
        leaving,
        done,
        homeless,
    ]);
    assert_eq!(
        created(&actions),
        [&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "generateName": "web-", "namespace": "shop",
                "labels": {"tier": "front", "kubernetes.io/service-name": "web",
                           "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T11:30:00Z"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web",
                                     "uid": "web-uid", "controller": true, "blockOwnerDeletion": true}],
            },
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                endpoint("a", "10.244.0.2", [true, true, false]),
                endpoint("b", "10.244.0.3", [false, false, false]),
                endpoint("c", "10.244.0.4", [false, true, true]),
            ],
        })]
    );
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let endpoints = [endpoint("a", "10.244.0.2", [true, true, false])];
    let objects = [
        plain_service(),
        node("n1", "z1"),
        pod("a", "10.244.0.2", true),
        slice("web-1", &endpoints),
    ];
    assert_eq!(reconcile(&objects), []);
}

#[test]
fn a_readiness_change_rewrites_only_the_slice_that_holds_the_pod() {
    let mut changed = pod("a", "10.244.0.2", false);
    changed["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T11:58:00Z");
    let actions = reconcile(&[
        plain_service(),
        node("n1", "z1"),
        changed,
        pod("b", "10.244.0.3", true),
        slice("web-1", &[endpoint("a", "10.244.0.2", [true, true, false])]),
        slice("web-2", &[endpoint("b", "10.244.0.3", [true, true, false])]),
    ]);
    assert_eq!(
        actions,
        [Action::Patch {
            key: Key::new::<EndpointSlice>("shop", "web-1"),
            subresource: None,
            patch: json!({
                "metadata": {
                    "resourceVersion": "5",
                    "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T11:58:00Z"},
                },
                "endpoints": [endpoint("a", "10.244.0.2", [false, false, false])],
            }),
        }]
    );
}

#[test]
fn a_slice_holds_at_most_a_hundred_endpoints() {
    let mut objects = vec![plain_service(), node("n1", "z1")];
    objects.extend((0..205).map(|n| pod(&format!("p{n:03}"), &format!("10.244.1.{n}"), true)));
    let sizes: Vec<usize> = created(&reconcile(&objects))
        .iter()
        .map(|slice| slice["endpoints"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [100, 100, 5]);
}

#[test]
fn a_named_port_that_differs_by_pod_makes_slices_per_port() {
    let mut other = pod("b", "10.244.0.3", true);
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090);
    let mut lacking = pod("c", "10.244.0.4", true);
    lacking["spec"]["containers"][0]["ports"][0]["name"] = json!("admin");
    let objects = [
        plain_service(),
        node("n1", "z1"),
        pod("a", "10.244.0.2", true),
        other,
        lacking,
    ];
    let actions = reconcile(&objects);
    let ports: Vec<&Value> = created(&actions)
        .iter()
        .map(|slice| &slice["ports"])
        .collect();
    assert_eq!(
        ports,
        [
            &json!([]),
            &json!([{"name": "http", "port": 8080, "protocol": "TCP"}]),
            &json!([{"name": "http", "port": 9090, "protocol": "TCP"}]),
        ]
    );
}

#[test]
fn scaling_to_zero_leaves_one_empty_slice() {
    let old = slice("web-1", &[endpoint("a", "10.244.0.2", [true, true, false])]);
    let actions = reconcile(&[plain_service(), old]);
    let [Action::Create { object, .. }, Action::Delete { key, .. }] = actions.as_slice() else {
        panic!("a placeholder and a deletion expected, not {actions:?}")
    };
    assert_eq!(
        (&object["endpoints"], &object["ports"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(key.name, "web-1");
}

#[test]
fn headless_not_ready_dual_stack_and_hints() {
    let spec = json!({
        "selector": {"app": "web"}, "clusterIP": "None", "ipFamilies": ["IPv4", "IPv6"],
        "publishNotReadyAddresses": true, "trafficDistribution": "PreferSameNode",
    });
    let mut both = pod("a", "10.244.0.2", false);
    both["status"]["podIPs"] = json!([{"ip": "10.244.0.2"}, {"ip": "fd00::2"}]);
    both["spec"]["hostname"] = json!("a");
    both["spec"]["subdomain"] = json!("web");
    let actions = reconcile(&[service(&spec), node("n1", "z1"), both]);
    let slices = created(&actions);
    let summary: Vec<(&Value, &Value)> = slices
        .iter()
        .map(|slice| (&slice["addressType"], &slice["endpoints"][0]["addresses"]))
        .collect();
    assert_eq!(
        summary,
        [
            (&json!("IPv4"), &json!(["10.244.0.2"])),
            (&json!("IPv6"), &json!(["fd00::2"]))
        ]
    );
    assert_eq!(
        slices[0]["metadata"]["labels"]["service.kubernetes.io/headless"],
        ""
    );
    let endpoint = &slices[0]["endpoints"][0];
    assert_eq!(
        endpoint["conditions"],
        json!({"ready": true, "serving": false, "terminating": false})
    );
    assert_eq!(endpoint["hostname"], "a");
    assert_eq!(
        endpoint["hints"],
        json!({"forNodes": [{"name": "n1"}], "forZones": [{"name": "z1"}]})
    );
}

#[test]
fn services_whose_endpoints_others_write_are_left_alone() {
    for spec in [
        json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.org", "selector": {"app": "web"}}),
    ] {
        assert_eq!(
            reconcile(&[
                service(&spec),
                node("n1", "z1"),
                pod("a", "10.244.0.2", true)
            ]),
            []
        );
    }
}

#[test]
fn a_pod_concerns_the_services_that_select_it_before_or_after() {
    let mut state = snapshot(&[plain_service(), pod("a", "10.244.0.2", true)]);
    let mut renamed = pod("a", "10.244.0.2", true);
    renamed["metadata"]["labels"]["app"] = json!("other");
    let change = observe(&mut state, &renamed, 9).remove(0);
    let web = [Key::new::<Service>("shop", "web")];
    assert_eq!(EndpointSlices.affected(&change, &state), web);
    renamed["metadata"]["annotations"] = json!({"touched": "yes"});
    let change = observe(&mut state, &renamed, 10).remove(0);
    assert_eq!(EndpointSlices.affected(&change, &state), []);
}

#[test]
fn a_node_concerns_services_only_when_its_zone_changes() {
    let mut state = snapshot(&[
        plain_service(),
        node("n1", "z1"),
        pod("a", "10.244.0.2", true),
    ]);
    let mut beat = node("n1", "z1");
    beat["status"] = json!({"conditions": []});
    let change = observe(&mut state, &beat, 9).remove(0);
    assert_eq!(EndpointSlices.affected(&change, &state), []);
    let change = observe(&mut state, &node("n1", "z2"), 10).remove(0);
    assert_eq!(
        EndpointSlices.affected(&change, &state),
        [Key::new::<Service>("shop", "web")]
    );
}
