//! How people name a rule of a policy.

use std::fmt;

use ebpf_shared::policy::{EGRESS, INGRESS};
use serde::{Deserialize, Serialize};

use crate::names::PolicyName;

/// Which way a flow is opened, seen from the pod that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// By the pod.
    Egress,
}

impl Direction {
    /// The data path's number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ingress => INGRESS,
            Self::Egress => EGRESS,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// One rule of one NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleName {
    /// The policy.
    pub policy: PolicyName,
    /// Which of its two lists the rule is in.
    pub direction: Direction,
    /// Position in that list, from 0.
    pub index: usize,
}

/// Prints `namespace/policy ingress[0]`.
impl fmt::Display for RuleName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}[{}]", self.policy, self.direction, self.index)
    }
}
