//! Why a node gets no lease, or does not hold the one it has safely; what has become of a lease.

use std::fmt;
use std::net::Ipv4Addr;

use ipnetwork::IpNetwork;
use netstate::MacAddr;
use thiserror::Error;

use crate::lease::{Attributes, LeaseKey};

/// Why a node holds no lease, or not safely.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// Every subnet is taken.
    #[error(
        "out of subnets: all {size} of {network} are leased or overlap a lease; free one, or make Network larger"
    )]
    Full {
        /// Addresses of all pods.
        network: IpNetwork,
        /// How many subnets it has.
        size: u128,
    },
    /// Another node uses this node's address.
    #[error(
        "lease {key} has this node's PublicIP {public_ip} but VtepMAC {theirs}, which is not this node's {ours}: \
         give each node an address of its own (public-ip, iface), or release that lease if its node is gone"
    )]
    Duplicate {
        /// The other node's lease.
        key: LeaseKey,
        /// The address both claim.
        public_ip: Ipv4Addr,
        /// The other node's MAC.
        theirs: MacAddr,
        /// This node's.
        ours: MacAddr,
    },
    /// Another node has written its value over this node's.
    #[error(
        "lease {key} of this node ({ours}) was overwritten by {theirs}: give each node an address of its own \
         (public-ip, iface), then delete that key; this node takes it again"
    )]
    Overwritten {
        /// The lease.
        key: LeaseKey,
        /// What this node wrote.
        ours: Holder,
        /// What is there now.
        theirs: Holder,
    },
    /// Another lease has addresses of this one.
    #[error(
        "lease {key} of this node ({ours}) shares addresses with lease {other} ({theirs}): \
         release one of them, and set the same SubnetLen everywhere"
    )]
    Overlap {
        /// This node's lease.
        key: LeaseKey,
        /// Whose it is.
        ours: Holder,
        /// The other one.
        other: LeaseKey,
        /// Whose that is.
        theirs: Holder,
    },
}

/// Who a lease's value says it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A node.
    Node {
        /// Its address.
        public_ip: Ipv4Addr,
        /// Its first overlay device's MAC.
        mac: Option<MacAddr>,
    },
    /// Nobody knows: the value cannot be read.
    Unreadable,
}

/// What has become of the lease that a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It says what this node wrote.
    Ours,
    /// It is gone, and free for all that is known.
    Gone,
    /// It was gone, and somebody else has created it since: it is rightfully theirs.
    Taken(Holder),
    /// Somebody has written over it.
    Overwritten(Holder),
}

/// What has become of a lease that was created at revision `created` and should say one of `ours`
/// (more than one while it is not known which write was the last to arrive), now that `found` is
/// there: the revision of its creation, and its value if it can be read.
#[must_use]
pub fn standing(
    ours: &[&Attributes],
    created: i64,
    found: Option<(i64, Option<&Attributes>)>,
) -> Standing {
    match found {
        None => Standing::Gone,
        Some((_, Some(value))) if ours.contains(&value) => Standing::Ours,
        Some((found, value)) if found != created => Standing::Taken(Holder::of(value)),
        Some((_, value)) => Standing::Overwritten(Holder::of(value)),
    }
}

// === impl Holder ===

impl Holder {
    /// Whose a value is.
    #[must_use]
    pub fn of(value: Option<&Attributes>) -> Self {
        value.map_or(Self::Unreadable, |value| Self::Node {
            public_ip: value.public_ip,
            mac: value.macs().first().copied(),
        })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { public_ip, mac } => {
                write!(f, "PublicIP {public_ip}")?;
                mac.map_or(Ok(()), |mac| write!(f, ", VtepMAC {mac}"))
            }
            Self::Unreadable => f.write_str("a value that cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(ip: &str) -> Attributes {
        let text = format!(
            r#"{{"PublicIP":"{ip}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}}}"#
        );
        Attributes::decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_has_become_of_a_lease_is_told_by_its_value_and_its_creation() {
        let (own, next, other) = (value("192.0.2.1"), value("192.0.2.2"), value("192.0.2.7"));
        let ours = [&own, &next];
        let theirs = Holder::of(Some(&other));
        assert_eq!(standing(&ours, 5, None), Standing::Gone);
        assert_eq!(standing(&ours, 5, Some((5, Some(&own)))), Standing::Ours);
        // Restored from a backup, or written by a request whose answer was lost.
        assert_eq!(standing(&ours, 5, Some((3, Some(&next)))), Standing::Ours);
        let found = standing(&ours, 5, Some((5, Some(&other))));
        assert_eq!(found, Standing::Overwritten(theirs));
        let found = standing(&ours, 5, Some((9, Some(&other))));
        assert_eq!(found, Standing::Taken(theirs));
        let found = standing(&ours, 5, Some((5, None)));
        assert_eq!(found, Standing::Overwritten(Holder::Unreadable));
    }

    #[test]
    fn both_sides_are_named() {
        let key = "10.5.1.0-24".parse().unwrap();
        let (ours, theirs) = (
            Holder::of(Some(&value("192.0.2.1"))),
            Holder::of(Some(&value("192.0.2.7"))),
        );
        let overwritten = Obstacle::Overwritten { key, ours, theirs };
        assert_eq!(
            overwritten.to_string(),
            "lease 10.5.1.0-24 of this node (PublicIP 192.0.2.1, VtepMAC 02:00:00:00:00:01) was overwritten by \
             PublicIP 192.0.2.7, VtepMAC 02:00:00:00:00:01: give each node an address of its own (public-ip, iface), \
             then delete that key; this node takes it again"
        );
        let overlap = Obstacle::Overlap {
            key,
            ours,
            other: "10.5.0.0-22".parse().unwrap(),
            theirs: Holder::Unreadable,
        };
        assert_eq!(
            overlap.to_string(),
            "lease 10.5.1.0-24 of this node (PublicIP 192.0.2.1, VtepMAC 02:00:00:00:00:01) shares addresses with lease \
             10.5.0.0-22 (a value that cannot be read): release one of them, and set the same SubnetLen everywhere"
        );
    }
}
