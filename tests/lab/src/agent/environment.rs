//! A container's environment: its own variables, references to the pod's fields, and service links.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, Pod, Service};

/// Where programs of a container are looked for.
pub const CONTAINER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a pod's fields may refer to besides its object.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The pod's addresses.
    pub pod_ips: Vec<std::net::IpAddr>,
    /// The node's address.
    pub host_ip: std::net::IpAddr,
}

/// The container's variables by name.
///
/// # Errors
/// When a variable refers to something this node agent does not know; names it.
pub fn variables(
    pod: &Pod,
    container: &Container,
    services: &[Service],
    facts: &Facts,
) -> Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), CONTAINER_PATH.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
        (
            "HOSTNAME".to_owned(),
            pod.metadata.name.clone().unwrap_or_default(),
        ),
    ]);
    let links = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref() == Some(namespace);
        let master =
            service.metadata.namespace.as_deref() == Some("default") && name == "kubernetes";
        if master || (links && own) {
            service_links(service, name, &mut env);
        }
    }
    if container
        .env_from
        .as_ref()
        .is_some_and(|from| !from.is_empty())
    {
        bail!(
            "container {}: envFrom is not supported by the lab: list the variables",
            container.name
        );
    }
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            None => expand(var.value.as_deref().unwrap_or_default(), &env),
            Some(from) => {
                let path = from
                    .field_ref
                    .as_ref()
                    .map(|field| field.field_path.as_str());
                let path = path.with_context(|| {
                    format!(
                        "env {}: the lab supports value and valueFrom.fieldRef only",
                        var.name
                    )
                })?;
                field(pod, path, facts).with_context(|| format!("env {}", var.name))?
            }
        };
        env.insert(var.name.clone(), value);
    }
    Ok(env)
}

/// `$(NAME)` becomes the variable's value, `$$(NAME)` stays as `$(NAME)`, unknown names stay.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix("$(").and_then(|r| r.split_once(')'));
        match name {
            Some((name, after)) => {
                match env.get(name) {
                    Some(value) => out.push_str(value),
                    None => out.push_str(&format!("$({name})")),
                }
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let ips = || {
        facts
            .pod_ips
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" => facts.host_ip.to_string(),
        "status.podIP" => ips().into_iter().next().unwrap_or_default(),
        "status.podIPs" => ips().join(","),
        _ => {
            let key = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
            if let Some(key) = key("metadata.labels['") {
                return Ok(text(
                    meta.labels.as_ref().and_then(|labels| labels.get(key)),
                ));
            }
            if let Some(key) = key("metadata.annotations['") {
                return Ok(text(meta.annotations.as_ref().and_then(|all| all.get(key))));
            }
            bail!("fieldPath {path:?} is not a field that can be referred to")
        }
    })
}

/// The docker-links variables of one Service.
fn service_links(service: &Service, name: &str, env: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None")
    else {
        return;
    };
    let prefix = name.to_uppercase().replace('-', "_");
    env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        if index == 0 {
            env.insert(format!("{prefix}_SERVICE_PORT"), port.port.to_string());
        }
        if let Some(label) = &port.name {
            let label = label.to_uppercase().replace('-', "_");
            env.insert(
                format!("{prefix}_SERVICE_PORT_{label}"),
                port.port.to_string(),
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            env.insert(format!("{prefix}_PORT"), url.clone());
        }
        env.insert(format!("{prefix}_PORT_{}_{protocol}", port.port), url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json::{from_value, json};
    use pretty_assertions::assert_eq;

    #[test]
    fn variables_refer_to_fields_to_each_other_and_to_services() {
        let pod: Pod = from_value(json!({
            "metadata":{"name":"p","namespace":"ns","labels":{"a/b":"c"}},
            "spec":{"containers":[{"name":"c","env":[
                {"name":"ME","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}},
                {"name":"LABEL","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['a/b']"}}},
                {"name":"URL","value":"http://$(ME)/$$(ME)/$(NOPE)"}]}]}}))
        .unwrap();
        let service: Service = from_value(json!({
            "metadata":{"name":"my-web","namespace":"ns"},
            "spec":{"clusterIP":"10.96.0.9","ports":[{"name":"http","port":80}]}}))
        .unwrap();
        let facts = Facts {
            pod_ips: vec!["10.1.0.5".parse().unwrap()],
            host_ip: "172.30.0.11".parse().unwrap(),
        };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let env = variables(&pod, container, &[service], &facts).unwrap();
        let expected = [
            ("LABEL", "c"),
            ("ME", "10.1.0.5"),
            ("MY_WEB_PORT", "tcp://10.96.0.9:80"),
            ("MY_WEB_PORT_80_TCP", "tcp://10.96.0.9:80"),
            ("MY_WEB_SERVICE_HOST", "10.96.0.9"),
            ("MY_WEB_SERVICE_PORT", "80"),
            ("MY_WEB_SERVICE_PORT_HTTP", "80"),
            ("URL", "http://10.1.0.5/$(ME)/$(NOPE)"),
        ];
        for (name, value) in expected {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
    }
}
