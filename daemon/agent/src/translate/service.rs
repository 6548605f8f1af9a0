//! Services.

use std::net::IpAddr;

use desired::cluster::{Service, ServicePort, ServiceType};
use desired::names::ServiceName;
use k8s_openapi::api::core::v1 as core;

use super::fields::Fields;
use super::{TranslateError, Translated};

const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// `sessionAffinityConfig.clientIP.timeoutSeconds`, when left out.
const AFFINITY_SECONDS: u32 = 10_800;

/// Translates a Service.
///
/// # Errors
/// When its name is not one.
pub fn service(object: &core::Service) -> Result<Translated<Service>, TranslateError> {
    let mut fields = Fields::of("Service", &object.metadata);
    let mut service = Service::new(fields.name(&object.metadata, ServiceName::new)?);
    let labels = object.metadata.labels.as_ref();
    service.foreign_proxy = labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
    if let Some(spec) = &object.spec {
        service.service_type = service_type(&mut fields, spec.type_.as_deref());
        service.cluster_ips = cluster_ips(&mut fields, spec);
        let external = spec.external_ips.iter().flatten().map(String::as_str);
        service.external_ips = fields.addresses("spec.externalIPs", external);
        service.internal_traffic_policy = fields.traffic_policy(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
        );
        service.external_traffic_policy = fields.traffic_policy(
            "spec.externalTrafficPolicy",
            spec.external_traffic_policy.as_deref(),
        );
        service.affinity_seconds = affinity(&mut fields, spec);
        service.ports = ports(&mut fields, spec);
    }
    if service.service_type == ServiceType::LoadBalancer {
        service.load_balancer_ips = load_balancer_ips(&mut fields, object.status.as_ref());
    }
    Ok(fields.done(service))
}

fn service_type(fields: &mut Fields, text: Option<&str>) -> ServiceType {
    match text {
        None | Some("" | "ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        Some(other) => {
            let remedy = "use ClusterIP, NodePort, LoadBalancer or ExternalName";
            fields.problem("spec.type", other, remedy);
            ServiceType::ClusterIp
        }
    }
}

fn cluster_ips(fields: &mut Fields, spec: &core::ServiceSpec) -> Vec<IpAddr> {
    let mut texts: Vec<&str> = spec
        .cluster_ips
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if texts.is_empty() {
        texts.extend(spec.cluster_ip.as_deref());
    }
    let allocated = texts
        .into_iter()
        .filter(|text| !matches!(*text, "" | "None"));
    fields.addresses("spec.clusterIPs", allocated)
}

fn affinity(fields: &mut Fields, spec: &core::ServiceSpec) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref();
            let config = config.and_then(|config| config.client_ip.as_ref());
            let Some(seconds) = config.and_then(|client| client.timeout_seconds) else {
                return Some(AFFINITY_SECONDS);
            };
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let parsed = u32::try_from(seconds).ok().filter(|seconds| *seconds > 0);
            let kept = fields.keep(field, seconds, parsed.ok_or("use 1 to 86400"));
            Some(kept.unwrap_or(AFFINITY_SECONDS))
        }
        Some(other) => {
            fields.problem("spec.sessionAffinity", other, "use None or ClientIP");
            None
        }
    }
}

fn ports(fields: &mut Fields, spec: &core::ServiceSpec) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{index}]");
        let protocol = fields.protocol(&format!("{field}.protocol"), port.protocol.as_deref());
        let number = fields.port(&format!("{field}.port"), port.port);
        let node_port = port.node_port.filter(|node_port| *node_port != 0);
        let node_port =
            node_port.and_then(|number| fields.port(&format!("{field}.nodePort"), number));
        if let (Some(protocol), Some(number)) = (protocol, number) {
            let name = port.name.clone().unwrap_or_default();
            ports.push(ServicePort {
                name,
                protocol,
                port: number,
                node_port,
            });
        }
    }
    ports
}

/// Addresses that nodes answer for themselves: not those whose balancer is a proxy.
fn load_balancer_ips(fields: &mut Fields, status: Option<&core::ServiceStatus>) -> Vec<IpAddr> {
    let ingress = status
        .and_then(|status| status.load_balancer.as_ref())
        .into_iter()
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let texts = ingress
        .filter_map(|ingress| ingress.ip.as_deref())
        .filter(|ip| !ip.is_empty());
    fields.addresses("status.loadBalancer.ingress", texts)
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "json! borrows; calls read better without &"
)]
mod tests {
    use desired::cluster::TrafficPolicy;
    use desired::names::Protocol;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    use super::*;

    fn translated(labels: Value, spec: Value, status: Value) -> Translated<Service> {
        let metadata = json!({"namespace": "shop", "name": "web", "labels": labels});
        let object = json!({"metadata": metadata, "spec": spec, "status": status});
        service(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn a_load_balancer_service_is_read_whole() {
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd96::9"],
            "externalIPs": ["192.0.2.1"], "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
        });
        let status = json!({"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"hostname": "lb"},
        ]}});
        let port = |name: &str, protocol, port: i32, node_port: Option<i32>| ServicePort {
            name: name.to_owned(),
            protocol,
            port: port.try_into().unwrap(),
            node_port: node_port.map(|port| port.try_into().unwrap()),
        };
        let value = Service {
            service_type: ServiceType::LoadBalancer,
            cluster_ips: vec!["10.96.0.9".parse().unwrap(), "fd96::9".parse().unwrap()],
            external_ips: vec!["192.0.2.1".parse().unwrap()],
            load_balancer_ips: vec!["198.51.100.1".parse().unwrap()],
            ports: vec![
                port("http", Protocol::Tcp, 80, Some(30080)),
                port("dns", Protocol::Udp, 53, None),
            ],
            internal_traffic_policy: TrafficPolicy::Local,
            external_traffic_policy: TrafficPolicy::Local,
            affinity_seconds: Some(10_800),
            ..Service::new("shop/web".parse().unwrap())
        };
        let expected = Translated {
            value,
            problems: vec![],
        };
        assert_eq!(translated(json!({}), spec, status), expected);
    }

    #[test]
    fn headless_and_foreign_services_are_marked() {
        let labels = json!({"service.kubernetes.io/service-proxy-name": "other"});
        let headless = translated(labels, json!({"clusterIP": "None"}), json!({})).value;
        assert_eq!(
            (headless.cluster_ips.len(), headless.foreign_proxy),
            (0, true)
        );
        let alias = translated(json!({}), json!({"type": "ExternalName"}), json!({})).value;
        assert_eq!(alias.service_type, ServiceType::ExternalName);
    }

    #[test]
    fn wrong_fields_are_named_and_the_rest_counts() {
        let spec = json!({
            "clusterIP": "10.96.0.9",
            "ports": [{"port": 0}, {"port": 80, "protocol": "ICMP"}, {"port": 443}],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": -1}},
        });
        let translated = translated(json!({}), spec, json!({}));
        assert_eq!(translated.value.ports.len(), 1);
        assert_eq!(translated.value.affinity_seconds, Some(10_800));
        let fields: Vec<_> = translated
            .problems
            .iter()
            .map(|p| p.field.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                "spec.ports[0].port",
                "spec.ports[1].protocol",
            ]
        );
    }
}
