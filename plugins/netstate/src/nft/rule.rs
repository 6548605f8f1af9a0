//! A rule: what it matches and what it does.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::mac::MacAddr;
use crate::names::IfName;

/// A rule: when all matches hold, count if asked, then do what the verdict says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Source address of the Ethernet frame; tables of family `bridge` only.
    EthernetSource(MacAddr),
    /// `mark & mask == value`.
    Mark(Mark),
    /// Connection tracking state, any of these.
    CtState(CtStates),
    /// The connection's destination was translated (`ct status dnat`).
    Dnatted,
    /// Layer 4 protocol number (6 TCP, 17 UDP, 132 SCTP, …).
    Protocol(u8),
    /// Destination port of the connection's first packet before any translation, host order; put a
    /// [`Match::Protocol`] before it.
    OriginalDestinationPort(u16),
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Addresses {
    /// One prefix (a host is /32 or /128).
    Prefix(IpNetwork),
    /// The members of a named set of this table.
    Set(String),
}

/// An interface name, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceName {
    /// Exactly this interface.
    Is(IfName),
    /// Every interface whose name begins so (`veth*`).
    BeginsWith(IfName),
}

/// Some bits of the packet's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The bits in question.
    pub mask: u32,
    /// What they are, or become.
    pub value: u32,
}

/// Connection tracking states as nftables' bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CtStates(u32);

/// What an address is to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Send it elsewhere; nat chains at prerouting and output only. Its replies are changed back.
    Dnat {
        /// The new destination, of the table's family.
        address: IpAddr,
        /// The new destination port of the layer 4 header, host order; unchanged if `None`. Put a
        /// [`Match::Protocol`] before it.
        port: Option<u16>,
    },
    /// Discard it and tell the sender.
    Reject(Reject),
}

/// How the sender of a rejected packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reject {
    /// ICMP or ICMPv6 "port unreachable", by the packet's family.
    PortUnreachable,
    /// ICMP or ICMPv6 "administratively prohibited", by the packet's family.
    AdminProhibited,
    /// A TCP reset; put a [`Match::Protocol`] of 6 before it.
    TcpReset,
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
