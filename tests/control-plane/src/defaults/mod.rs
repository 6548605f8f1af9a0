//! Defaults, and what only the server decides, by kind. Sources: the API reference's field
//! descriptions and the `SetDefaults_*` of the Kubernetes API.

pub(crate) mod apps;
pub(crate) mod namespace;
pub(crate) mod pod;
pub(crate) mod service;

use base64::Engine;
use serde_json::{Map, Value, json};

use crate::json::{default_to, list_mut, map_at};

/// No defaults.
pub(crate) fn nothing(_: &mut Value) {}

/// Nothing to decide on an update.
pub(crate) fn unchanged(_: &Value, _: &mut Value) {}

/// A new object's status is not the client's to give.
pub(crate) fn drop_status(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("status".into(), Value::Object(Map::new()));
    }
}

/// Endpoints: protocol TCP.
pub(crate) fn endpoints(endpoints: &mut Value) {
    for subset in list_mut(endpoints, "/subsets") {
        for port in list_mut(subset, "/ports") {
            default_to(port, "protocol", "TCP");
        }
    }
}

/// EndpointSlice: port name "" and protocol TCP.
pub(crate) fn endpoint_slice(slice: &mut Value) {
    for port in list_mut(slice, "/ports") {
        if let Some(port) = port.as_object_mut() {
            port.entry("name").or_insert_with(|| "".into());
        }
        default_to(port, "protocol", "TCP");
    }
}

/// NetworkPolicy: protocol TCP, and the policy types that follow from the rules.
pub(crate) fn network_policy(policy: &mut Value) {
    for rules in ["/spec/ingress", "/spec/egress"] {
        for rule in list_mut(policy, rules) {
            for port in list_mut(rule, "/ports") {
                default_to(port, "protocol", "TCP");
            }
        }
    }
    let egress = !crate::json::list(policy, "/spec/egress").is_empty();
    let Some(spec) = map_at(policy, "spec") else {
        return;
    };
    spec.entry("podSelector").or_insert_with(|| json!({}));
    if crate::json::is_unset(spec.get("policyTypes")) {
        let types = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
        spec.insert("policyTypes".into(), types);
    }
}

/// Secret: type Opaque; `stringData` goes into `data`.
pub(crate) fn secret(secret: &mut Value) {
    default_to(secret, "type", "Opaque");
    let plain = secret
        .as_object_mut()
        .and_then(|map| map.remove("stringData"));
    let Some(Value::Object(plain)) = plain else {
        return;
    };
    let Some(data) = map_at(secret, "data") else {
        return;
    };
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        data.insert(key, encoded.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_types_follow_from_the_rules() {
        let mut policy = json!({"spec": {
            "podSelector": {},
            "egress": [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}],
        }});
        network_policy(&mut policy);
        assert_eq!(
            policy,
            json!({"spec": {
                "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                "egress": [{"ports": [
                    {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}
                ]}],
            }})
        );
        let mut deny = json!({"spec": {"podSelector": {}}});
        network_policy(&mut deny);
        assert_eq!(deny["spec"]["policyTypes"], json!(["Ingress"]));
    }

    #[test]
    fn plain_secret_data_is_encoded() {
        let mut object = json!({"stringData": {"a": "hello"}, "data": {"b": "eA=="}});
        secret(&mut object);
        assert_eq!(
            object,
            json!({"type": "Opaque", "data": {"a": "aGVsbG8=", "b": "eA=="}})
        );
    }
}
