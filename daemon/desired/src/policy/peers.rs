//! What this node's policies say of peers, each thing once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::cluster::{Namespace, NetworkPolicy, Peer, Pod, PodPeer, PortMatch, Rule};
use crate::ip_block::IpBlock;
use crate::labels::LabelSelector;
use crate::names::{NamespaceName, Protocol};

/// The namespaces by name.
pub(crate) type Namespaces = BTreeMap<NamespaceName, Arc<Namespace>>;

/// Which namespaces a peer's pods are in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Own(NamespaceName),
    Selected(LabelSelector),
}

/// A set of pods by selectors, apart from the policy that says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodSet {
    scope: Scope,
    pods: LabelSelector,
}

impl PodSet {
    /// The pods that a peer of a policy in `namespace` means.
    pub(crate) fn new(namespace: &NamespaceName, peer: &PodPeer) -> Self {
        let scope = match &peer.namespaces {
            None => Scope::Own(namespace.clone()),
            Some(selector) => Scope::Selected(selector.clone()),
        };
        Self {
            scope,
            pods: peer.pods.clone(),
        }
    }

    /// Whether a pod belongs to the set. Of a namespace that is not known yet only `{}` selects.
    pub(crate) fn contains(&self, pod: &Pod, namespaces: &Namespaces) -> bool {
        let in_scope = match &self.scope {
            Scope::Own(name) => pod.name.namespace == *name,
            Scope::Selected(selector) => match namespaces.get(&pod.name.namespace) {
                Some(namespace) => selector.matches(&namespace.labels),
                None => selector.selects_everything(),
            },
        };
        in_scope && self.pods.matches(&pod.labels)
    }
}

impl fmt::Display for PodSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Own(name) => write!(out, "pods {} in namespace {name}", self.pods),
            Scope::Selected(selector) => {
                write!(out, "pods {} in namespaces {selector}", self.pods)
            }
        }
    }
}

/// One thing a rule can say of a peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Atom {
    Pods(PodSet),
    Block(IpBlock),
}

impl Atom {
    fn new(namespace: &NamespaceName, peer: &Peer) -> Self {
        match peer {
            Peer::Pods(peer) => Self::Pods(PodSet::new(namespace, peer)),
            Peer::IpBlock(block) => Self::Block(block.clone()),
        }
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(pods) => pods.fmt(out),
            Self::Block(block) => block.fmt(out),
        }
    }
}

/// Position of an [`Atom`] or of a named port in the [`Vocabulary`].
pub(crate) type Word = u32;

/// A port name that an egress rule uses: its number differs from peer to peer.
pub(crate) type NamedPort = (String, Protocol);

/// Everything that the policies in force on this node say of peers.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    atoms: Vec<Atom>,
    ports: Vec<NamedPort>,
}

impl Vocabulary {
    /// The vocabulary of some policies.
    pub(crate) fn of<'a>(policies: impl IntoIterator<Item = &'a NetworkPolicy>) -> Self {
        let mut atoms = BTreeSet::new();
        let mut ports = BTreeSet::new();
        for policy in policies {
            let all = policy.ingress.iter().chain(&policy.egress).flatten();
            let peers = all.flat_map(|rule| rule.peers.iter().flatten());
            atoms.extend(peers.map(|peer| Atom::new(&policy.name.namespace, peer)));
            ports.extend(policy.egress.iter().flatten().flat_map(named_ports));
        }
        Self {
            atoms: atoms.into_iter().collect(),
            ports: ports.into_iter().collect(),
        }
    }

    /// The word for a peer of a policy in `namespace`; `None` when it is not in the vocabulary.
    pub(crate) fn word(&self, namespace: &NamespaceName, peer: &Peer) -> Option<Word> {
        position(&self.atoms, &Atom::new(namespace, peer))
    }

    /// The word for a named egress port; `None` when it is not in the vocabulary.
    pub(crate) fn port_word(&self, name: &str, protocol: Protocol) -> Option<Word> {
        position(&self.ports, &(name.to_owned(), protocol))
    }

    /// All sets of pods.
    pub(crate) fn pod_sets(&self) -> impl Iterator<Item = (Word, &PodSet)> {
        self.words().filter_map(|(word, atom)| match atom {
            Atom::Pods(pods) => Some((word, pods)),
            Atom::Block(_) => None,
        })
    }

    /// All blocks.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (Word, &IpBlock)> {
        self.words().filter_map(|(word, atom)| match atom {
            Atom::Pods(_) => None,
            Atom::Block(block) => Some((word, block)),
        })
    }

    /// All named egress ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (Word, &NamedPort)> {
        (0..).zip(&self.ports)
    }

    /// What a word stands for, as text that is the same whatever else is in the vocabulary.
    pub(crate) fn atom_text(&self, word: Word) -> String {
        let atom = usize::try_from(word)
            .ok()
            .and_then(|index| self.atoms.get(index));
        atom.map(ToString::to_string).unwrap_or_default()
    }

    /// What a port word stands for, as text.
    pub(crate) fn port_text(&self, word: Word) -> String {
        let port = usize::try_from(word)
            .ok()
            .and_then(|index| self.ports.get(index));
        port.map(|(name, protocol)| format!("{name}/{protocol}"))
            .unwrap_or_default()
    }

    fn words(&self) -> impl Iterator<Item = (Word, &Atom)> {
        (0..).zip(&self.atoms)
    }
}

fn position<T: Ord>(sorted: &[T], wanted: &T) -> Option<Word> {
    let index = sorted.binary_search(wanted).ok()?;
    Word::try_from(index).ok()
}

fn named_ports(rule: &Rule) -> impl Iterator<Item = NamedPort> + '_ {
    rule.ports
        .iter()
        .flatten()
        .filter_map(|port| match &port.port {
            PortMatch::Named(name) => Some((name.clone(), port.protocol)),
            PortMatch::Any | PortMatch::Range(..) => None,
        })
}
