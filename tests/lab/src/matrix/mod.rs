//! The connectivity checks, as data: a name, how it is asked, what is expected. `lab demo`, `lab test` and
//! the end-to-end tests run the same list.

mod ask;
mod leased;
mod lifecycle;
mod plan;
mod policy_plan;
mod run;
mod underlay;
mod workloads;
mod world;

use crate::applet::Protocol;

pub use plan::{plan, short};
pub use run::{Outcome, Tally, run};
pub use world::World;

/// Nodes that the checks need.
pub const NODES: u8 = 3;

/// Checks that share a preparation.
#[derive(Debug, Clone)]
pub struct Phase {
    /// What must be done before; the checks fail if it does.
    pub prepare: Prepare,
    /// The checks, in order.
    pub checks: Vec<Check>,
}

/// What is done before a phase.
#[derive(Debug, Clone)]
pub enum Prepare {
    /// Objects are applied, all pods in them become ready, all Services get this many endpoints.
    Workloads,
    /// NetworkPolicies are applied, as YAML.
    Policies(&'static str),
    /// NetworkPolicies of the namespace `policy` are deleted, by name.
    RemovePolicies(&'static [&'static str]),
    /// Nothing.
    Nothing,
}

/// One line of the matrix.
#[derive(Debug, Clone)]
pub struct Check {
    /// What is checked, unique.
    pub name: String,
    /// How.
    pub how: How,
}

/// How something is checked.
#[derive(Debug, Clone)]
pub enum How {
    /// Attempts from one place to another, all of which must turn out as expected.
    Ask(Ask, Expect),
    /// Packets between two pods are counted on the underlay: all are carried as the backend does it.
    Carried(Pod, Pod),
    /// Every node has a lease, says so wherever it must, and gives its pods addresses of it.
    Leased,
    /// towlined is killed under load on every node, and started again.
    Restart,
    /// A pod is deleted and another one gets its address.
    Reuse,
}

/// A pod by namespace and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod(pub &'static str, pub &'static str);

/// Where attempts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A pod.
    Pod(Pod),
    /// A node's own network, by number.
    Node(u8),
}

/// Where attempts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// A pod's address.
    Pod(Pod, u16),
    /// A Service's ClusterIP, by namespace and name.
    Service(&'static str, &'static str, u16),
    /// The host outside of the cluster.
    Outside(u16),
}

/// Attempts of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Where from.
    pub from: From,
    /// Where to.
    pub to: To,
    /// How.
    pub protocol: Protocol,
    /// How often.
    pub count: u32,
}

/// What is expected of every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Answered, by exactly these host names over all attempts, which saw this source.
    Answered(Vec<&'static str>, Source),
    /// No answer at all.
    Denied,
    /// Refused.
    Refused,
}

/// Whose address the server must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The caller's own.
    Caller,
    /// That of the node the caller runs on.
    Node,
    /// Any.
    Any,
}
