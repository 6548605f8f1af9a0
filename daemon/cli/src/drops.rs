//! `towline drops`: one line per dropped packet.

use serde_json::Value;

use crate::table::cell;

/// One event in one line.
pub(crate) fn line(event: &Value) -> String {
    let at = |key: &str| cell(&event[key]);
    let end = |side: &str| {
        let name = event[format!("{side}Name")]
            .as_str()
            .map(|name| format!(" ({name})"));
        format!("{}{}", at(side), name.unwrap_or_default())
    };
    let why = match (event["rule"].as_str(), event["policies"].as_array()) {
        (Some(rule), _) => format!(" by {rule}"),
        (None, Some(policies)) if !policies.is_empty() => {
            format!(" in {}", cell(&event["policies"]))
        }
        _ => String::new(),
    };
    format!(
        "{} {} {} {} -> {} {}{} at {} ({})",
        at("time"),
        at("direction"),
        at("protocol"),
        end("source"),
        end("destination"),
        at("reason"),
        why,
        at("pod"),
        at("interface"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drop_is_one_line_with_names() {
        let event = json!({
            "time": "2026-11-21T06:00:00Z", "direction": "ingress", "protocol": "TCP",
            "source": "10.244.1.5:40000", "sourceName": "default/a",
            "destination": "10.244.2.6:80", "destinationName": null,
            "reason": "policy-no-match", "rule": null,
            "policies": ["default/closed", "default/web"], "pod": "default/b", "interface": "veth1",
        });
        assert_eq!(
            line(&event),
            "2026-11-21T06:00:00Z ingress TCP 10.244.1.5:40000 (default/a) -> 10.244.2.6:80 policy-no-match in default/closed,default/web at default/b (veth1)"
        );
        let mut denied = event;
        denied["rule"] = json!("default/deny ingress[0]");
        denied["reason"] = json!("policy-denied");
        assert!(line(&denied).contains("policy-denied by default/deny ingress[0] at"));
    }
}
