//! PURE: whether this node carries pods, and what else is to be known of it.
//!
//! Two kinds of sentences: what it waits for, without which it is not ready; and notes, of what is
//! wrong but does no harm to this node's traffic, such as a store that is away for a while.

use std::fmt::Display;

use desired::cluster::{Cluster, Leases};
use desired::routes::routes;
use jiff::Timestamp;
use serde::Serialize;

use crate::findings::Findings;
use crate::lease::{Lease, StoreReport, Tenure};
use crate::reconcile::overlay;
use crate::store::Kind;

/// How many notes of one kind there are at most.
const MOST: usize = 5;

/// Whether this node carries pods.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// What it waits for; empty when it is ready.
    pub waiting_for: Vec<String>,
    /// What is wrong, but no reason not to be ready.
    pub notes: Vec<String>,
}

/// What it is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// The snapshot.
    pub(super) cluster: &'a Cluster,
    /// What has not been listed at all.
    pub(super) missing: &'a [Kind],
    /// What is wrong with what the API server tells.
    pub(super) findings: &'a Findings,
    /// Whether this node is to have a lease.
    pub(super) tenure: Tenure,
    /// What the overlay loop has set up.
    pub(super) lease: Option<&'a Lease>,
    /// What the store of leases says.
    pub(super) report: &'a StoreReport,
    /// What each loop's last pass could not do; `None` before the first.
    pub(super) loops: &'a [(&'static str, Option<Vec<String>>)],
    /// The time.
    pub(super) now: Timestamp,
}

// === impl Facts ===

impl Facts<'_> {
    /// Why this node does not carry pods (yet): causes, not what follows from them.
    pub(super) fn waiting_for(&self) -> Vec<String> {
        match self.tenure {
            Tenure::Wanted => {}
            Tenure::GivingBack => return vec!["the end of `towline node release`".to_owned()],
            Tenure::GivenBack => {
                let why = "a restart of towlined: this node's lease was given back by `towline node release`";
                return vec![why.to_owned()];
            }
        }
        if !self.missing.is_empty() {
            // Nothing is done before everything is known.
            return self.lists();
        }
        let mut waiting_for: Vec<String> = self.loops.iter().filter_map(pass).collect();
        waiting_for.extend(self.lease_obstacles());
        waiting_for
    }

    fn lists(&self) -> Vec<String> {
        let (leases, objects): (Vec<Kind>, Vec<Kind>) =
            self.missing.iter().partition(|kind| **kind == Kind::Lease);
        let mut lists = Vec::new();
        if !leases.is_empty() {
            let why = reason(self.report.trouble.as_ref());
            lists.push(format!("the first list of leases in etcd{why}"));
        }
        if !objects.is_empty() {
            let mut interrupted = objects
                .iter()
                .filter_map(|kind| self.findings.interruption(*kind));
            let why = reason(interrupted.next().map(|one| &one.why));
            lists.push(format!(
                "the API server's first list of {}{why}",
                joined(&objects)
            ));
        }
        lists
    }

    /// Why this node holds no lease, or not safely.
    pub(super) fn lease_obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        let report = self.report;
        match self.lease {
            Some(lease) if lease.is_up() => {
                let shown = self.cluster.own_lease().and_then(|own| own.announced);
                if shown != Some(&lease.announced) {
                    let why = reason(report.trouble.as_ref());
                    obstacles.push(format!(
                        "its lease to say in the store how other nodes reach it{why}"
                    ));
                }
            }
            Some(_) if report.obstacle.is_none() => obstacles.push(self.no_subnet()),
            Some(_) => {}
            // The loop's own line says why.
            None if self.overlay_says_why() => {}
            None => obstacles.push("the overlay".to_owned()),
        }
        obstacles.extend(report.obstacle.iter().map(|why| format!("a lease: {why}")));
        if report.expires.is_some_and(|expires| expires < self.now) {
            let why = reason(report.trouble.as_ref());
            obstacles.push(format!(
                "etcd: this node's lease has expired meanwhile, and may be another node's{why}"
            ));
        }
        obstacles
    }

    fn overlay_says_why(&self) -> bool {
        let mut loops = self.loops.iter();
        loops.any(|one| one.0 == overlay::NAME && pass(one).is_some())
    }

    /// Why the overlay has no addresses of this node.
    fn no_subnet(&self) -> String {
        let name = &self.cluster.this_node.name;
        if let Leases::InStore { .. } = self.cluster.leases {
            return format!("a lease in etcd{}", reason(self.report.trouble.as_ref()));
        }
        let Some(node) = self.cluster.own_node() else {
            return format!(
                "a Node called {name}: the API server has none; is node-name what this node's kubelet calls it?"
            );
        };
        let networks = self.cluster.pod_networks.iter();
        let without = networks.filter(|network| {
            let mut cidrs = node.pod_cidrs.iter();
            !cidrs.any(|cidr| cidr.is_ipv4() == network.is_ipv4())
        });
        let families: Vec<&str> = without
            .map(|network| if network.is_ipv4() { "IPv4" } else { "IPv6" })
            .collect();
        format!(
            "an {} podCIDR: Node {name} has none in spec.podCIDRs; does its controller manager run with --allocate-node-cidrs?",
            families.join(" and ")
        )
    }

    /// What is wrong with where leases are kept.
    pub(super) fn store_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(trouble) = &self.report.trouble {
            let since = since(self.report.since);
            notes.push(match self.cluster.leases {
                Leases::InStore { .. } => format!(
                    "etcd is not followed{since}: {trouble}; leases, routes and pods stay as they were"
                ),
                Leases::OnNodes => format!("{trouble}{since}"),
            });
        }
        for (kinds, interruption) in self.findings.interruptions() {
            notes.push(format!(
                "the API server is not followed{} ({}): {}; everything stays as it was",
                since(Some(interruption.since)),
                joined(&kinds),
                interruption.why
            ));
        }
        notes
    }

    /// All notes.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.store_notes();
        let unreadable = self.report.unreadable.iter();
        notes.extend(some(unreadable, "among the leases, cannot be read"));
        notes.extend(some(self.findings.objects(), "left out"));
        if let Some(lease) = self.lease {
            let problems = routes(self.cluster, &lease.overlay).problems;
            notes.extend(some(problems.iter(), "left out of the overlay"));
        }
        notes
    }
}

/// What a loop's last pass leaves to be waited for.
fn pass((name, errors): &(&'static str, Option<Vec<String>>)) -> Option<String> {
    let Some(errors) = errors else {
        return Some(format!("the first pass of the {name} loop"));
    };
    let first = errors.first()?;
    let more = match errors.len() {
        1 => String::new(),
        many => format!(" (and {} more)", many - 1),
    };
    Some(format!(
        "a pass of the {name} loop without errors: {first}{more}"
    ))
}

fn reason(why: Option<&String>) -> String {
    why.map_or_else(String::new, |why| format!(": {why}"))
}

fn since(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, |time| format!(" since {time}"))
}

fn joined(kinds: &[Kind]) -> String {
    let names: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// The first of `all`, and how many more there are.
fn some(all: impl Iterator<Item = impl Display>, what: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let mut more = 0;
    for one in all {
        match notes.len() {
            ..MOST => notes.push(format!("{what}: {one}")),
            _ => more += 1,
        }
    }
    if more > 0 {
        notes.push(format!("{what}: {more} more, see `towline leases`"));
    }
    notes
}

#[cfg(test)]
mod tests;
