use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::show::{View, text};

fn services() -> Value {
    let endpoint = |address: &str, pod: &str, node: &str, readiness: &str| json!({ "address": address, "pod": pod, "node": node, "local": node == "n1", "readiness": readiness });
    json!([
        {
            "name": "default/web", "type": "ClusterIP", "programmed": true,
            "clusterIps": ["10.96.0.10"],
            "ports": [{
                "name": "http", "protocol": "TCP", "port": 80, "nodePort": null,
                "endpoints": [
                    endpoint("10.244.0.5:8080", "default/web-1", "n1", "ready"),
                    endpoint("10.244.1.5:8080", "default/web-2", "n2", "ready"),
                    endpoint("10.244.1.6:8080", "default/web-3", "n2", "notReady"),
                ],
            }],
        },
        {
            "name": "kube-system/dns", "type": "NodePort", "programmed": true,
            "clusterIps": ["10.96.0.2"],
            "ports": [{ "name": "", "protocol": "UDP", "port": 53, "nodePort": 30053, "endpoints": [] }],
        },
    ])
}

#[test]
fn services_are_one_line_per_port() {
    assert_eq!(
        text(View::Services, &services()),
        "\
SERVICE           TYPE        CLUSTER IP   PORT           READY   LOCAL   ENDPOINTS
default/web       ClusterIP   10.96.0.10   http:80/TCP    2/3     1       10.244.0.5:8080,10.244.1.5:8080
kube-system/dns   NodePort    10.96.0.2    53/UDP@30053   0/0     0       -
"
    );
}

#[test]
fn one_service_shows_its_endpoints_with_their_state() {
    let one = json!([services()[0]]);
    assert_eq!(
        text(View::Service, &one),
        "\
SERVICE       TYPE        CLUSTER IP   PORT          READY   LOCAL   ENDPOINTS
default/web   ClusterIP   10.96.0.10   http:80/TCP   2/3     1       10.244.0.5:8080,10.244.1.5:8080

PORT          ENDPOINT          POD             NODE   LOCAL   STATE
http:80/TCP   10.244.0.5:8080   default/web-1   n1     yes     ready
http:80/TCP   10.244.1.5:8080   default/web-2   n2     no      ready
http:80/TCP   10.244.1.6:8080   default/web-3   n2     no      notReady
"
    );
}

#[test]
fn status_says_what_the_node_waits_for() {
    let status = json!({
        "version": "0.1.0", "node": "n1", "started": "2026-11-21T06:00:00Z", "ready": false,
        "waitingFor": ["a lease in etcd"], "notes": ["etcd is not followed"], "datapath": "ebpf", "services": true,
        "policy": true, "lease": null, "objects": { "nodes": 3, "pods": 10 },
        "loops": {
            "overlay": {
                "passes": 2, "lastPass": "2026-11-21T06:00:01Z", "lastMicros": 900, "puts": 1,
                "deletes": 0, "driftRepaired": 0, "errors": ["overlay: compute : no interface"],
            },
        },
    });
    assert_eq!(
        text(View::Status, &status),
        "\
Node        n1
Ready       no
            waits for a lease in etcd
Note        etcd is not followed
Version     0.1.0, since 2026-11-21T06:00:00Z
Datapath    ebpf, services yes, policy yes
Subnet      -
Overlay     - -, public IP -
Objects     nodes 3, pods 10

LOOP      PASSES   LAST                   MICROS   DRIFT   ERRORS
overlay   2        2026-11-21T06:00:01Z   900      0       overlay: compute : no interface
"
    );
}

#[test]
fn routes_and_nodes_have_their_columns() {
    let routes = json!({
        "routes": [{
            "destination": "10.244.1.0/24", "gateway": "10.244.1.0", "device": "flannel.1",
            "neighbourMac": "02:00:00:00:00:02", "nodeAddress": "172.30.0.3",
        }],
        "problems": ["node n3: VNI 2 differs from ours, 1"],
    });
    assert_eq!(
        text(View::Routes, &routes),
        "\
DESTINATION     VIA          DEVICE      NEIGHBOUR           NODE ADDRESS
10.244.1.0/24   10.244.1.0   flannel.1   02:00:00:00:00:02   172.30.0.3
left out: node n3: VNI 2 differs from ours, 1
"
    );
    let nodes = json!([{
        "name": "n1", "thisNode": true, "podCIDRs": ["10.244.0.0/24"], "addresses": ["172.30.0.2"],
        "overlay": { "publicIPs": ["172.30.0.2"], "backend": "vxlan", "state": "own" }, "problem": null,
    }]);
    assert_eq!(
        text(View::Nodes, &nodes),
        "\
NAME   THIS   POD CIDR        PUBLIC IP    BACKEND   STATE   PROBLEM
n1     yes    10.244.0.0/24   172.30.0.2   vxlan     own     -
"
    );
}

#[test]
fn leases_have_owner_end_and_state_and_the_store_its_say() {
    let answer = json!({
        "store": "etcd", "connected": false, "ownExpires": "2026-11-22T05:53:00Z", "expiryUnknown": null,
        "trouble": "connect: refused", "troubleSince": "2026-11-21T06:01:00Z",
        "obstacle": "no subnet is free", "unreadable": ["notes: not a subnet"],
        "leases": [
            {
                "subnets": ["10.5.1.0/24"], "node": "n1", "own": true, "publicIPs": ["192.0.2.1"],
                "backend": "host-gw", "data": [], "state": "own", "problem": null,
                "since": "2026-11-21T06:00:00Z", "expiry": 86_000,
            },
            {
                "subnets": ["10.5.2.0/24"], "node": null, "own": false, "publicIPs": ["192.0.2.2"],
                "backend": "host-gw", "data": [], "state": "ok", "problem": null,
                "since": null, "expiry": "never",
            },
        ],
    });
    assert_eq!(
        crate::show::leases(&answer, "2026-11-21T06:05:02Z".parse().unwrap()),
        "\
SUBNET        OWNER       PUBLIC IP   BACKEND   DATA   EXPIRES IN   KNOWN FOR   STATE   PROBLEM
10.5.1.0/24   n1          192.0.2.1   host-gw   -      23h53m       5m2s        own     -
10.5.2.0/24   192.0.2.2   192.0.2.2   host-gw   -      never        -           ok      -
not connected to etcd since 2026-11-21T06:01:00Z: this is what was known last
trouble with the store: connect: refused
this node holds no lease safely: no subnet is free
this node's lease lasts until 2026-11-22T05:53:00Z if the store stays away
cannot be read, counts as taken: notes: not a subnet
"
    );
}

#[test]
fn no_node_at_all_is_said_in_words() {
    let said = text(View::Nodes, &json!([]));
    assert!(said.contains("`towline leases`"), "{said}");
}

#[test]
fn a_release_says_what_is_gone() {
    let removed = json!({ "routes": ["10.5.2.0/24"], "devices": ["flannel.1"], "rules": ["inet towline"], "files": [] });
    assert_eq!(
        crate::node::released(&json!({ "subnets": ["10.5.1.0/24"], "removed": removed })),
        "lease     10.5.1.0/24\nroutes    10.5.2.0/24\ndevices   flannel.1\nrules     inet towline\n\
         towlined runs on, and takes no lease before it is restarted.\n"
    );
    let nothing = json!({ "routes": [], "devices": [], "rules": [], "files": [] });
    let again = crate::node::released(&json!({ "subnets": [], "removed": nothing }));
    assert!(again.starts_with("There was nothing left"), "{again}");
}

#[test]
fn no_difference_is_said_in_words() {
    assert_eq!(
        text(View::Diff, &json!([])),
        "The kernel holds exactly what the cluster asks for.\n"
    );
    assert_eq!(
        text(
            View::Diff,
            &json!([{ "table": "routes", "problem": "missing", "key": "10.244.1.0/24" }])
        ),
        "TABLE    PROBLEM   KEY\nroutes   missing   10.244.1.0/24\n"
    );
}

#[test]
fn endpoints_have_short_container_ids() {
    let answer = json!([{
        "pod": "default/a", "hostInterface": "veth1", "addresses": ["10.244.0.5"],
        "policyRevision": 7, "containerId": "2916139fe2fdae8eb6e89247bc87", "waitingFor": null,
    }]);
    assert_eq!(
        text(View::Endpoints, &answer),
        "\
POD         INTERFACE   ADDRESS      REVISION   CONTAINER       WAITING FOR
default/a   veth1       10.244.0.5   7          2916139fe2fda   -
"
    );
}
