//! Pods.

use std::net::IpAddr;

use desired::cluster::{ContainerPort, Pod};
use desired::names::PodName;
use k8s_openapi::api::core::v1 as core;

use super::fields::Fields;
use super::{TranslateError, Translated};

/// Translates a Pod: one without address yet, with the node's network, or terminated, too.
///
/// # Errors
/// When its name or uid is not one.
pub fn pod(object: &core::Pod) -> Result<Translated<Pod>, TranslateError> {
    let mut fields = Fields::of("Pod", &object.metadata);
    let name = fields.name(&object.metadata, PodName::new)?;
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    let uid = uid
        .parse()
        .map_err(|wrong| fields.error("metadata.uid", uid, wrong))?;
    let mut pod = Pod::new(name, uid);
    pod.labels = object.metadata.labels.clone().unwrap_or_default();
    pod.deleting = object.metadata.deletion_timestamp.is_some();
    let created = object.metadata.creation_timestamp.as_ref();
    pod.created = created.map_or(0, |time| time.0.as_second());
    if let Some(spec) = &object.spec {
        pod.host_network = spec.host_network.unwrap_or_default();
        let node = spec.node_name.as_deref().filter(|node| !node.is_empty());
        pod.node = node.and_then(|node| fields.parse("spec.nodeName", node));
        pod.ports = container_ports(&mut fields, spec);
    }
    if let Some(status) = &object.status {
        pod.terminated = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        pod.addresses = addresses(&mut fields, status);
    }
    Ok(fields.done(pod))
}

fn addresses(fields: &mut Fields, status: &core::PodStatus) -> Vec<IpAddr> {
    let listed = status.pod_ips.iter().flatten();
    let mut texts: Vec<&str> = listed.map(|ip| ip.ip.as_str()).collect();
    if texts.is_empty() {
        texts.extend(status.pod_ip.as_deref());
    }
    fields.addresses(
        "status.podIPs",
        texts.into_iter().filter(|text| !text.is_empty()),
    )
}

/// Ports of containers that run as long as the pod does.
fn container_ports(fields: &mut Fields, spec: &core::PodSpec) -> Vec<ContainerPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let containers = spec
        .containers
        .iter()
        .map(|container| ("containers", container));
    let mut ports = Vec::new();
    for (list, container) in containers.chain(sidecars.map(|init| ("initContainers", init))) {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let field = format!("spec.{list}[{}].ports[{index}]", container.name);
            let protocol = fields.protocol(&format!("{field}.protocol"), port.protocol.as_deref());
            let number = fields.port(&format!("{field}.containerPort"), port.container_port);
            if let (Some(protocol), Some(number)) = (protocol, number) {
                let name = port.name.clone().filter(|name| !name.is_empty());
                ports.push(ContainerPort {
                    name,
                    protocol,
                    number,
                });
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use desired::names::Protocol;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    use super::*;

    fn translated(object: Value) -> Translated<Pod> {
        pod(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn a_running_pod_is_read_whole() {
        let translated = translated(json!({
            "metadata": {
                "namespace": "shop", "name": "web-0", "uid": "a-b", "labels": {"app": "web"},
                "creationTimestamp": "1970-01-01T00:01:00Z",
            },
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "web", "ports": [
                    {"name": "http", "containerPort": 8080},
                    {"containerPort": 53, "protocol": "UDP"},
                ]}],
                "initContainers": [
                    {"name": "mesh", "restartPolicy": "Always",
                     "ports": [{"name": "admin", "containerPort": 9000}]},
                    {"name": "setup", "ports": [{"name": "gone", "containerPort": 1}]},
                ],
            },
            "status": {"phase": "Running", "podIP": "10.244.1.5",
                       "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00::5"}]},
        }));
        let port = |name: Option<&str>, protocol, number: i32| ContainerPort {
            name: name.map(str::to_owned),
            protocol,
            number: number.try_into().unwrap(),
        };
        let mut value = Pod::new("shop/web-0".parse().unwrap(), "a-b".parse().unwrap());
        value.labels = [("app".to_owned(), "web".to_owned())].into();
        value.node = Some("n1".parse().unwrap());
        value.addresses = vec!["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        value.created = 60;
        value.ports = vec![
            port(Some("http"), Protocol::Tcp, 8080),
            port(None, Protocol::Udp, 53),
            port(Some("admin"), Protocol::Tcp, 9000),
        ];
        assert_eq!(
            translated,
            Translated {
                value,
                problems: vec![]
            }
        );
    }

    #[test]
    fn pods_that_have_no_address_of_their_own_say_so() {
        let with = |spec: Value, status: Value| {
            let metadata = json!({"namespace": "a", "name": "b", "uid": "c"});
            translated(json!({"metadata": metadata, "spec": spec, "status": status})).value
        };
        let containers = json!([]);
        let waiting = with(
            json!({"containers": containers}),
            json!({"phase": "Pending"}),
        );
        assert_eq!(
            (waiting.addresses.len(), waiting.has_own_addresses()),
            (0, true)
        );
        let host = with(
            json!({"containers": containers, "hostNetwork": true}),
            json!({"phase": "Running", "podIP": "172.30.0.1"}),
        );
        assert!(!host.has_own_addresses());
        for phase in ["Succeeded", "Failed"] {
            let over = with(
                json!({"containers": []}),
                json!({"phase": phase, "podIP": "10.0.0.1"}),
            );
            assert!(!over.has_own_addresses(), "{phase}");
        }
    }

    #[test]
    fn a_wrong_address_is_left_out_and_named() {
        let translated = translated(json!({
            "metadata": {"namespace": "a", "name": "b", "uid": "c"},
            "status": {"podIPs": [{"ip": "10.0.0.300"}, {"ip": "10.0.0.1"}]},
        }));
        assert_eq!(
            translated.value.addresses,
            ["10.0.0.1".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(
            translated.problems[0].to_string(),
            "Pod a/b: status.podIPs[0] \"10.0.0.300\": use an IPv4 or IPv6 address"
        );
    }

    #[test]
    fn a_pod_without_uid_is_refused() {
        let object = json!({"metadata": {"namespace": "a", "name": "b"}});
        let wrong = pod(&serde_json::from_value(object).unwrap()).unwrap_err();
        assert_eq!(
            (wrong.object.as_str(), wrong.field.as_str()),
            ("Pod a/b", "metadata.uid")
        );
    }
}
