//! Network policies: defaults are resolved here.
//!
//! A rule's peer or port that cannot be understood is left out, so the rule allows less; a rule
//! whose list becomes empty that way allows nothing (an empty list in the object allows anything).

use desired::cluster::{NetworkPolicy, Peer, PodPeer, PolicyPort, PortMatch, Rule};
use desired::ip_block::IpBlock;
use desired::labels::LabelSelector;
use desired::names::PolicyName;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fields::Fields;
use super::{TranslateError, Translated};

/// Translates a NetworkPolicy.
///
/// # Errors
/// When its name, `spec.podSelector` or `spec.policyTypes` cannot be understood: then it is not
/// known whom it isolates.
pub fn network_policy(
    object: &networking::NetworkPolicy,
) -> Result<Translated<NetworkPolicy>, TranslateError> {
    let mut fields = Fields::of("NetworkPolicy", &object.metadata);
    let name = fields.name(&object.metadata, PolicyName::new)?;
    let spec = object.spec.clone().unwrap_or_default();
    let pod_selector = match &spec.pod_selector {
        None => LabelSelector::everything(),
        Some(selector) => match fields.selector("spec.podSelector", selector) {
            Some(selector) => selector,
            None => return Err(last_problem(fields, name)),
        },
    };
    let (ingress, egress) = isolated(&fields, &spec)?;
    let incoming = spec
        .ingress
        .iter()
        .flatten()
        .map(|rule| (&rule.from, &rule.ports));
    let outgoing = spec
        .egress
        .iter()
        .flatten()
        .map(|rule| (&rule.to, &rule.ports));
    let value = NetworkPolicy {
        name,
        pod_selector,
        ingress: ingress.then(|| rules(&mut fields, "spec.ingress", "from", incoming)),
        egress: egress.then(|| rules(&mut fields, "spec.egress", "to", outgoing)),
    };
    Ok(fields.done(value))
}

fn last_problem(fields: Fields, name: PolicyName) -> TranslateError {
    let unknown = fields.error("spec.podSelector", name, "use a valid label selector");
    fields.done(()).problems.pop().unwrap_or(unknown)
}

/// `policyTypes`; left out: Ingress always, Egress when there are egress rules.
fn isolated(
    fields: &Fields,
    spec: &networking::NetworkPolicySpec,
) -> Result<(bool, bool), TranslateError> {
    let Some(types) = spec.policy_types.as_ref().filter(|types| !types.is_empty()) else {
        return Ok((
            true,
            spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        ));
    };
    let unknown = types
        .iter()
        .find(|one| !matches!(one.as_str(), "Ingress" | "Egress"));
    if let Some(unknown) = unknown {
        return Err(fields.error("spec.policyTypes", unknown, "use Ingress and/or Egress"));
    }
    let has = |wanted: &str| types.iter().any(|one| one == wanted);
    Ok((has("Ingress"), has("Egress")))
}

type Peers = Option<Vec<networking::NetworkPolicyPeer>>;
type Ports = Option<Vec<networking::NetworkPolicyPort>>;

fn rules<'a>(
    fields: &mut Fields,
    field: &str,
    peers_field: &str,
    objects: impl Iterator<Item = (&'a Peers, &'a Ports)>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, (peers, ports)) in objects.enumerate() {
        let field = format!("{field}[{index}]");
        let mut rule = Rule::default();
        if let Some(peers) = peers.as_ref().filter(|peers| !peers.is_empty()) {
            let peers = peers.iter().enumerate();
            let kept = peers.filter_map(|(index, one)| {
                peer(fields, &format!("{field}.{peers_field}[{index}]"), one)
            });
            rule.peers = Some(kept.collect());
        }
        if let Some(ports) = ports.as_ref().filter(|ports| !ports.is_empty()) {
            let ports = ports.iter().enumerate();
            let kept = ports
                .filter_map(|(index, one)| port(fields, &format!("{field}.ports[{index}]"), one));
            rule.ports = Some(kept.collect());
        }
        rules.push(rule);
    }
    rules
}

fn peer(fields: &mut Fields, field: &str, object: &networking::NetworkPolicyPeer) -> Option<Peer> {
    let selects = object.pod_selector.is_some() || object.namespace_selector.is_some();
    match &object.ip_block {
        Some(block) if !selects => ip_block(fields, field, block).map(Peer::IpBlock),
        None if selects => pod_peer(fields, field, object).map(Peer::Pods),
        Some(_) => {
            fields.problem(field, "ipBlock and selectors", "put them into two entries");
            None
        }
        None => {
            fields.problem(field, "{}", "set podSelector, namespaceSelector or ipBlock");
            None
        }
    }
}

fn pod_peer(
    fields: &mut Fields,
    field: &str,
    object: &networking::NetworkPolicyPeer,
) -> Option<PodPeer> {
    let namespaces = match &object.namespace_selector {
        None => None,
        Some(selector) => Some(fields.selector(&format!("{field}.namespaceSelector"), selector)?),
    };
    let pods = match &object.pod_selector {
        None => LabelSelector::everything(),
        Some(selector) => fields.selector(&format!("{field}.podSelector"), selector)?,
    };
    Some(PodPeer { namespaces, pods })
}

/// A block with an exception that cannot be understood would allow too much: left out whole.
fn ip_block(fields: &mut Fields, field: &str, object: &networking::IPBlock) -> Option<IpBlock> {
    let cidr = fields.network(&format!("{field}.ipBlock.cidr"), &object.cidr)?;
    let mut except = Vec::new();
    for (index, text) in object.except.iter().flatten().enumerate() {
        except.push(fields.network(&format!("{field}.ipBlock.except[{index}]"), text)?);
    }
    let block = IpBlock::new(cidr, except);
    fields.keep(&format!("{field}.ipBlock.except"), &object.cidr, block)
}

fn port(
    fields: &mut Fields,
    field: &str,
    object: &networking::NetworkPolicyPort,
) -> Option<PolicyPort> {
    let protocol = fields.protocol(&format!("{field}.protocol"), object.protocol.as_deref())?;
    let port_field = format!("{field}.port");
    let end_field = format!("{field}.endPort");
    let port = match (&object.port, object.end_port) {
        (None, None) => PortMatch::Any,
        (Some(IntOrString::String(name)), None) => PortMatch::Named(name.clone()),
        (Some(IntOrString::Int(number)), None) => {
            let number = fields.port(&port_field, *number)?;
            PortMatch::Range(number, number)
        }
        (Some(IntOrString::Int(number)), Some(end)) => {
            let from = fields.port(&port_field, *number)?;
            let to = fields.port(&end_field, end)?;
            if to < from {
                fields.problem(
                    &end_field,
                    end,
                    format_args!("use a number of at least {from}"),
                );
                return None;
            }
            PortMatch::Range(from, to)
        }
        (Some(IntOrString::String(_)) | None, Some(end)) => {
            fields.problem(
                &end_field,
                end,
                "set port to a number, or leave endPort out",
            );
            return None;
        }
    };
    Some(PolicyPort { protocol, port })
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "json! borrows; calls read better without &"
)]
mod tests {
    use desired::names::Protocol;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    use super::*;

    fn translate(spec: Value) -> Result<Translated<NetworkPolicy>, TranslateError> {
        let metadata = json!({"namespace": "shop", "name": "p"});
        network_policy(
            &serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
        )
    }

    fn translated(spec: Value) -> NetworkPolicy {
        let translated = translate(spec).unwrap();
        assert_eq!(translated.problems, []);
        translated.value
    }

    #[test]
    fn policy_types_have_their_defaults() {
        let isolates = |spec| {
            let policy = translated(spec);
            (policy.ingress.is_some(), policy.egress.is_some())
        };
        assert_eq!(isolates(json!({})), (true, false));
        assert_eq!(isolates(json!({"egress": []})), (true, false));
        assert_eq!(isolates(json!({"egress": [{}]})), (true, true));
        assert_eq!(isolates(json!({"policyTypes": ["Egress"]})), (false, true));
        assert_eq!(
            isolates(json!({"policyTypes": ["Ingress"], "egress": [{}]})),
            (true, false)
        );
        assert_eq!(
            isolates(json!({"policyTypes": ["Ingress", "Egress"]})),
            (true, true)
        );
    }

    #[test]
    fn empty_and_missing_lists_are_any() {
        assert_eq!(translated(json!({})).ingress, Some(vec![]));
        let any = Some(vec![Rule {
            peers: None,
            ports: None,
        }]);
        assert_eq!(translated(json!({"ingress": [{}]})).ingress, any);
        assert_eq!(
            translated(json!({"ingress": [{"from": [], "ports": []}]})).ingress,
            any
        );
    }

    #[test]
    fn peers_and_ports_are_read_whole() {
        let policy = translated(json!({
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{
                "from": [
                    {"podSelector": {"matchExpressions": [
                        {"key": "app", "operator": "In", "values": ["web"]}]}},
                    {"namespaceSelector": {}},
                    {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                ],
                "ports": [
                    {"port": 80}, {"port": 8000, "endPort": 8080, "protocol": "UDP"},
                    {"port": "http"}, {"protocol": "SCTP"},
                ],
            }],
        }));
        let everything = LabelSelector::everything;
        let pods = |namespaces, pods| Peer::Pods(PodPeer { namespaces, pods });
        let range =
            |from: i32, to: i32| PortMatch::Range(from.try_into().unwrap(), to.try_into().unwrap());
        let block = IpBlock::new(
            "10.0.0.0/8".parse().unwrap(),
            ["10.1.0.0/16".parse().unwrap()],
        );
        let rule = Rule {
            peers: Some(vec![
                pods(None, everything().with_label("app", "web")),
                pods(Some(everything()), everything()),
                pods(Some(everything().with_label("team", "a")), everything()),
                Peer::IpBlock(block.unwrap()),
            ]),
            ports: Some(vec![
                PolicyPort {
                    protocol: Protocol::Tcp,
                    port: range(80, 80),
                },
                PolicyPort {
                    protocol: Protocol::Udp,
                    port: range(8000, 8080),
                },
                PolicyPort {
                    protocol: Protocol::Tcp,
                    port: PortMatch::Named("http".to_owned()),
                },
                PolicyPort {
                    protocol: Protocol::Sctp,
                    port: PortMatch::Any,
                },
            ]),
        };
        let expected = NetworkPolicy {
            name: "shop/p".parse().unwrap(),
            pod_selector: everything().with_label("app", "db"),
            ingress: Some(vec![rule]),
            egress: None,
        };
        assert_eq!(policy, expected);
    }

    #[test]
    fn what_cannot_be_understood_allows_less() {
        let translated = translate(json!({"ingress": [
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["all"]}}]},
            {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}]},
            {"ports": [{"port": 90, "endPort": 80}]},
            {"from": [{}]},
        ]}))
        .unwrap();
        let none = || Rule {
            peers: Some(vec![]),
            ports: None,
        };
        let no_port = Rule {
            peers: None,
            ports: Some(vec![]),
        };
        assert_eq!(
            translated.value.ingress,
            Some(vec![none(), none(), no_port, none()])
        );
        let problems: Vec<_> = translated
            .problems
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            problems,
            [
                "NetworkPolicy shop/p: spec.ingress[0].from[0].ipBlock.except[0] \"all\": use a \
                 prefix such as 10.0.0.0/8 or fd00::/8",
                "NetworkPolicy shop/p: spec.ingress[1].from[0].podSelector.matchExpressions[0] \
                 \"Is\": use operator In, NotIn, Exists or DoesNotExist",
                "NetworkPolicy shop/p: spec.ingress[2].ports[0].endPort \"80\": use a number of at \
                 least 90",
                "NetworkPolicy shop/p: spec.ingress[3].from[0] \"{}\": set podSelector, \
                 namespaceSelector or ipBlock",
            ]
        );
    }

    #[test]
    fn a_policy_whose_subject_is_unknown_is_refused() {
        let selector = json!({"matchExpressions": [{"key": "a", "operator": "In"}]});
        let wrong = translate(json!({"podSelector": selector})).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "NetworkPolicy shop/p: spec.podSelector.matchExpressions[0] \"a\": In and NotIn need \
             at least one value"
        );
        let wrong = translate(json!({"policyTypes": ["Both"]})).unwrap_err();
        assert_eq!(wrong.field, "spec.policyTypes");
    }
}
