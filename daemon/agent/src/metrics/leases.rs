//! Metrics of leases, brought up to date when they are asked for.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What there is to be counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LeaseNumbers {
    /// All leases, this node's included.
    pub held: usize,
    /// Those that this node does not send to.
    pub left_out: usize,
    /// What keeps this node from holding one safely.
    pub obstacles: usize,
    /// Whether the store is followed.
    pub connected: bool,
    /// Keys and values that cannot be read.
    pub unreadable: usize,
    /// When this node's lease ends.
    pub expires: Option<Timestamp>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StoreLabel {
    store: &'static str,
}

/// The metrics.
#[derive(Debug, Default)]
pub struct LeaseMetrics {
    held: Gauge,
    left_out: Gauge,
    obstacles: Gauge,
    connected: Gauge,
    unreadable: Gauge,
    /// A family, because there need not be any.
    expires: Family<StoreLabel, Gauge<f64, AtomicU64>>,
}

// === impl LeaseMetrics ===

impl LeaseMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        let gauges = [
            ("towline_leases", "All leases", &self.held),
            (
                "towline_leases_left_out",
                "Leases whose nodes this one does not send to",
                &self.left_out,
            ),
            (
                "towline_lease_obstacles",
                "What keeps this node from holding a lease safely",
                &self.obstacles,
            ),
            (
                "towline_lease_store_connected",
                "Whether the store of leases is followed",
                &self.connected,
            ),
            (
                "towline_lease_unreadable_keys",
                "Keys and values among the leases that cannot be read",
                &self.unreadable,
            ),
        ];
        for (name, help, gauge) in gauges {
            r.register(name, help, gauge.clone());
        }
        let help = "When this node's lease ends, should the store not be reached any more";
        let name = "towline_lease_expiry_timestamp_seconds";
        r.register(name, help, self.expires.clone());
    }

    /// Shows `numbers`.
    pub fn set(&self, numbers: &LeaseNumbers) {
        let count = |gauge: &Gauge, count: usize| {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        count(&self.held, numbers.held);
        count(&self.left_out, numbers.left_out);
        count(&self.obstacles, numbers.obstacles);
        count(&self.connected, usize::from(numbers.connected));
        count(&self.unreadable, numbers.unreadable);
        match numbers.expires {
            Some(expires) => {
                let seconds = expires.as_second() as f64;
                let label = StoreLabel { store: "etcd" };
                self.expires.get_or_create(&label).set(seconds);
            }
            None => self.expires.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    use super::*;

    #[test]
    fn an_end_is_shown_only_where_there_is_one() {
        let metrics = Metrics::default();
        let has = |line: &str| metrics.text().unwrap().lines().any(|have| have == line);
        let mut numbers = LeaseNumbers {
            held: 3,
            connected: true,
            expires: Timestamp::from_second(7).ok(),
            ..LeaseNumbers::default()
        };
        metrics.leases.set(&numbers);
        assert!(has("towline_leases 3"));
        assert!(has("towline_lease_store_connected 1"));
        assert!(has(
            "towline_lease_expiry_timestamp_seconds{store=\"etcd\"} 7.0"
        ));
        numbers.expires = None;
        metrics.leases.set(&numbers);
        assert!(
            !metrics
                .text()
                .unwrap()
                .contains("expiry_timestamp_seconds{")
        );
    }
}
