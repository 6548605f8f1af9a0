//! Endpoint slices.

use desired::cluster::{EndpointSlice, SliceEndpoint, SlicePort};
use desired::names::{PodName, ServiceName, SliceName};
use k8s_openapi::api::discovery::v1 as discovery;

use super::fields::Fields;
use super::{TranslateError, Translated};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Translates an EndpointSlice. One of names (`addressType: FQDN`) has no endpoints for us.
///
/// # Errors
/// When its name is not one.
pub fn endpoint_slice(
    object: &discovery::EndpointSlice,
) -> Result<Translated<EndpointSlice>, TranslateError> {
    let mut fields = Fields::of("EndpointSlice", &object.metadata);
    let name = fields.name(&object.metadata, SliceName::new)?;
    let label = |key: &str| {
        object
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
    };
    let service = label(SERVICE_LABEL).and_then(|service| {
        let parsed = ServiceName::new(name.namespace.as_str(), service);
        fields.keep(
            &format!("metadata.labels[{SERVICE_LABEL}]"),
            service,
            parsed,
        )
    });
    let mut slice = EndpointSlice::new(name, service);
    slice.headless = label(HEADLESS_LABEL).is_some();
    slice.ports = ports(&mut fields, object);
    if object.address_type != "FQDN" {
        let endpoints = object.endpoints.iter().enumerate();
        slice.endpoints = endpoints
            .filter_map(|(index, one)| endpoint(&mut fields, index, one))
            .collect();
    }
    Ok(fields.done(slice))
}

fn ports(fields: &mut Fields, object: &discovery::EndpointSlice) -> Vec<SlicePort> {
    let mut ports = Vec::new();
    for (index, port) in object.ports.iter().flatten().enumerate() {
        let field = format!("ports[{index}]");
        let protocol = fields.protocol(&format!("{field}.protocol"), port.protocol.as_deref());
        // A missing number is "all ports"; a wrong one makes the entry useless.
        let number = match port.port {
            None => Some(None),
            Some(number) => fields.port(&format!("{field}.port"), number).map(Some),
        };
        if let (Some(protocol), Some(number)) = (protocol, number) {
            let name = port.name.clone().unwrap_or_default();
            ports.push(SlicePort {
                name,
                protocol,
                port: number,
            });
        }
    }
    ports
}

/// `None` when no address of it can be used.
fn endpoint(
    fields: &mut Fields,
    index: usize,
    object: &discovery::Endpoint,
) -> Option<SliceEndpoint> {
    let field = format!("endpoints[{index}]");
    let texts = object.addresses.iter().map(String::as_str);
    let addresses = fields.addresses(&format!("{field}.addresses"), texts);
    if addresses.is_empty() {
        return None;
    }
    let conditions = object.conditions.as_ref();
    let ready = conditions
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true);
    let serving = conditions
        .and_then(|conditions| conditions.serving)
        .unwrap_or(ready);
    let terminating = conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false);
    let node = object.node_name.as_deref();
    let node = node.and_then(|node| fields.parse(&format!("{field}.nodeName"), node));
    let target = object.target_ref.as_ref();
    let target = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = target.and_then(|target| {
        PodName::new(target.namespace.as_deref()?, target.name.as_deref()?).ok()
    });
    Some(SliceEndpoint {
        addresses,
        ready,
        serving,
        terminating,
        node,
        pod,
    })
}

#[cfg(test)]
mod tests {
    use desired::names::Protocol;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    use super::*;

    fn translated(object: Value) -> Translated<EndpointSlice> {
        endpoint_slice(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn conditions_that_are_left_out_have_their_defaults() {
        let endpoint = |conditions: Value| {
            let object = json!({
                "metadata": {"namespace": "shop", "name": "web-x"}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.244.1.5"], "conditions": conditions}],
            });
            let endpoint = translated(object).value.endpoints.remove(0);
            (endpoint.ready, endpoint.serving, endpoint.terminating)
        };
        assert_eq!(endpoint(json!({})), (true, true, false));
        assert_eq!(endpoint(json!({"ready": false})), (false, false, false));
        let going = json!({"ready": false, "serving": true, "terminating": true});
        assert_eq!(endpoint(going), (false, true, true));
    }

    #[test]
    fn a_slice_is_read_whole() {
        let translated = translated(json!({
            "metadata": {"namespace": "shop", "name": "web-x",
                         "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "all"}],
            "endpoints": [{
                "addresses": ["10.244.1.5"], "nodeName": "n1",
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0"},
            }],
        }));
        let port = |name: &str, port: Option<i32>| SlicePort {
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            port: port.map(|port| port.try_into().unwrap()),
        };
        let service = "shop/web".parse().unwrap();
        let mut value = EndpointSlice::new("shop/web-x".parse().unwrap(), Some(service));
        value.ports = vec![port("http", Some(8080)), port("all", None)];
        value.endpoints = vec![SliceEndpoint {
            node: Some("n1".parse().unwrap()),
            pod: Some("shop/web-0".parse().unwrap()),
            ..SliceEndpoint::ready("10.244.1.5".parse().unwrap())
        }];
        assert_eq!(
            translated,
            Translated {
                value,
                problems: vec![]
            }
        );
    }

    #[test]
    fn wrong_endpoints_and_ports_are_left_out() {
        let translated = translated(json!({
            "metadata": {"namespace": "shop", "name": "web-x",
                         "labels": {"service.kubernetes.io/headless": ""}},
            "addressType": "IPv4",
            "ports": [{"port": 70000}, {"port": 80}],
            "endpoints": [{"addresses": ["nowhere"]}, {"addresses": ["10.244.1.5"]}],
        }));
        assert!(translated.value.headless);
        assert_eq!(
            (
                translated.value.ports.len(),
                translated.value.endpoints.len()
            ),
            (1, 1)
        );
        let problems: Vec<_> = translated
            .problems
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            problems,
            [
                "EndpointSlice shop/web-x: ports[0].port \"70000\": port \"70000\" is not valid: use \
                 a number from 1 to 65535",
                "EndpointSlice shop/web-x: endpoints[0].addresses[0] \"nowhere\": use an IPv4 or \
                 IPv6 address",
            ]
        );
    }

    #[test]
    fn a_slice_of_names_has_no_endpoints() {
        let translated = translated(json!({
            "metadata": {"namespace": "shop", "name": "web-x"}, "addressType": "FQDN",
            "endpoints": [{"addresses": ["www.example.com"]}],
        }));
        assert_eq!(
            (translated.value.endpoints.len(), translated.problems.len()),
            (0, 0)
        );
    }
}
