//! NetworkPolicies and EndpointSlices.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{PROTOCOLS, immutable, one_of};
use crate::json::{list, text};
use crate::status::Cause;

/// Checks a NetworkPolicy.
pub(crate) fn network_policy(policy: &Value, causes: &mut Vec<Cause>) {
    for (index, kind) in list(policy, "/spec/policyTypes").iter().enumerate() {
        if kind != "Ingress" && kind != "Egress" {
            let field = format!("spec.policyTypes[{index}]");
            causes.push(Cause::not_supported(field, kind, &["Egress", "Ingress"]));
        }
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(policy, &format!("/spec/{direction}"))
            .iter()
            .enumerate()
        {
            let at = format!("spec.{direction}[{index}]");
            for (index, port) in list(rule, "/ports").iter().enumerate() {
                check_port(port, &format!("{at}.ports[{index}]"), causes);
            }
            for (index, peer) in list(rule, &format!("/{peers}")).iter().enumerate() {
                check_peer(peer, &format!("{at}.{peers}[{index}]"), causes);
            }
        }
    }
}

fn check_port(port: &Value, at: &str, causes: &mut Vec<Cause>) {
    one_of(port, "protocol", at, PROTOCOLS, causes);
    let Some(first) = port.get("port") else {
        if port.get("endPort").is_some() {
            causes.push(Cause::required(
                format!("{at}.port"),
                "must be set with `endPort`",
            ));
        }
        return;
    };
    if first.is_number() {
        super::port_number(port, "port", at, causes);
    }
    if let Some(end) = port.get("endPort") {
        let ordered = first
            .as_u64()
            .zip(end.as_u64())
            .is_some_and(|(first, end)| first <= end);
        if first.is_string() {
            let why = "may not be specified when `port` is non-numeric";
            causes.push(Cause::invalid(format!("{at}.endPort"), end, why));
        } else if !ordered {
            let why = "must be greater than or equal to `port`";
            causes.push(Cause::invalid(format!("{at}.endPort"), end, why));
        }
    }
}

fn check_peer(peer: &Value, at: &str, causes: &mut Vec<Cause>) {
    let selectors = ["podSelector", "namespaceSelector"]
        .iter()
        .any(|key| peer.get(key).is_some());
    let Some(block) = peer.get("ipBlock") else {
        if !selectors {
            causes.push(Cause::required(at, "must specify a peer"));
        }
        return;
    };
    if selectors {
        let why = "may not be specified when `ipBlock` is specified";
        causes.push(Cause::forbidden(at, why));
    }
    let text_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let range = text_of(&block["cidr"]);
    let Some(range) = cidr(&range) else {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        causes.push(Cause::invalid(
            format!("{at}.ipBlock.cidr"),
            &block["cidr"],
            why,
        ));
        return;
    };
    for (index, except) in list(block, "/except").iter().enumerate() {
        let field = format!("{at}.ipBlock.except[{index}]");
        match cidr(&text_of(except)) {
            Some(inner) if range.contains(inner.network()) && inner.prefix() > range.prefix() => {}
            Some(_) => {
                let why = "must be a strict subset of `cidr`";
                causes.push(Cause::invalid(field, except, why));
            }
            None => causes.push(Cause::invalid(field, except, "must be a valid CIDR value")),
        }
    }
}

fn cidr(text: &str) -> Option<IpNetwork> {
    text.contains('/').then(|| text.parse().ok()).flatten()
}

/// Checks an EndpointSlice.
pub(crate) fn endpoint_slice(slice: &Value, causes: &mut Vec<Cause>) {
    let kind = text(slice, "/addressType");
    if kind.is_empty() {
        causes.push(Cause::required("addressType", ""));
    }
    one_of(slice, "addressType", "", &["FQDN", "IPv4", "IPv6"], causes);
    let endpoints = list(slice, "/endpoints");
    if endpoints.len() > 1000 {
        causes.push(Cause {
            reason: "FieldValueTooMany",
            message: format!(
                "Too many: {}: must have at most 1000 items",
                endpoints.len()
            ),
            field: "endpoints".into(),
        });
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let at = format!("endpoints[{index}].addresses");
        let addresses = list(endpoint, "/addresses");
        if addresses.is_empty() {
            causes.push(Cause::required(
                at.clone(),
                "must contain at least 1 address",
            ));
        }
        for (index, address) in addresses.iter().enumerate() {
            let parsed = address
                .as_str()
                .and_then(|address| address.parse::<IpAddr>().ok());
            let fits = match kind {
                "IPv4" => parsed.is_some_and(|address| address.is_ipv4()),
                "IPv6" => parsed.is_some_and(|address| address.is_ipv6()),
                _ => true,
            };
            if !fits {
                let why = format!("must be a valid {kind} address");
                causes.push(Cause::invalid(format!("{at}[{index}]"), address, &why));
            }
        }
    }
    for (index, port) in list(slice, "/ports").iter().enumerate() {
        one_of(
            port,
            "protocol",
            &format!("ports[{index}]"),
            PROTOCOLS,
            causes,
        );
    }
}

/// The address type stays.
pub(crate) fn endpoint_slice_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    immutable(old, new, "/addressType", causes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policy_faults_are_named() {
        let policy = json!({"spec": {
            "policyTypes": ["Ingres"],
            "ingress": [{
                "ports": [{"port": 80, "endPort": 70}, {"port": "http", "endPort": 90}],
                "from": [
                    {}, {"ipBlock": {"cidr": "10.0.0.1"}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}},
                ],
            }],
        }});
        let mut causes = Vec::new();
        network_policy(&policy, &mut causes);
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.policyTypes[0]",
                "spec.ingress[0].ports[0].endPort",
                "spec.ingress[0].ports[1].endPort",
                "spec.ingress[0].from[0]",
                "spec.ingress[0].from[1].ipBlock.cidr",
                "spec.ingress[0].from[2].ipBlock.except[1]",
            ]
        );
    }
}
