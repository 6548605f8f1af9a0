//! The rules that hold for one local pod, with everything resolved that depends on that pod.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, NetworkPolicy, Pod, PolicyPort, PortMatch, Rule};
use crate::names::{PolicyName, Protocol};
use crate::policy::peers::{Vocabulary, Word};
use crate::policy::rule_name::{Direction, RuleName};
use crate::stable_id::ContentHash;

/// Ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ports {
    /// These ports of a protocol, both ends included.
    Range(Protocol, u16, u16),
    /// Whatever the peer calls so (egress only: there the peer is the destination).
    NamedAtPeer(Protocol, Word),
}

/// One rule, resolved for one pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResolvedRule {
    pub(crate) name: RuleName,
    /// `None` is any peer.
    pub(crate) peers: Option<BTreeSet<Word>>,
    /// `None` is any port of any protocol.
    pub(crate) ports: Option<BTreeSet<Ports>>,
}

/// Everything that decides on one pod's flows. Pods with equal sets share their tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PolicySet {
    /// `None` when nothing isolates the pod in this direction.
    pub(crate) ingress: Option<Vec<ResolvedRule>>,
    /// `None` when nothing isolates the pod in this direction.
    pub(crate) egress: Option<Vec<ResolvedRule>>,
    /// The policies that select the pod: two sets may have the same (or no) rules for different
    /// reasons.
    pub(crate) policies: BTreeSet<PolicyName>,
}

/// The policies that select a pod, in order of name.
pub(crate) fn selecting<'a>(
    cluster: &'a Cluster,
    pod: &'a Pod,
) -> impl Iterator<Item = &'a NetworkPolicy> {
    let policies = cluster.network_policies.values().map(AsRef::as_ref);
    policies.filter(|policy: &&NetworkPolicy| policy.selects(pod))
}

impl PolicySet {
    /// The set for a pod that these policies select.
    pub(crate) fn new(policies: &[&NetworkPolicy], pod: &Pod, vocabulary: &Vocabulary) -> Self {
        let mut set = Self::default();
        let resolve = |policy: &NetworkPolicy, direction, rules: &[Rule]| {
            let resolver = Resolver {
                policy,
                direction,
                pod,
                vocabulary,
            };
            let rules = rules.iter().enumerate();
            rules
                .map(|(index, rule)| resolver.rule(index, rule))
                .collect::<Vec<_>>()
        };
        for policy in policies {
            set.policies.insert(policy.name.clone());
            if let Some(rules) = &policy.ingress {
                let resolved = resolve(policy, Direction::Ingress, rules);
                set.ingress.get_or_insert_default().extend(resolved);
            }
            if let Some(rules) = &policy.egress {
                let resolved = resolve(policy, Direction::Egress, rules);
                set.egress.get_or_insert_default().extend(resolved);
            }
        }
        set
    }

    /// The rules of a direction; `None` when it is not isolated.
    pub(crate) fn rules(&self, direction: Direction) -> Option<&[ResolvedRule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// A proposal for the set's identifier, from its content alone.
    pub(crate) fn hash(&self, vocabulary: &Vocabulary, attempt: u64) -> u32 {
        let mut hash = ContentHash::new("policy set").number(attempt);
        for policy in &self.policies {
            hash = hash.part(policy.to_string().as_bytes());
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            let Some(rules) = self.rules(direction) else {
                continue;
            };
            hash = hash.part(direction.to_string().as_bytes());
            for rule in rules {
                hash = rule.hash(hash, vocabulary);
            }
        }
        hash.finish()
    }
}

impl ResolvedRule {
    fn hash(&self, hash: ContentHash, vocabulary: &Vocabulary) -> ContentHash {
        let mut hash = hash.part(self.name.to_string().as_bytes());
        if let Some(peers) = &self.peers {
            hash = hash.part(b"peers").number(peers.len() as u64);
            for &word in peers {
                hash = hash.part(vocabulary.atom_text(word).as_bytes());
            }
        }
        if let Some(ports) = &self.ports {
            hash = hash.part(b"ports").number(ports.len() as u64);
            for ports in ports {
                let text = match ports {
                    Ports::Range(protocol, from, to) => format!("{protocol} {from}-{to}"),
                    Ports::NamedAtPeer(_, word) => vocabulary.port_text(*word),
                };
                hash = hash.part(text.as_bytes());
            }
        }
        hash
    }
}

struct Resolver<'a> {
    policy: &'a NetworkPolicy,
    direction: Direction,
    pod: &'a Pod,
    vocabulary: &'a Vocabulary,
}

impl Resolver<'_> {
    fn rule(&self, index: usize, rule: &Rule) -> ResolvedRule {
        let namespace = &self.policy.name.namespace;
        let peers = rule.peers.as_ref().map(|peers| {
            peers
                .iter()
                .filter_map(|peer| self.vocabulary.word(namespace, peer))
                .collect()
        });
        let ports = rule.ports.as_ref();
        ResolvedRule {
            name: RuleName {
                policy: self.policy.name.clone(),
                direction: self.direction,
                index,
            },
            peers,
            ports: ports.map(|ports| ports.iter().flat_map(|port| self.ports(port)).collect()),
        }
    }

    /// A name that the destination does not know allows nothing.
    fn ports(&self, port: &PolicyPort) -> Vec<Ports> {
        let protocol = port.protocol;
        match (&port.port, self.direction) {
            (PortMatch::Any, _) => vec![Ports::Range(protocol, 0, u16::MAX)],
            (PortMatch::Range(from, to), _) => {
                vec![Ports::Range(protocol, from.get(), to.get())]
            }
            (PortMatch::Named(name), Direction::Ingress) => self
                .pod
                .named_port(name, protocol)
                .map(|number| Ports::Range(protocol, number.get(), number.get()))
                .collect(),
            (PortMatch::Named(name), Direction::Egress) => {
                let word = self.vocabulary.port_word(name, protocol);
                word.map(|word| Ports::NamedAtPeer(protocol, word))
                    .into_iter()
                    .collect()
            }
        }
    }
}
