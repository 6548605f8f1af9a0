//! Queueing disciplines: what limits a link's rate, and where filters on what comes in hang.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// One tick of the kernel's packet scheduler in nanoseconds (`PSCHED_SHIFT` of `pkt_sched.h`, the
/// same on every kernel since 2.6.31; `/proc/net/psched` tells it as its second number).
pub const TICK_NANOSECONDS: u64 = 64;
const NANOSECONDS: u64 = 1_000_000_000;
const MICROSECONDS: u64 = 1_000_000;
/// How long a packet waits for a bucket of no size, at most.
const LATENCY_MICROSECONDS: u64 = 25_000;
/// The longest bucket that a `tbf` takes in ticks: the kernel cuts at 2³² - 1 nanoseconds.
const LONGEST_TICKS: u64 = u32::MAX as u64 / TICK_NANOSECONDS;

/// A queueing discipline to be added to a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Qdisc {
    /// `1:` at the root: everything that leaves is limited.
    Tbf(Bucket),
    /// `1:` at the root: what leaves is limited or not by subnet.
    Htb(Htb),
    /// `ffff:`, with filters on what comes in and on what leaves.
    Clsact,
}

/// Where a queueing discipline hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QdiscAt {
    /// At the root, for what leaves.
    Root,
    /// Before everything, for what comes in.
    Ingress,
}

/// A token bucket, with the arithmetic of the reference `bandwidth` plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Bytes per second; not zero.
    pub rate: u64,
    /// Bytes that pass at once after a rest; not zero.
    pub burst: u32,
}

/// Two classes: `1:30` (hexadecimal) has a bucket, `1:1` has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Htb {
    /// The bucket of the limited class.
    pub bucket: Bucket,
    /// Which packets `subnets` speak of.
    pub remote: Remote,
    /// Prefixes without host bits.
    pub subnets: Vec<IpNetwork>,
    /// Whether the subnets are the limited ones, or the others are.
    pub limited: bool,
}

/// On which side of a packet the far address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remote {
    /// Packets to a pod.
    Source,
    /// Packets from a pod.
    Destination,
}

// === impl Qdisc ===

impl Qdisc {
    /// Where it hangs.
    #[must_use]
    pub const fn at(&self) -> QdiscAt {
        match self {
            Self::Tbf(_) | Self::Htb(_) => QdiscAt::Root,
            Self::Clsact => QdiscAt::Ingress,
        }
    }
}

// === impl Bucket ===

impl Bucket {
    /// Bytes that may wait: 25 ms of the rate and the burst.
    #[must_use]
    pub fn limit(self) -> u32 {
        let waiting = u128::from(self.rate) * u128::from(LATENCY_MICROSECONDS);
        let waiting = waiting / u128::from(MICROSECONDS) + u128::from(self.burst);
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// The time that the burst takes at the rate, in ticks, by way of whole microseconds.
    #[must_use]
    pub fn ticks(self) -> u64 {
        let microseconds = u64::from(self.burst) * MICROSECONDS / self.rate.max(1);
        microseconds * 1000 / TICK_NANOSECONDS
    }

    /// Whether the kernel must be given the burst as a size, because as that time it would be cut,
    /// or lose more than a hundredth to the rounding (at high rates whole packets, which then never
    /// pass).
    #[must_use]
    pub fn is_given_as_size(self) -> bool {
        let ticks = self.ticks();
        let nanoseconds = u128::from(ticks * TICK_NANOSECONDS);
        let bytes = nanoseconds * u128::from(self.rate) / u128::from(NANOSECONDS);
        ticks > LONGEST_TICKS || bytes * 100 < u128::from(self.burst) * 99
    }

    /// Whether a `tbf` that shows `rate`, `limit` and a bucket of `ticks` is this one. One that
    /// was given as a size is shown less exactly, and modulo 2³².
    #[must_use]
    pub fn is_shown_as(self, rate: u64, limit: u32, ticks: u32) -> bool {
        let bucket = if self.is_given_as_size() {
            let nanoseconds = u128::from(self.burst) * u128::from(NANOSECONDS);
            let wanted = nanoseconds / u128::from(self.rate.max(1)) / u128::from(TICK_NANOSECONDS);
            let slack = u32::try_from(wanted >> 28).unwrap_or(u32::MAX).max(1);
            let modulo = u128::from(u32::MAX) + 1;
            let wanted = u32::try_from(wanted % modulo).unwrap_or(0);
            ticks.wrapping_sub(wanted).min(wanted.wrapping_sub(ticks)) <= slack
        } else {
            u64::from(ticks) == self.ticks()
        };
        rate == self.rate && limit == self.limit() && bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_the_reference_plugins() {
        // 80 Mbit/s, burst 8 Mbit: `tc -s qdisc show` beside the reference plugin.
        let bucket = Bucket {
            rate: 10_000_000,
            burst: 1_000_000,
        };
        assert_eq!((bucket.limit(), bucket.ticks()), (1_250_000, 1_562_500));
        assert!(bucket.is_shown_as(10_000_000, 1_250_000, 1_562_500));
        assert!(!bucket.is_shown_as(10_000_000, 1_250_000, 1_562_501));
        let odd = Bucket { rate: 3, burst: 1 };
        // 333333 µs of 15.625 ticks each.
        assert_eq!((odd.limit(), odd.ticks()), (1, 5_208_328));
    }

    #[test]
    fn numbers_beyond_the_kernels_are_cut_not_wrapped() {
        let deep = Bucket {
            rate: u64::MAX / 8,
            burst: u32::MAX,
        };
        assert_eq!(deep.limit(), u32::MAX);
        assert_eq!(deep.ticks(), 0);
        // What kubelet asks for without a burst annotation: 2³¹ - 1 bits.
        let kubelet = Bucket {
            rate: 125_000,
            burst: 268_435_455,
        };
        assert!(kubelet.is_given_as_size());
        // 10 Gbit/s: 1 µs of it is less than a packet.
        let fast = Bucket {
            rate: 1_250_000_000,
            burst: 1514,
        };
        assert!(fast.is_given_as_size());
    }
}
