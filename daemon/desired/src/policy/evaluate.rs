//! NetworkPolicy's own words, read object by object.
//!
//! Slow and plain: it says which rule of which policy decides on a flow at any pod of the cluster,
//! and it is what the compiled tables are tested against.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, NetworkPolicy, Peer, Pod, PodPeer, PortMatch, Rule};
use crate::names::PolicyName;
use crate::policy::rule_name::{Direction, RuleName};

/// A new flow as one of its ends sees it.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// The pod whose policies are asked.
    pub subject: &'a Pod,
    /// Whether the flow is opened to the pod or by it.
    pub direction: Direction,
    /// The other end's address, after service translation.
    pub peer: IpAddr,
    /// The other end's pod, when the address is one's.
    pub peer_pod: Option<&'a Pod>,
    /// Whether the other end is the node that the pod runs on.
    pub peer_is_own_node: bool,
    /// The IP protocol number.
    pub protocol: u8,
    /// The destination port, after service translation; 0 for protocols without ports.
    pub port: u16,
}

/// What a pod's policies say of a flow, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "camelCase")]
pub enum Decision {
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// A node always reaches its own pods.
    OwnNode,
    /// A rule allows the flow: the first by policy name and position.
    Allowed {
        /// The rule.
        rule: RuleName,
    },
    /// Policies isolate the pod and none of their rules allows the flow.
    Denied {
        /// The policies that isolate it.
        policies: Vec<PolicyName>,
    },
}

impl Decision {
    /// Whether the flow passes this end.
    #[must_use]
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Denied { .. })
    }
}

/// Decides on a flow at one end.
#[must_use]
pub fn decide(cluster: &Cluster, flow: &Flow<'_>) -> Decision {
    let mut isolating = Vec::new();
    let mut allowing = None;
    for policy in cluster.network_policies.values() {
        let Some(rules) = isolates(policy, flow) else {
            continue;
        };
        isolating.push(policy.name.clone());
        let first = rules
            .iter()
            .position(|rule| allows(cluster, policy, rule, flow));
        if let Some(index) = first.filter(|_| allowing.is_none()) {
            let (policy, direction) = (policy.name.clone(), flow.direction);
            allowing = Some(RuleName {
                policy,
                direction,
                index,
            });
        }
    }
    match allowing {
        _ if isolating.is_empty() => Decision::NotIsolated,
        _ if flow.peer_is_own_node && flow.direction == Direction::Ingress => Decision::OwnNode,
        Some(rule) => Decision::Allowed { rule },
        None => Decision::Denied {
            policies: isolating,
        },
    }
}

/// The policy's rules for the flow's direction, when it isolates the pod.
fn isolates<'a>(policy: &'a NetworkPolicy, flow: &Flow<'_>) -> Option<&'a [Rule]> {
    let rules = match flow.direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    };
    rules.filter(|_| policy.selects(flow.subject))
}

fn allows(cluster: &Cluster, policy: &NetworkPolicy, rule: &Rule, flow: &Flow<'_>) -> bool {
    let peer = rule.peers.as_ref().is_none_or(|peers| {
        peers.iter().any(|peer| match peer {
            Peer::IpBlock(block) => block.contains(flow.peer),
            Peer::Pods(pods) => is_among(cluster, policy, pods, flow.peer_pod),
        })
    });
    peer && rule.ports.as_ref().is_none_or(|ports| {
        ports.iter().any(|port| {
            port.protocol.number() == flow.protocol
                && match &port.port {
                    PortMatch::Any => true,
                    PortMatch::Range(from, to) => (from.get()..=to.get()).contains(&flow.port),
                    PortMatch::Named(name) => destination(flow).is_some_and(|pod| {
                        pod.named_port(name, port.protocol)
                            .any(|port| port.get() == flow.port)
                    }),
                }
        })
    })
}

fn destination<'a>(flow: &Flow<'a>) -> Option<&'a Pod> {
    match flow.direction {
        Direction::Ingress => Some(flow.subject),
        Direction::Egress => flow.peer_pod,
    }
}

fn is_among(cluster: &Cluster, policy: &NetworkPolicy, peer: &PodPeer, pod: Option<&Pod>) -> bool {
    let Some(pod) = pod else { return false };
    let in_namespace = match &peer.namespaces {
        None => pod.name.namespace == policy.name.namespace,
        Some(selector) => match cluster.namespaces.get(&pod.name.namespace) {
            Some(namespace) => selector.matches(&namespace.labels),
            None => selector.selects_everything(),
        },
    };
    in_namespace && peer.pods.matches(&pod.labels)
}
