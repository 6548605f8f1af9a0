//! Services, endpoints, policies.

use serde_json::Value;

use super::core::selector;
use super::{AGE, Columns, NAME, age, column, name, text_or, wide};
use crate::json::{is_unset, list, text};
use crate::rest::selector_text;

pub(crate) const SERVICE: Columns = Columns {
    columns: &[
        NAME,
        column("Type"),
        column("Cluster-IP"),
        column("External-IP"),
        column("Port(s)"),
        AGE,
        wide("Selector"),
    ],
    cells: |service, now| {
        vec![
            name(service),
            text(service, "/spec/type").into(),
            text_or(service, "/spec/clusterIP", "<none>"),
            external(service).into(),
            ports(service).into(),
            age(service, now),
            selector(service.pointer("/spec/selector")),
        ]
    },
};

pub(crate) const ENDPOINTS: Columns = Columns {
    columns: &[NAME, column("Endpoints"), AGE],
    cells: |endpoints, now| {
        let all = list(endpoints, "/subsets").iter().flat_map(|subset| {
            list(subset, "/addresses").iter().flat_map(move |address| {
                let ip = text(address, "/ip");
                let join = if ip.contains(':') {
                    format!("[{ip}]")
                } else {
                    ip.to_owned()
                };
                list(subset, "/ports")
                    .iter()
                    .map(move |port| format!("{join}:{}", port["port"]))
            })
        });
        vec![
            name(endpoints),
            some(all.collect(), 3).into(),
            age(endpoints, now),
        ]
    },
};

pub(crate) const ENDPOINT_SLICE: Columns = Columns {
    columns: &[
        NAME,
        column("AddressType"),
        column("Ports"),
        column("Endpoints"),
        AGE,
    ],
    cells: |slice, now| {
        let ports = list(slice, "/ports")
            .iter()
            .map(|port| match port.get("port") {
                Some(number) => number.to_string(),
                None => "*".to_owned(),
            });
        let ports: Vec<String> = ports.collect();
        let ports = if ports.is_empty() {
            "<unset>".into()
        } else {
            some(ports, 3)
        };
        let addresses = list(slice, "/endpoints")
            .iter()
            .flat_map(|endpoint| list(endpoint, "/addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned));
        let addresses: Vec<String> = addresses.collect();
        let addresses = if addresses.is_empty() {
            "<unset>".into()
        } else {
            some(addresses, 3)
        };
        vec![
            name(slice),
            text(slice, "/addressType").into(),
            ports.into(),
            addresses.into(),
            age(slice, now),
        ]
    },
};

pub(crate) const NETWORK_POLICY: Columns = Columns {
    columns: &[NAME, column("Pod-Selector"), AGE],
    cells: |policy, now| {
        let pods = policy
            .pointer("/spec/podSelector")
            .map(selector_text)
            .unwrap_or_default();
        let pods = if pods.is_empty() {
            "<none>".to_owned()
        } else {
            pods
        };
        vec![name(policy), pods.into(), age(policy, now)]
    },
};

/// The first few, and how many more.
fn some(mut all: Vec<String>, shown: usize) -> String {
    match all.len() {
        0 => "<none>".into(),
        total if total <= shown => all.join(","),
        total => {
            all.truncate(shown);
            format!("{} + {} more...", all.join(","), total - shown)
        }
    }
}

fn external(service: &Value) -> String {
    let texts = |pointer: &str| -> Vec<String> {
        list(service, pointer)
            .iter()
            .filter_map(|ip| ip.as_str().map(str::to_owned))
            .collect()
    };
    let mut addresses = texts("/spec/externalIPs");
    match text(service, "/spec/type") {
        "ExternalName" => return text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            for ingress in list(service, "/status/loadBalancer/ingress") {
                let address = match text(ingress, "/ip") {
                    "" => text(ingress, "/hostname"),
                    ip => ip,
                };
                addresses.push(address.to_owned());
            }
            if addresses.is_empty() {
                return "<pending>".into();
            }
        }
        _ => {}
    }
    if addresses.is_empty() {
        "<none>".into()
    } else {
        addresses.join(",")
    }
}

fn ports(service: &Value) -> String {
    let port = |port: &Value| {
        let protocol = text(port, "/protocol");
        match port
            .get("nodePort")
            .filter(|number| !is_unset(Some(number)))
        {
            Some(node) => format!("{}:{node}/{protocol}", port["port"]),
            None => format!("{}/{protocol}", port["port"]),
        }
    };
    let ports: Vec<String> = list(service, "/spec/ports").iter().map(port).collect();
    if ports.is_empty() {
        "<none>".into()
    } else {
        ports.join(",")
    }
}
