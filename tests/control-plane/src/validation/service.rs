//! Services.

use serde_json::Value;

use super::{PROTOCOLS, names, one_of, port_number};
use crate::json::{is_unset, list, text};
use crate::status::Cause;

/// Checks a Service.
pub(crate) fn check(service: &Value, causes: &mut Vec<Cause>) {
    let Some(spec) = service.get("spec") else {
        causes.push(Cause::required("spec", ""));
        return;
    };
    let types = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(spec, "type", "spec", types, causes);
    one_of(
        spec,
        "sessionAffinity",
        "spec",
        &["ClientIP", "None"],
        causes,
    );
    one_of(
        spec,
        "internalTrafficPolicy",
        "spec",
        &["Cluster", "Local"],
        causes,
    );
    one_of(
        spec,
        "externalTrafficPolicy",
        "spec",
        &["Cluster", "Local"],
        causes,
    );
    let timeout = "/sessionAffinityConfig/clientIP/timeoutSeconds";
    if let Some(seconds) = spec.pointer(timeout)
        && !seconds
            .as_u64()
            .is_some_and(|seconds| (1..=86_400).contains(&seconds))
    {
        causes.push(Cause::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            seconds,
            "must be greater than 0 && less than 86400",
        ));
    }
    check_address(spec, causes);
    check_ports(spec, causes);
    super::metadata::check_labels(service, "spec.selector", causes);
}

fn check_address(spec: &Value, causes: &mut Vec<Cause>) {
    let kind = text(spec, "/type");
    let address = text(spec, "/clusterIP");
    if kind == "ExternalName" {
        if text(spec, "/externalName").is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        }
        if !address.is_empty() {
            let why = "may not be set when `type` is 'ExternalName'";
            causes.push(Cause::forbidden("spec.clusterIPs", why));
        }
        return;
    }
    if address == "None" && kind != "ClusterIP" {
        let why = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", &"None".into(), &why));
    }
    if !matches!(address, "" | "None") && address.parse::<std::net::IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.push(Cause::invalid("spec.clusterIPs[0]", &address.into(), why));
    }
    let first = list(spec, "/clusterIPs").first();
    if let Some(first) = first
        && !address.is_empty()
        && first != address
    {
        let why = "first value must match `clusterIP`";
        causes.push(Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], why));
    }
}

fn check_ports(spec: &Value, causes: &mut Vec<Cause>) {
    let ports = list(spec, "/ports");
    let headless = text(spec, "/clusterIP") == "None";
    if ports.is_empty() && !headless && text(spec, "/type") != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    let (mut seen, mut seen_names) = (Vec::new(), Vec::new());
    for (index, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        let name = text(port, "/name");
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !name.is_empty() {
            if let Some(why) = names::label(name) {
                causes.push(Cause::invalid(format!("{at}.name"), &name.into(), why));
            }
            if seen_names.contains(&name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
            }
            seen_names.push(name);
        }
        port_number(port, "port", &at, causes);
        one_of(port, "protocol", &at, PROTOCOLS, causes);
        if port.get("targetPort").is_some_and(Value::is_number) {
            port_number(port, "targetPort", &at, causes);
        }
        let named = !is_unset(port.get("nodePort"));
        if named && matches!(text(spec, "/type"), "ClusterIP" | "") {
            let why = "may not be used when `type` is 'ClusterIP'";
            causes.push(Cause::forbidden(format!("{at}.nodePort"), why));
        }
        let same = (port.get("port"), text(port, "/protocol"));
        if seen.contains(&same) {
            let value = serde_json::json!({"port": port["port"], "protocol": port["protocol"]});
            causes.push(Cause::duplicate(at, &value));
        }
        seen.push(same);
    }
}

/// The address stays, unless the type changes from or to ExternalName.
pub(crate) fn check_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let kind = |service: &Value| text(service, "/spec/type").to_owned();
    let external = |kind: &str| kind == "ExternalName";
    let (before, after) = (kind(old), kind(new));
    if !external(&before) && !external(&after) {
        let (old_address, new_address) =
            (text(old, "/spec/clusterIP"), text(new, "/spec/clusterIP"));
        if !old_address.is_empty() && old_address != new_address {
            let value = serde_json::json!([new_address]);
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &value,
                "may not change once set",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(service: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        check(service, &mut causes);
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(
            fields(&json!({"spec": {"type": "ClusterIP"}})),
            ["spec.ports"]
        );
        assert_eq!(
            fields(&json!({"spec": {"clusterIP": "None", "type": "ClusterIP"}})),
            [""; 0]
        );
        let service = json!({"spec": {"type": "ClusterIP", "clusterIP": "x", "ports": [
            {"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30000},
            {"port": 70000, "protocol": "ICMP"},
            {"name": "a", "port": 80, "protocol": "TCP"},
        ]}});
        assert_eq!(
            fields(&service),
            [
                "spec.clusterIPs[0]",
                "spec.ports[0].nodePort",
                "spec.ports[1].name",
                "spec.ports[1].port",
                "spec.ports[1].protocol",
                "spec.ports[2].name",
                "spec.ports[2]",
            ]
        );
    }
}
