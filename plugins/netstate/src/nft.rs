//! One nftables table of ours as a value: chains, rules and sets as data.
//!
//! The table is replaced as a whole in one kernel transaction, so there are no rule handles, no
//! positions and no "add if absent" here. Names and hooks are nftables' own (`nft(8)`).

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::names::IfName;

/// A table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name, such as `towline`.
    pub name: String,
    /// Named sets by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// Rules of one owner in a table that many owners share, such as one owner for each container.
///
/// Such a table is never replaced: its frame is made if need be, and an owner's rules are found
/// again by their comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRules {
    /// The frame: chains that must be there. Base chains are made to hold exactly their rules, other
    /// chains keep what they hold.
    pub frame: Table,
    /// The chain that the rules are added to.
    pub chain: String,
    /// The comment of all of them, by which they are found again.
    pub comment: String,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// A named set of addresses or prefixes of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Where packets enter it.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChainKind {
    /// Every packet.
    Filter,
    /// The first packet of a connection.
    Nat,
    /// Packets whose change makes the kernel route them again (output only).
    Route,
}

/// A netfilter hook of family `inet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Let the packet go on.
    Accept,
    /// Discard it.
    Drop,
}

/// A rule: when all matches hold, count if asked, then do what the verdict says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// All of them must hold.
    pub matches: Vec<Match>,
    /// Count packets and bytes.
    pub counter: bool,
    /// Changes to the packet's mark, made before the verdict.
    pub set_mark: Option<Mark>,
    /// What happens; `None` goes on with the next rule.
    pub verdict: Option<Verdict>,
    /// Shown by `nft list`; at most 128 bytes.
    pub comment: Option<String>,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Match {
    /// Source address.
    Source(Addresses),
    /// Source address, negated.
    NotSource(Addresses),
    /// Destination address.
    Destination(Addresses),
    /// Destination address, negated.
    NotDestination(Addresses),
    /// Name of the interface it came by.
    InDevice(DeviceName),
    /// Name of the interface it came by, negated.
    NotInDevice(DeviceName),
    /// Name of the interface it leaves by.
    OutDevice(DeviceName),
    /// Name of the interface it leaves by, negated.
    NotOutDevice(DeviceName),
    /// `mark & mask == value`.
    Mark(Mark),
    /// Connection tracking state, any of these.
    CtState(CtStates),
    /// The connection's destination was translated (`ct status dnat`).
    Dnatted,
    /// Layer 4 protocol number (6 TCP, 17 UDP, 132 SCTP, …).
    Protocol(u8),
    /// Destination port of the layer 4 header, host order; put a [`Match::Protocol`] before it.
    DestinationPort(u16),
    /// Source port of the layer 4 header, host order; put a [`Match::Protocol`] before it.
    SourcePort(u16),
    /// `fib daddr type`: what the destination is to this host.
    DestinationKind(FibKind),
    /// `fib saddr type`: what the source is to this host.
    SourceKind(FibKind),
}

/// Which addresses a rule means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Addresses {
    /// One prefix (a host is /32 or /128).
    Prefix(IpNetwork),
    /// The members of a named set of this table.
    Set(String),
}

/// An interface name, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceName {
    /// Exactly this interface.
    Is(IfName),
    /// Every interface whose name begins so (`veth*`).
    BeginsWith(IfName),
}

/// Some bits of the packet's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The bits in question.
    pub mask: u32,
    /// What they are, or become.
    pub value: u32,
}

/// Connection tracking states as nftables' bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtStates(u32);

/// What an address is to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FibKind {
    /// One of the host's own addresses.
    Local,
    /// A broadcast address.
    Broadcast,
    /// A multicast group.
    Multicast,
    /// Somewhere else.
    Unicast,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Let it go on.
    Accept,
    /// Discard it silently.
    Drop,
    /// Go back to the chain that jumped here.
    Return,
    /// Go through another chain, then come back.
    Jump(String),
    /// Go through another chain and do not come back.
    Goto(String),
    /// Give it the address of the interface it leaves by; nat chains at postrouting only.
    Masquerade {
        /// Choose source ports at random (`fully-random`), which avoids races between CPUs.
        random_fully: bool,
    },
    /// Discard it and tell the sender.
    Reject(Reject),
}

/// How the sender of a rejected packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reject {
    /// ICMP or ICMPv6 "port unreachable", by the packet's family.
    PortUnreachable,
    /// ICMP or ICMPv6 "administratively prohibited", by the packet's family.
    AdminProhibited,
    /// A TCP reset; put a [`Match::Protocol`] of 6 before it.
    TcpReset,
}

// === impl Table ===

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
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

// === impl Rule ===

impl Rule {
    /// A rule without counter, mark or comment.
    #[must_use]
    pub const fn new(matches: Vec<Match>, verdict: Verdict) -> Self {
        Self {
            matches,
            counter: false,
            set_mark: None,
            verdict: Some(verdict),
            comment: None,
        }
    }

    /// The same rule, counting.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.counter = true;
        self
    }

    /// The same rule with a comment.
    #[must_use]
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.comment = Some(text.into());
        self
    }
}

// === impl CtStates ===

impl CtStates {
    /// Belongs to no connection and cannot.
    pub const INVALID: Self = Self(1);
    /// Both directions have been seen.
    pub const ESTABLISHED: Self = Self(2);
    /// Belongs to a connection that another one announced.
    pub const RELATED: Self = Self(4);
    /// Begins a connection.
    pub const NEW: Self = Self(8);
    /// Exempt from tracking.
    pub const UNTRACKED: Self = Self(64);

    /// These states and `other`'s.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// nftables' bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}
