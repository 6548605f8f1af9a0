#![allow(
    clippy::needless_pass_by_value,
    reason = "json! borrows; calls read better without &"
)]

use desired::cluster::Backend;
use desired::lease::attributes::VxlanData;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::*;

const PREFIX: &str = "flannel.alpha.coreos.com";

fn translated(annotations: Value) -> Translated<Node> {
    let object = serde_json::from_value(json!({
        "metadata": {"name": "n2", "annotations": annotations},
        "spec": {"podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24", "fd00:2::/64"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "172.30.0.2"},
            {"type": "Hostname", "address": "n2"},
        ]},
    }));
    node(&object.unwrap(), &AnnotationKeys::new(PREFIX).unwrap()).unwrap()
}

fn annotations(backend_data: &str, public_ip: &str) -> Value {
    json!({
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": backend_data,
        "flannel.alpha.coreos.com/public-ip": public_ip,
    })
}

fn expected(announced: Option<Announced>) -> Node {
    Node {
        name: "n2".parse().unwrap(),
        pod_cidrs: vec![
            "10.244.2.0/24".parse().unwrap(),
            "fd00:2::/64".parse().unwrap(),
        ],
        addresses: vec!["172.30.0.2".parse().unwrap()],
        announced,
        asked: AskedAddresses::default(),
        network_unavailable: None,
    }
}

#[test]
fn flannels_annotations_are_understood() {
    let data = "{\"VNI\":1,\"VtepMAC\":\"3a:2a:00:00:00:02\"}";
    let data_v4 = VxlanData {
        vni: 1.try_into().unwrap(),
        vtep_mac: "3a:2a:00:00:00:02".parse().unwrap(),
    };
    let peer = Announced {
        public_ip: "172.30.0.2".parse().ok(),
        public_ipv6: None,
        backend: Backend::Vxlan {
            v4: Some(data_v4),
            v6: None,
        },
    };
    assert_eq!(
        translated(annotations(data, "172.30.0.2")),
        Translated {
            value: expected(Some(peer)),
            problems: vec![]
        }
    );
}

#[test]
fn a_node_that_has_not_joined_is_no_problem() {
    assert_eq!(
        translated(json!({})),
        Translated {
            value: expected(None),
            problems: vec![]
        }
    );
}

#[test]
fn a_wrong_annotation_costs_the_node_its_place_only() {
    let good = "{\"VNI\":1,\"VtepMAC\":\"3a:2a:00:00:00:02\"}";
    for (data, ip, field) in [
        ("VNI 1", "172.30.0.2", "backend-data"),
        ("{\"VNI\":1}", "172.30.0.2", "backend-data"),
        (
            "{\"VNI\":16777216,\"VtepMAC\":\"3a:2a:00:00:00:02\"}",
            "172.30.0.2",
            "backend-data",
        ),
        (
            "{\"VNI\":1,\"VtepMAC\":\"ff:ff:ff:ff:ff:ff\"}",
            "172.30.0.2",
            "backend-data",
        ),
        (good, "fd00::1", "public-ip"),
        (good, "node-2", "public-ip"),
    ] {
        let translated = translated(annotations(data, ip));
        assert_eq!(translated.value, expected(None), "{data} {ip}");
        let fields: Vec<_> = translated
            .problems
            .iter()
            .map(|p| p.field.as_str())
            .collect();
        assert_eq!(fields, [format!("metadata.annotations[{PREFIX}/{field}]")]);
    }
}

#[test]
fn a_node_that_takes_part_without_saying_how_is_reported() {
    let good = "{\"VNI\":1,\"VtepMAC\":\"3a:2a:00:00:00:02\"}";
    for missing in ["backend-type", "public-ip"] {
        let mut said = annotations(good, "172.30.0.2");
        let said_of = said.as_object_mut().unwrap();
        said_of.remove(&format!("{PREFIX}/{missing}")).unwrap();
        let translated = translated(said);
        assert_eq!(translated.value, expected(None), "{missing}");
        let fields: Vec<_> = translated.problems.iter().map(|p| &p.field).collect();
        assert_eq!(
            fields,
            [&format!("metadata.annotations[{PREFIX}/{missing}]")]
        );
    }
}

#[test]
fn the_condition_of_the_network_is_read() {
    for (status, read) in [
        (json!([]), None),
        (json!([{ "type": "Ready", "status": "True" }]), None),
        (
            json!([{ "type": "Ready", "status": "True" }, { "type": "NetworkUnavailable", "status": "False" }]),
            Some(false),
        ),
        (
            json!([{ "type": "NetworkUnavailable", "status": "True" }]),
            Some(true),
        ),
        (
            json!([{ "type": "NetworkUnavailable", "status": "Unknown" }]),
            None,
        ),
    ] {
        let object = json!({ "metadata": { "name": "n2" }, "status": { "conditions": status } });
        let object: core::Node = serde_json::from_value(object).unwrap();
        let keys = AnnotationKeys::new(PREFIX).unwrap();
        let read_now = node(&object, &keys).unwrap().value.network_unavailable;
        assert_eq!(read_now, read);
    }
}

#[test]
fn an_administrators_addresses_are_read_and_wrong_ones_are_named() {
    let asked = translated(json!({
        "flannel.alpha.coreos.com/node-public-ip": "172.30.0.9",
        "flannel.alpha.coreos.com/public-ip-overwrite": "203.0.113.9",
        "flannel.alpha.coreos.com/public-ipv6-overwrite": "2001:db8::9",
        "flannel.alpha.coreos.com/node-public-ipv6": "172.30.0.9",
    }));
    let expected = AskedAddresses {
        public_ip: "172.30.0.9".parse().ok(),
        public_ipv6: None,
        announced: "203.0.113.9".parse().ok(),
        announced_v6: "2001:db8::9".parse().ok(),
    };
    assert_eq!(asked.value.asked, expected);
    let fields: Vec<_> = asked.problems.iter().map(|p| p.field.as_str()).collect();
    let wrong = "metadata.annotations[flannel.alpha.coreos.com/node-public-ipv6]";
    assert_eq!(fields, [wrong]);
}

#[test]
fn every_backend_is_kept_as_it_is_called() {
    for (name, backend) in [
        ("host-gw", Backend::HostGw),
        ("vxlan", Backend::Vxlan { v4: None, v6: None }),
        ("udp", Backend::Other("udp".to_owned())),
    ] {
        let mut other = annotations("null", "172.30.0.2");
        other["flannel.alpha.coreos.com/backend-type"] = json!(name);
        let translated = translated(other);
        assert_eq!(translated.problems, []);
        assert_eq!(translated.value.announced.unwrap().backend, backend);
    }
}

#[test]
fn prefixes_follow_flannels_rule() {
    let key = |prefix| AnnotationKeys::new(prefix).map(|keys| keys.public_ip);
    assert_eq!(key("a.b").as_deref(), Ok("a.b/public-ip"));
    assert_eq!(key("a.b/").as_deref(), Ok("a.b/public-ip"));
    assert_eq!(key("a.b/c").as_deref(), Ok("a.b/c-public-ip"));
    assert_eq!(key("a.b/c-").as_deref(), Ok("a.b/c-public-ip"));
    assert!(key("").is_err());
    assert!(key("a/b/c").is_err());
}
