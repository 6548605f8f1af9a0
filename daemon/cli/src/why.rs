//! `towline why`: what to ask the daemon, and its answer in words.

use std::fmt::Write as _;

use desired::explain::{Destination, End, Explanation, Path, Place, Verdict};
use desired::policy::evaluate::Decision;
use desired::services::Readiness;
use serde_json::Value;

/// The request for a question, which is checked before anybody is asked.
pub(crate) fn path(source: &str, destination: &str) -> anyhow::Result<String> {
    source.parse::<Place>()?;
    destination.parse::<Destination>()?;
    Ok(format!(
        "/v1/why?src={}&dst={}",
        encoded(source),
        encoded(destination)
    ))
}

/// `text` for a query: everything but letters, digits and `-._/:` as percent codes.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The daemon's answer in words.
pub(crate) fn text(answer: &Value) -> String {
    match serde_json::from_value::<Explanation>(answer.clone()) {
        Ok(explanation) => words(&explanation),
        Err(error) => format!("towlined is of another version ({error}); ask with -o json\n"),
    }
}

fn words(it: &Explanation) -> String {
    let mut text = String::new();
    let port = match it.port {
        Some((port, protocol)) => format!(" port {}/{protocol}", port.get()),
        None => " by ICMP".to_owned(),
    };
    let _ = writeln!(text, "From  {}", end(&it.source));
    let _ = writeln!(text, "To    {}{port}", end(&it.dialled));
    if let Some(frontend) = &it.frontend {
        let ready = frontend
            .endpoints
            .iter()
            .filter(|one| one.readiness == Readiness::Ready);
        let _ = write!(
            text,
            "This is Service {} with {} endpoints, {} of them ready",
            frontend.service,
            frontend.endpoints.len(),
            ready.count()
        );
        if frontend.local_only {
            text.push_str("; only those on the client's node are used");
        }
        if let Some(seconds) = frontend.affinity_seconds {
            let _ = write!(text, "; a client sticks to one for {seconds} s");
        }
        text.push_str(".\n");
    }
    for path in &it.paths {
        text.push_str(&path_words(it, path));
    }
    let verdict = match it.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Partly => "allowed to some endpoints, denied to others",
        Verdict::Denied => "denied: packets are dropped",
        Verdict::Refused => "refused: the Service has no endpoints",
        Verdict::Unsupported => "lost: Services of this protocol are not balanced",
        Verdict::NoLocalEndpoint => {
            "dropped: the Service uses endpoints on the client's node only, and has none there"
        }
    };
    let _ = writeln!(text, "Verdict: {verdict}");
    text
}

fn path_words(it: &Explanation, path: &Path) -> String {
    let port = path
        .port
        .map(|port| format!(" port {port}"))
        .unwrap_or_default();
    let mark = if path.open { "open  " } else { "closed" };
    let mut text = format!("  {mark} {}{port}\n", end(&path.destination));
    if path.hairpin {
        text.push_str("           the pod reaches itself, which no policy prevents\n");
        return text;
    }
    for (what, whose, decision) in [
        ("egress of", &it.source, &path.egress),
        ("ingress of", &path.destination, &path.ingress),
    ] {
        if let Some(decision) = decision {
            let _ = writeln!(
                text,
                "           {what} {}: {}",
                name(whose),
                decided(decision)
            );
        }
    }
    for whose in [&it.source, &path.destination] {
        if whose.in_force == Some(false) {
            let _ = writeln!(
                text,
                "           {} is closed until its policy is in force",
                name(whose)
            );
        }
    }
    text
}

fn decided(decision: &Decision) -> String {
    match decision {
        Decision::NotIsolated => "allowed, no policy selects it".to_owned(),
        Decision::OwnNode => "allowed, a node always reaches its own pods".to_owned(),
        Decision::Allowed { rule } => format!("allowed by {rule}"),
        Decision::Denied { policies } => {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            format!("denied, no rule of {} allows it", names.join(", "))
        }
    }
}

fn name(end: &End) -> String {
    end.pod
        .as_ref()
        .map_or_else(|| end.address.to_string(), |pod| format!("pod {pod}"))
}

fn end(end: &End) -> String {
    let node = end
        .node
        .as_ref()
        .map(|node| format!(" on {node}"))
        .unwrap_or_default();
    match &end.pod {
        Some(pod) => format!("pod {pod} ({}){node}", end.address),
        None => format!("{}{node}", end.address),
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    #[test]
    fn questions_are_checked_before_they_are_asked() {
        assert_eq!(
            path("a/b", "c/d:80/udp").unwrap(),
            "/v1/why?src=a/b&dst=c/d:80/udp"
        );
        assert_eq!(
            path("fd00::1", "[fd00::2]:80").unwrap(),
            "/v1/why?src=fd00::1&dst=%5Bfd00::2%5D:80"
        );
        let error = path("A", "b:80").unwrap_err().to_string();
        assert_eq!(error, "place \"A\": use an address, or namespace/name");
        assert!(
            path("a", "b:0")
                .unwrap_err()
                .to_string()
                .starts_with("destination \"b:0\": use")
        );
    }

    #[test]
    fn an_answer_names_service_paths_policies_and_rules() {
        let end = |address: &str, pod: &str, node: &str| json!({ "address": address, "pod": pod, "node": node, "inForce": null });
        let endpoint = json!({
            "address": "10.244.1.6", "port": 8080, "local": true, "readiness": "ready",
            "node": "n1", "pod": "default/web-1",
        });
        let rule = json!({ "policy": "default/allow-web", "direction": "egress", "index": 0 });
        let answer = json!({
            "source": end("10.244.1.5", "default/client", "n1"),
            "dialled": { "address": "10.96.0.10", "pod": null, "node": null, "inForce": null },
            "port": [80, "TCP"],
            "frontend": {
                "service": { "service": "default/web", "port": "http", "protocol": "TCP" },
                "localOnly": false, "affinitySeconds": null, "endpoints": [endpoint],
            },
            "paths": [{
                "destination": end("10.244.1.6", "default/web-1", "n1"),
                "port": 8080,
                "egress": { "decision": "allowed", "rule": rule },
                "ingress": { "decision": "denied", "policies": ["default/closed"] },
                "hairpin": false,
                "open": false,
            }],
            "verdict": "denied",
        });
        assert_eq!(
            text(&answer),
            "\
From  pod default/client (10.244.1.5) on n1
To    10.96.0.10 port 80/TCP
This is Service default/web:http/TCP with 1 endpoints, 1 of them ready.
  closed pod default/web-1 (10.244.1.6) on n1 port 8080
           egress of pod default/client: allowed by default/allow-web egress[0]
           ingress of pod default/web-1: denied, no rule of default/closed allows it
Verdict: denied: packets are dropped
"
        );
    }
}
