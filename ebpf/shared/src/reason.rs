//! Why the data path did what it did: index of the counters and code in events.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $name:literal, $drop:literal;)+) => {
        /// What happened to a packet. Codes are stable; counters are indexed by them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $code,)+
        }

        impl Reason {
            /// Every reason, in ascending order of code.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Name for metrics and people.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether the packet was dropped.
            pub const fn is_drop(self) -> bool {
                match self { $(Self::$variant => $drop,)+ }
            }

            /// The reason with this code.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// Passed to the node's stack or to the pod.
    Forwarded = 0, "forwarded", false;
    /// Handed directly to another pod of this node.
    RedirectedLocal = 1, "redirected-local", false;
    /// Sent back to the pod that is its own backend.
    Hairpin = 3, "hairpin", false;
    /// Goes to a frontend without backends; marked so that the node rejects it.
    NoBackend = 4, "no-backend", false;
    /// A flow could not be tracked as established because the table is full; it stays embryonic.
    ConntrackFull = 5, "conntrack-full", false;
    /// An event did not fit into the ring buffer.
    EventLost = 6, "event-lost", false;
    /// A new flow was let in by policy (event only).
    FlowAllowed = 7, "flow-allowed", false;
    /// The device has no pod entry yet.
    NotReady = 16, "not-ready", true;
    /// The pod used a source address that is not its own.
    SpoofedSource = 17, "spoofed-source", true;
    /// The packet on a pod's device is not for the pod's address.
    WrongDestination = 18, "wrong-destination", true;
    /// Denied by a policy rule.
    PolicyDenied = 19, "policy-denied", true;
    /// The pod is isolated and no rule allows the peer.
    PolicyNoMatch = 20, "policy-no-match", true;
    /// Only this node's backends may be used and there is none.
    NoLocalBackend = 21, "no-local-backend", true;
    /// The service tables are inconsistent: a slot or a backend is missing.
    BackendMissing = 22, "backend-missing", true;
    /// A header is truncated or impossible.
    Malformed = 23, "malformed", true;
    /// A fragment without ports whose first fragment was not seen.
    Fragment = 24, "fragment", true;
    /// Ethernet protocol other than ARP, IPv4 and IPv6.
    UnknownEtherType = 25, "unknown-ether-type", true;
    /// IP version that the pod has no address of.
    UnknownFamily = 26, "unknown-family", true;
    /// Rewriting the packet failed.
    RewriteFailed = 27, "rewrite-failed", true;
    /// The flow could not be tracked.
    ConntrackInsert = 28, "conntrack-insert", true;
}

/// Entries per direction of the counters map: codes are below this.
pub const REASON_SLOTS: u32 = 64;

/// Index into `towline_counters` for a reason seen in a direction
/// ([`crate::policy::INGRESS`] = to the pod, [`crate::policy::EGRESS`] = from the pod).
#[inline(always)]
pub const fn counter_index(reason: Reason, direction: u8) -> u32 {
    direction as u32 * REASON_SLOTS + reason as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_fit_into_the_counters() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(*reason as u8), Some(*reason));
            assert!((*reason as u32) < REASON_SLOTS);
            assert_eq!(reason.is_drop(), *reason as u8 >= 16);
        }
        assert_eq!(Reason::from_code(63), None);
        assert_eq!(counter_index(Reason::NotReady, crate::policy::EGRESS), 80);
    }
}
