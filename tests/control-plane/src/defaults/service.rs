//! Services. Addresses, ports and families are the allocator's.

use serde_json::{Value, json};

use crate::json::{default_to, is_unset, list, list_mut, map_at, text};

/// A new Service has no load balancer yet.
pub(crate) fn create(service: &mut Value) {
    if let Some(map) = service.as_object_mut() {
        map.insert("status".into(), json!({"loadBalancer": {}}));
    }
}

/// Defaults of a Service.
pub(crate) fn fill(service: &mut Value) {
    let Some(spec) = service.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    default_to(spec, "type", "ClusterIP");
    default_to(spec, "sessionAffinity", "None");
    match text(spec, "/sessionAffinity") {
        "ClientIP" => {
            if spec
                .pointer("/sessionAffinityConfig/clientIP/timeoutSeconds")
                .is_none()
            {
                spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
            }
        }
        _ => remove(spec, "sessionAffinityConfig"),
    }
    for port in list_mut(spec, "/ports") {
        default_to(port, "protocol", "TCP");
        if is_unset(port.get("targetPort")) {
            let number = port.get("port").cloned().unwrap_or_default();
            port["targetPort"] = number;
        }
    }
    let kind = text(spec, "/type").to_owned();
    match kind.as_str() {
        "ExternalName" => {}
        _ => default_to(spec, "internalTrafficPolicy", "Cluster"),
    }
    match kind.as_str() {
        "NodePort" | "LoadBalancer" => default_to(spec, "externalTrafficPolicy", "Cluster"),
        _ if list(spec, "/externalIPs").is_empty() => remove(spec, "externalTrafficPolicy"),
        _ => default_to(spec, "externalTrafficPolicy", "Cluster"),
    }
    match kind.as_str() {
        "LoadBalancer" => default_to(spec, "allocateLoadBalancerNodePorts", true),
        _ => remove(spec, "allocateLoadBalancerNodePorts"),
    }
}

/// An update that leaves out what was allocated keeps it, unless the type changes.
pub(crate) fn update(old: &Value, new: &mut Value) {
    let Some(old) = old.get("spec") else { return };
    let Some(_) = map_at(new, "spec") else { return };
    let new = &mut new["spec"];
    let (before, after) = (kind(old), kind(new));
    if after == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if new.get(field) == old.get(field) {
                remove(new, field);
            }
        }
    } else if before != "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if is_unset(new.get(field)) && !is_unset(old.get(field)) {
                new[field] = old[field].clone();
            }
        }
    }
    let needs = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if needs(&before) && needs(&after) {
        keep_node_ports(old, new);
    } else if needs(&before) {
        drop_node_ports(old, new);
    }
}

fn kind(spec: &Value) -> String {
    match text(spec, "/type") {
        "" => "ClusterIP".into(),
        kind => kind.to_owned(),
    }
}

fn keep_node_ports(old: &Value, new: &mut Value) {
    for port in list_mut(new, "/ports") {
        let same = list(old, "/ports").iter().find(|before| {
            before.get("port") == port.get("port") && protocol(before) == protocol(port)
        });
        if let Some(number) = same.and_then(|before| before.get("nodePort"))
            && is_unset(port.get("nodePort"))
        {
            port["nodePort"] = number.clone();
        }
    }
}

/// Node ports that were there before are taken back; others are the client's mistake to be told.
fn drop_node_ports(old: &Value, new: &mut Value) {
    for port in list_mut(new, "/ports") {
        let known = list(old, "/ports")
            .iter()
            .any(|before| before.get("nodePort") == port.get("nodePort"));
        if known {
            remove(port, "nodePort");
        }
    }
}

fn protocol(port: &Value) -> &str {
    match text(port, "/protocol") {
        "" => "TCP",
        protocol => protocol,
    }
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}
