//! What the checks run on: servers on each node behind a Service, a client, and pods for policy.

use serde_json::{Value, json};

use crate::layout::NodeId;

/// Namespace of the connectivity checks.
pub(super) const DEMO: &str = "demo";
/// Namespace of the policy checks.
pub(super) const POLICY: &str = "policy";
/// Namespace that policy lets in by its label.
pub(super) const FRIENDS: &str = "friends";

/// HTTP port of every pod.
pub(super) const HTTP: u16 = 8080;
/// UDP port of every pod.
pub(super) const UDP: u16 = 8081;
/// TCP echo port of every pod.
pub(super) const ECHO: u16 = 8082;

/// A pod that runs `netexec` on `node`, ready when it answers.
pub(super) fn pod(namespace: &str, name: &str, app: &str, node: NodeId) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node.name()},
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "netexec",
                "image": "towline.dev/agnhost",
                "args": ["netexec", "--http-port=8080", "--udp-port=8081", "--echo-port=8082"],
                "ports": [{"name": "http", "containerPort": HTTP}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1}
            }]
        }
    })
}

/// A Service over the pods labelled `app`, with TCP, UDP and echo ports.
pub(super) fn service(namespace: &str, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "selector": {"app": app},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http"},
                {"name": "echo", "port": 82, "targetPort": ECHO},
                {"name": "dns", "port": 81, "targetPort": UDP, "protocol": "UDP"}
            ]
        }
    })
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"team": name}}
    })
}

/// Names of the servers, one per node.
pub(super) const SERVERS: [&str; 3] = ["server-1", "server-2", "server-3"];

/// Every object of the checks, in an order in which they can be created.
pub(super) fn objects() -> Vec<Value> {
    let mut objects = vec![namespace(DEMO), namespace(POLICY), namespace(FRIENDS)];
    for (name, node) in SERVERS.into_iter().zip(1..) {
        objects.push(pod(DEMO, name, "server", NodeId(node)));
    }
    objects.extend([
        pod(DEMO, "client-1", "client", NodeId(1)),
        pod(POLICY, "target-1", "target", NodeId(1)),
        pod(POLICY, "good-1", "good", NodeId(1)),
        pod(POLICY, "bad-1", "bad", NodeId(1)),
        pod(POLICY, "good-2", "good", NodeId(2)),
        pod(POLICY, "bad-2", "bad", NodeId(2)),
        pod(FRIENDS, "friend-2", "friend", NodeId(2)),
        service(DEMO, "server", "server"),
        service(DEMO, "nobody", "nobody"),
        service(POLICY, "target", "target"),
    ]);
    objects
}

/// Ingress of `target`: from pods labelled good and from the namespace friends, to the HTTP port only.
pub(super) const INGRESS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: policy, name: target-ingress}
spec:
  podSelector: {matchLabels: {app: target}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {matchLabels: {app: good}}
    - namespaceSelector: {matchLabels: {team: friends}}
    ports:
    - {protocol: TCP, port: 8080}
"#;

/// Egress of `bad`: to the servers of the namespace demo, to the HTTP port only.
pub(super) const EGRESS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: policy, name: bad-egress}
spec:
  podSelector: {matchLabels: {app: bad}}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: demo}}
      podSelector: {matchLabels: {app: server}}
    ports:
    - {protocol: TCP, port: 8080}
"#;
