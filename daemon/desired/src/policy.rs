//! NetworkPolicies to the data path's pods, classes and verdicts.
//!
//! For each pod of this node the policies that select it become a *policy set*. Peers become
//! *classes*: two peers about which this node's policies say the same are one class. Rules are
//! flattened into a verdict per policy set, direction and class. Nothing is allocated anywhere and
//! nothing is shared between nodes.

mod classes;
pub mod evaluate;
pub mod lookup;
mod peers;
mod rule_name;
mod rules;
mod transition;
mod verdicts;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ebpf_shared::policy::{
    CidrKey, ClassKey, ClassValue, EGRESS_ISOLATED, INGRESS_ISOLATED, MAX_INTERVALS, PodKey,
    PodNetnsKey, PodNetnsValue, PodValue, VerdictKey, VerdictValue,
};
use ebpf_shared::{V4, V6};
use thiserror::Error;

pub use rule_name::{Direction, RuleName};
pub use transition::bridge;
pub use verdicts::{RULE_FIRST, RULE_NODE};

use crate::cluster::{Cluster, LocalEndpoint, NetworkPolicy, Pod};
use crate::family::TableAddress;
use crate::names::{PodName, PolicyName};
use crate::policy::classes::Classes;
use crate::policy::peers::Vocabulary;
use crate::policy::rules::{PolicySet, selecting};
use crate::policy::verdicts::intervals;
use crate::stable_id::{ContentHash, assign};

/// The policy tables. Put verdicts first (with those of [`bridge`]), then classes and prefixes,
/// then pods: a pod never points at rules that are not there yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyTables {
    /// `towline_verdict`.
    pub verdicts: BTreeMap<VerdictKey, VerdictValue>,
    /// IPv4 peers.
    pub v4: PeerTables<V4>,
    /// IPv6 peers.
    pub v6: PeerTables<V6>,
    /// `towline_pod`: pods of this node whose policy is known. Others stay closed.
    pub pods: BTreeMap<PodKey, PodValue>,
    /// `towline_pod_netns`: every registered pod.
    pub pod_netns: BTreeMap<PodNetnsKey, PodNetnsValue>,
    /// What each rule id in verdicts, flows and events stands for.
    pub rules: BTreeMap<u32, RuleName>,
    /// Which policies each policy set holds.
    pub policy_sets: BTreeMap<u32, BTreeSet<PolicyName>>,
    /// Changes with every change of verdicts or classes; never 0.
    pub revision: u32,
    /// What could not be enforced as written. It denies instead.
    pub problems: Vec<PolicyProblem>,
}

/// Classes of peers of one family.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerTables<A: Ord> {
    /// `towline_class_*`.
    pub classes: BTreeMap<ClassKey<A>, ClassValue>,
    /// `towline_cidr_class_*`.
    pub cidr_classes: BTreeMap<CidrKey<A>, ClassValue>,
}

impl<A: Ord> Default for PeerTables<A> {
    fn default() -> Self {
        Self {
            classes: BTreeMap::new(),
            cidr_classes: BTreeMap::new(),
        }
    }
}

/// Policies that cannot be enforced as written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyProblem {
    /// A verdict needs more port intervals than the data path holds.
    #[error(
        "policies {}: {direction} needs {intervals} port intervals, {MAX_INTERVALS} are possible, \
         so pods {} are denied all {direction}: use endPort or fewer ports",
        joined(.policies), joined(.pods)
    )]
    TooManyIntervals {
        /// The policies that together need them.
        policies: BTreeSet<PolicyName>,
        /// The pods that are closed in this direction.
        pods: BTreeSet<PodName>,
        /// The direction.
        direction: Direction,
        /// How many intervals would be needed.
        intervals: usize,
    },
}

fn joined<T: ToString>(names: &BTreeSet<T>) -> String {
    names
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A pod of this node and everything that decides on its flows.
struct Subject<'a> {
    endpoint: &'a LocalEndpoint,
    pod: &'a Pod,
    set: PolicySet,
}

/// Computes the policy tables; `None` while the snapshot is not complete.
///
/// Without a complete snapshot a policy may be missing, so nothing must be written: a new pod has
/// no entry and stays closed, and whoever had one before a restart of the daemon keeps it.
#[must_use]
pub fn policy(cluster: &Cluster) -> Option<PolicyTables> {
    if !cluster.complete {
        return None;
    }
    let compilation = Compilation::new(cluster);
    let pod_netns = cluster.local_endpoints.values().map(|one| pod_netns(one));
    let mut tables = PolicyTables {
        v4: peer_tables(&compilation.classes),
        v6: peer_tables(&compilation.classes),
        pod_netns: pod_netns.collect(),
        ..PolicyTables::default()
    };
    let set_ids = compilation.set_ids();
    for (set, &id) in &set_ids {
        tables.policy_sets.insert(id, set.policies.clone());
        for direction in [Direction::Ingress, Direction::Egress] {
            compilation.add_verdicts(&mut tables, set, id, direction);
        }
    }
    tables.revision = tables.peers_hash().finish_nonzero();
    for subject in &compilation.subjects {
        let policy_set = set_ids.get(&subject.set).copied().unwrap_or_default();
        let (key, value) = pod_entry(subject, policy_set, tables.revision);
        tables.pods.insert(key, value);
    }
    let rules = compilation.rule_ids.into_iter();
    tables.rules = rules.map(|(name, id)| (id, name)).collect();
    Some(tables)
}

/// Everything resolved and numbered, before it is written as tables.
struct Compilation<'a> {
    vocabulary: Vocabulary,
    subjects: Vec<Subject<'a>>,
    classes: Classes,
    rule_ids: BTreeMap<RuleName, u32>,
}

impl<'a> Compilation<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let selected: Vec<(&LocalEndpoint, &Pod, Vec<&NetworkPolicy>)> = cluster
            .local_endpoints
            .values()
            .filter_map(|endpoint| Some((endpoint.as_ref(), cluster.pod_of(endpoint)?)))
            .map(|(endpoint, pod)| (endpoint, pod, selecting(cluster, pod).collect()))
            .collect();
        let in_force = selected.iter().flat_map(|(_, _, policies)| policies);
        let in_force: BTreeMap<_, _> = in_force.map(|policy| (&policy.name, *policy)).collect();
        let vocabulary = Vocabulary::of(in_force.values().copied());
        let subjects = selected.into_iter().map(|(endpoint, pod, policies)| {
            let set = PolicySet::new(&policies, pod, &vocabulary);
            Subject { endpoint, pod, set }
        });
        Self {
            subjects: subjects.collect(),
            classes: Classes::new(cluster, &vocabulary),
            rule_ids: rule_ids(in_force.into_values()),
            vocabulary,
        }
    }

    /// Pods that no policy selects have set 0, for which there is nothing to look up.
    fn set_ids(&self) -> BTreeMap<PolicySet, u32> {
        let sets = self.subjects.iter().map(|subject| subject.set.clone());
        let sets = sets.filter(|set| !set.policies.is_empty()).collect();
        assign(sets, 1, |set, attempt| set.hash(&self.vocabulary, attempt))
    }

    /// Adds the verdicts of one set and direction: all of them, or none when one does not fit.
    fn add_verdicts(
        &self,
        tables: &mut PolicyTables,
        set: &PolicySet,
        policy_set: u32,
        direction: Direction,
    ) {
        let Some(rules) = set.rules(direction) else {
            return;
        };
        let mut entries = Vec::new();
        for (&class, content) in &self.classes.contents {
            let fitting = intervals(rules, direction, content, &self.rule_ids)
                .map_err(|too_many| too_many.0)
                .and_then(|list| VerdictValue::new(&list).map_err(|_| list.len()));
            match fitting {
                Ok(value) if value.count == 0 => {}
                Ok(value) => entries.push((class, value)),
                Err(intervals) => {
                    let pods = self.subjects.iter().filter(|subject| subject.set == *set);
                    tables.problems.push(PolicyProblem::TooManyIntervals {
                        policies: set.policies.clone(),
                        pods: pods.map(|subject| subject.pod.name.clone()).collect(),
                        direction,
                        intervals,
                    });
                    return;
                }
            }
        }
        let direction = direction.code();
        tables
            .verdicts
            .extend(entries.into_iter().map(|(class, value)| {
                (
                    VerdictKey {
                        policy_set,
                        class,
                        direction,
                        pad: [0; 3],
                    },
                    value,
                )
            }));
    }
}

fn rule_ids<'a>(policies: impl Iterator<Item = &'a NetworkPolicy>) -> BTreeMap<RuleName, u32> {
    let lists = policies.flat_map(|policy| {
        let ingress = policy
            .ingress
            .iter()
            .map(move |rules| (policy, Direction::Ingress, rules));
        ingress.chain(
            policy
                .egress
                .iter()
                .map(move |rules| (policy, Direction::Egress, rules)),
        )
    });
    let names = lists.flat_map(|(policy, direction, rules)| {
        (0..rules.len()).map(move |index| RuleName {
            policy: policy.name.clone(),
            direction,
            index,
        })
    });
    assign(names.collect(), RULE_FIRST, |name, attempt| {
        ContentHash::new("rule")
            .part(name.to_string().as_bytes())
            .number(attempt)
            .finish()
    })
}

fn peer_tables<A: TableAddress>(classes: &Classes) -> PeerTables<A> {
    let addresses = classes.addresses.iter();
    let prefixes = classes.prefixes.iter();
    PeerTables {
        classes: addresses
            .filter_map(|(&address, &class)| {
                Some((
                    ClassKey {
                        addr: A::from_ip(address)?,
                    },
                    ClassValue { class },
                ))
            })
            .collect(),
        cidr_classes: prefixes
            .filter_map(|(prefix, &class)| {
                let addr = A::from_ip(prefix.network())?;
                Some((
                    CidrKey {
                        prefix: prefix.prefix().into(),
                        addr,
                    },
                    ClassValue { class },
                ))
            })
            .collect(),
    }
}

/// The endpoint's address of one family, all zero when it has none.
fn address_of<A: TableAddress + Default>(endpoint: &LocalEndpoint) -> A {
    let mut addresses = endpoint.addresses.iter().copied().filter_map(A::from_ip);
    addresses.next().unwrap_or_default()
}

fn pod_netns(endpoint: &LocalEndpoint) -> (PodNetnsKey, PodNetnsValue) {
    let value = PodNetnsValue {
        addr4: address_of(endpoint),
        addr6: address_of(endpoint),
    };
    (
        PodNetnsKey {
            cookie: endpoint.netns_cookie,
        },
        value,
    )
}

fn pod_entry(subject: &Subject<'_>, policy_set: u32, revision: u32) -> (PodKey, PodValue) {
    let isolated = |rules: &Option<_>, flag| if rules.is_some() { flag } else { 0 };
    let flags = isolated(&subject.set.ingress, INGRESS_ISOLATED)
        | isolated(&subject.set.egress, EGRESS_ISOLATED);
    let revision = ContentHash::new("pod revision")
        .number(revision.into())
        .number(policy_set.into())
        .number(flags.into());
    let value = PodValue {
        addr4: address_of(subject.endpoint),
        addr6: address_of(subject.endpoint),
        policy_set,
        revision: revision.finish_nonzero(),
        flags,
    };
    (
        PodKey {
            ifindex: subject.endpoint.host_ifindex,
        },
        value,
    )
}

impl PolicyTables {
    /// Hash of everything that can change a verdict for a given policy set.
    fn peers_hash(&self) -> ContentHash {
        let mut hash = ContentHash::new("policy revision");
        for (key, value) in &self.verdicts {
            hash = hash
                .number(key.policy_set.into())
                .number(key.class.into())
                .number(key.direction.into())
                .number(value.count.into());
            for interval in value.used() {
                hash = hash
                    .number(interval.proto.into())
                    .number(interval.verdict.into())
                    .number(interval.from.into())
                    .number(interval.to.into())
                    .number(interval.rule.into());
            }
        }
        self.v6.hash(self.v4.hash(hash))
    }
}

impl<A: TableAddress> PeerTables<A> {
    fn hash(&self, mut hash: ContentHash) -> ContentHash {
        for (key, value) in &self.classes {
            hash = hash
                .part(text(key.addr).as_bytes())
                .number(value.class.into());
        }
        for (key, value) in &self.cidr_classes {
            let prefix = hash.number(key.prefix.into());
            hash = prefix
                .part(text(key.addr).as_bytes())
                .number(value.class.into());
        }
        hash
    }
}

fn text<A: TableAddress>(address: A) -> String {
    let ip: IpAddr = address.to_ip();
    ip.to_string()
}
