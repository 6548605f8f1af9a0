//! One nftables table of ours as a value: chains, rules and sets as data.
//!
//! The table is replaced as a whole in one kernel transaction, so there are no rule handles, no
//! positions and no "add if absent" here. Names and hooks are nftables' own (`nft(8)`).

mod rule;
mod shared;

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub use rule::{Addresses, CtStates, DeviceName, FibKind, Mark, Match, Reject, Rule, Verdict};
pub use shared::{ChainRef, Owner, SharedRule, SharedRules, SharedTable};

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    /// Which packets it sees.
    pub family: TableFamily,
    /// Its name, such as `towline`.
    pub name: String,
    /// Named sets by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// Which packets a table sees, and what its hooks are.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    #[default]
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Ethernet frames that go through a bridge.
    Bridge,
}

/// A named set of addresses or prefixes of one family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Set {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Whether elements may be prefixes. Overlapping prefixes are merged when written.
    pub interval: bool,
    /// The elements. Those of the other family, and prefixes without `interval`, are refused when
    /// written.
    pub elements: BTreeSet<IpNetwork>,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A chain: a base chain if it has a hook, else one to jump to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chain {
    /// Where packets enter it.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: ChainKind,
    /// The netfilter hook.
    pub hook: Hook,
    /// Order among chains of one hook; lower comes first.
    pub priority: i32,
    /// What happens at the end of the chain.
    pub policy: Policy,
}

/// The type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChainKind {
    /// Every packet.
    Filter,
    /// The first packet of a connection.
    Nat,
    /// Packets whose change makes the kernel route them again (output only).
    Route,
}

/// A netfilter hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// The end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// Let the packet go on.
    Accept,
    /// Discard it.
    Drop,
}

// === impl Table ===

impl Table {
    /// An empty table of family `inet`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self::of(TableFamily::Inet, name)
    }

    /// An empty table.
    #[must_use]
    pub fn of(family: TableFamily, name: impl Into<String>) -> Self {
        Self {
            family,
            name: name.into(),
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }
}

// === impl Family ===

impl Family {
    /// The family of `network`.
    #[must_use]
    pub const fn of(network: &IpNetwork) -> Self {
        match network {
            IpNetwork::V4(_) => Self::V4,
            IpNetwork::V6(_) => Self::V6,
        }
    }

    /// Length of an address in bytes.
    #[must_use]
    pub const fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

// === impl Base ===

impl Base {
    /// `type filter hook HOOK priority PRIORITY; policy accept;`
    #[must_use]
    pub const fn filter(hook: Hook, priority: i32) -> Self {
        Self {
            kind: ChainKind::Filter,
            hook,
            priority,
            policy: Policy::Accept,
        }
    }

    /// `type nat hook HOOK priority PRIORITY; policy accept;`
    #[must_use]
    pub const fn nat(hook: Hook, priority: i32) -> Self {
        Self {
            kind: ChainKind::Nat,
            hook,
            priority,
            policy: Policy::Accept,
        }
    }
}

// === impl Chain ===

impl Chain {
    /// A base chain.
    #[must_use]
    pub const fn base(base: Base, rules: Vec<Rule>) -> Self {
        Self {
            base: Some(base),
            rules,
        }
    }
}
