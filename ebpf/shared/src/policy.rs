//! Policy: pods of this node, classes of peers, and verdict tables.
//!
//! A peer's class is `class[addr]`, else the longest match of `cidr_class`, else [`CLASS_WORLD`].
//! A flow of an isolated pod is allowed when `verdict[{policy_set, direction, class}]` has an interval
//! that contains it with verdict [`VERDICT_ALLOW`]. **A missing verdict entry denies**, so every class
//! that a rule lets in needs its entry, including [`CLASS_WORLD`] for rules that match any peer
//! (whose intervals must be repeated in the entries of all other classes).
//! [`CLASS_NODE`] is always let into the node's own pods (ingress); for egress it is an ordinary class.

use crate::{V4, V6, assert_size};

/// Class of a peer that is in no table: matched by "any peer" rules only.
pub const CLASS_WORLD: u32 = 0;
/// Class of this node's own addresses.
pub const CLASS_NODE: u32 = 1;
/// Lowest class id that user space may hand out.
pub const CLASS_FIRST: u32 = 16;

/// Direction of a flow seen from the pod: somebody opens it to the pod.
pub const INGRESS: u8 = 0;
/// Direction of a flow seen from the pod: the pod opens it.
pub const EGRESS: u8 = 1;

/// Interval verdict: drop.
pub const VERDICT_DENY: u8 = 0;
/// Interval verdict: pass.
pub const VERDICT_ALLOW: u8 = 1;

/// Pod flag: ingress needs an allowing verdict.
pub const INGRESS_ISOLATED: u32 = 1;
/// Pod flag: egress needs an allowing verdict.
pub const EGRESS_ISOLATED: u32 = 2;

/// [`Interval::proto`] that stands for every protocol not matched by a more specific interval.
pub const PROTO_ANY: u8 = 0;
/// Most intervals that one verdict entry holds.
pub const MAX_INTERVALS: usize = 64;

/// Key of `towline_pod`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Host-side device index.
    pub ifindex: u32,
}

/// Value of `towline_pod`: a pod of this node whose policy is in force.
///
/// While a device with our programs attached has no entry, everything but ARP and ND is dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodValue {
    /// IPv4 address, all zero when the pod has none.
    pub addr4: V4,
    /// IPv6 address, all zero when the pod has none.
    pub addr6: V6,
    /// First part of [`VerdictKey`].
    pub policy_set: u32,
    /// Changes whenever the pod's policy may have changed: known flows are then judged anew.
    pub revision: u32,
    /// [`INGRESS_ISOLATED`] | [`EGRESS_ISOLATED`].
    pub flags: u32,
}

/// Key of `towline_local_v4`/`_v6`: address of a pod on this node. The loader's pod target keeps it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalKey<A> {
    /// Pod address.
    pub addr: A,
}

/// Value of `towline_local_v4`/`_v6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalValue {
    /// Host-side device index: key of `towline_pod`.
    pub ifindex: u32,
}

/// Key of `towline_pod_netns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodNetnsKey {
    /// `SO_NETNS_COOKIE` of a socket in the pod's network namespace.
    pub cookie: u64,
}

/// Value of `towline_pod_netns`: tells a caller's own address at connect time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodNetnsValue {
    /// IPv4 address, all zero when the pod has none.
    pub addr4: V4,
    /// IPv6 address, all zero when the pod has none.
    pub addr6: V6,
}

/// Key of `towline_class_v4`/`_v6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassKey<A> {
    /// Peer address.
    pub addr: A,
}

/// Value of `towline_class_*` and `towline_cidr_class_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassValue {
    /// Class id.
    pub class: u32,
}

/// Key of `towline_cidr_class_v4`/`_v6` (longest prefix match).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CidrKey<A> {
    /// Prefix length in bits.
    pub prefix: u32,
    /// Network address, host bits zero.
    pub addr: A,
}

/// Key of `towline_verdict`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerdictKey {
    /// [`PodValue::policy_set`].
    pub policy_set: u32,
    /// Class of the peer.
    pub class: u32,
    /// [`INGRESS`] or [`EGRESS`].
    pub direction: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// One port interval of a verdict entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// IP protocol number, or [`PROTO_ANY`] (then `from` is 0 and `to` is 65535).
    pub proto: u8,
    /// [`VERDICT_ALLOW`] or [`VERDICT_DENY`].
    pub verdict: u8,
    /// First destination port, host order.
    pub from: u16,
    /// Last destination port, host order.
    pub to: u16,
    /// Zero.
    pub pad: u16,
    /// Which rule decided, for people.
    pub rule: u32,
}

/// Value of `towline_verdict`: disjoint intervals in ascending order of (proto, from).
///
/// At most one interval has [`PROTO_ANY`], and it is the first; it applies where no other matches.
/// Protocols without ports match with port 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictValue {
    /// How many of `intervals` are used.
    pub count: u32,
    /// The intervals; unused ones are all zero.
    pub intervals: [Interval; MAX_INTERVALS],
}

/// A verdict entry cannot hold these intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalsError {
    /// More than [`MAX_INTERVALS`]: carries the number given.
    TooMany(usize),
    /// Interval at this index is empty, overlaps its predecessor, or is out of order.
    Unsorted(usize),
}

impl VerdictValue {
    /// Builds an entry from sorted, disjoint intervals.
    ///
    /// # Errors
    /// [`IntervalsError`] when there are too many or they are not in order.
    pub fn new(intervals: &[Interval]) -> Result<Self, IntervalsError> {
        if intervals.len() > MAX_INTERVALS {
            return Err(IntervalsError::TooMany(intervals.len()));
        }
        let mut value = Self {
            count: intervals.len() as u32,
            intervals: [Interval::default(); MAX_INTERVALS],
        };
        let mut last: Option<&Interval> = None;
        for (index, (slot, interval)) in value.intervals.iter_mut().zip(intervals).enumerate() {
            let follows = last.is_none_or(|l| (l.proto, l.to) < (interval.proto, interval.from));
            if interval.from > interval.to || !follows {
                return Err(IntervalsError::Unsorted(index));
            }
            *slot = *interval;
            last = Some(interval);
        }
        Ok(value)
    }

    /// The intervals in use.
    pub fn used(&self) -> &[Interval] {
        self.intervals
            .get(..self.count as usize)
            .unwrap_or(&self.intervals)
    }
}

/// Finds the interval that decides on `proto` and `port` (host order); `None` denies.
///
/// An early-exit scan: the shape that the kernel's verifier accepts at this length.
#[inline(always)]
pub fn find_interval(value: &VerdictValue, proto: u8, port: u16) -> Option<&Interval> {
    let mut index = 0usize;
    while index < MAX_INTERVALS {
        let interval = value.intervals.get(index)?;
        if index as u32 >= value.count || interval.proto > proto {
            break;
        }
        if interval.proto == proto && interval.from <= port && port <= interval.to {
            return Some(interval);
        }
        index += 1;
    }
    let first = value.intervals.first()?;
    (value.count > 0 && first.proto == PROTO_ANY).then_some(first)
}

assert_size!(
    PodKey = 4,
    PodValue = 32,
    LocalKey<V4> = 4,
    LocalKey<V6> = 16,
    LocalValue = 4,
    PodNetnsKey = 8,
    PodNetnsValue = 20,
    ClassKey<V4> = 4,
    ClassKey<V6> = 16,
    ClassValue = 4,
    CidrKey<V4> = 8,
    CidrKey<V6> = 20,
    VerdictKey = 12,
    Interval = 12,
    VerdictValue = 772,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ICMP, TCP, UDP};
    use std::vec::Vec;

    fn interval(proto: u8, from: u16, to: u16, verdict: u8, rule: u32) -> Interval {
        Interval {
            proto,
            verdict,
            from,
            to,
            pad: 0,
            rule,
        }
    }

    #[test]
    fn the_specific_interval_wins_over_the_general_one() {
        let value = VerdictValue::new(&[
            interval(PROTO_ANY, 0, 65_535, VERDICT_ALLOW, 1),
            interval(TCP, 80, 80, VERDICT_DENY, 2),
            interval(TCP, 8000, 8080, VERDICT_ALLOW, 3),
            interval(UDP, 53, 53, VERDICT_DENY, 4),
        ])
        .unwrap();
        let rule = |proto, port| find_interval(&value, proto, port).map(|i| i.rule);
        assert_eq!(rule(TCP, 80), Some(2));
        assert_eq!(rule(TCP, 81), Some(1));
        assert_eq!(rule(TCP, 8080), Some(3));
        assert_eq!(rule(UDP, 53), Some(4));
        assert_eq!(rule(ICMP, 0), Some(1));
    }

    #[test]
    fn nothing_matches_outside_of_the_intervals() {
        let value = VerdictValue::new(&[interval(TCP, 80, 90, VERDICT_ALLOW, 1)]).unwrap();
        for (proto, port, found) in [
            (TCP, 79, false),
            (TCP, 80, true),
            (TCP, 90, true),
            (TCP, 91, false),
            (UDP, 80, false),
        ] {
            assert_eq!(
                find_interval(&value, proto, port).is_some(),
                found,
                "{proto}/{port}"
            );
        }
        let empty = VerdictValue::new(&[]).unwrap();
        assert_eq!(find_interval(&empty, TCP, 0), None);
    }

    #[test]
    fn a_full_entry_is_searched_to_its_end() {
        let many: Vec<_> = (0..MAX_INTERVALS as u16)
            .map(|n| interval(TCP, n * 10, n * 10, VERDICT_ALLOW, 9))
            .collect();
        let value = VerdictValue::new(&many).unwrap();
        assert!(find_interval(&value, TCP, 630).is_some());
        assert!(find_interval(&value, TCP, 631).is_none());
        assert_eq!(value.used(), many);
    }

    #[test]
    fn bad_interval_lists_are_refused() {
        let one = interval(TCP, 5, 5, VERDICT_ALLOW, 1);
        assert_eq!(
            VerdictValue::new(&[one; 65]),
            Err(IntervalsError::TooMany(65))
        );
        assert_eq!(
            VerdictValue::new(&[one, one]),
            Err(IntervalsError::Unsorted(1))
        );
        let empty = interval(TCP, 6, 5, VERDICT_ALLOW, 1);
        assert_eq!(
            VerdictValue::new(&[empty]),
            Err(IntervalsError::Unsorted(0))
        );
    }
}
