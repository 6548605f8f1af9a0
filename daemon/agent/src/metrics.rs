//! Prometheus metrics. Where kube-proxy has a metric of the same meaning, its name is kept.

mod leases;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::leases::{LeaseMetrics, LeaseNumbers};
use netstate::Report;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Name of the loop whose passes are what kube-proxy calls a sync.
pub const SERVICES_LOOP: &str = "services";

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LoopLabel {
    table: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabel {
    kind: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CodeLabel {
    code: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PacketLabel {
    direction: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct MapLabel {
    map: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct InfoLabel {
    version: &'static str,
    node: String,
}

type SecondsGauge = Gauge<f64, AtomicU64>;

/// Every metric of the daemon.
pub struct Metrics {
    registry: Registry,
    passes: Family<LoopLabel, Counter>,
    pass_seconds: Family<LoopLabel, Histogram, fn() -> Histogram>,
    puts: Family<LoopLabel, Counter>,
    deletes: Family<LoopLabel, Counter>,
    errors: Family<LoopLabel, Counter>,
    drift: Family<LoopLabel, Counter>,
    sync_seconds: Histogram,
    sync_last: SecondsGauge,
    objects: Family<KindLabel, Gauge>,
    rejected: Family<KindLabel, Counter>,
    watch_errors: Family<KindLabel, Counter>,
    endpoints: Gauge,
    ready: Gauge,
    healthz: Family<CodeLabel, Counter>,
    livez: Family<CodeLabel, Counter>,
    packets: Family<PacketLabel, Counter<u64, AtomicU64>>,
    bytes: Family<PacketLabel, Counter<u64, AtomicU64>>,
    map_entries: Family<MapLabel, Gauge>,
    map_capacity: Family<MapLabel, Gauge>,
    events_lost: Counter,
    info: Family<InfoLabel, Gauge>,
    /// Leases.
    pub leases: LeaseMetrics,
}

// === impl Metrics ===

fn seconds_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut new = Self {
            registry: Registry::default(),
            passes: Family::default(),
            pass_seconds: Family::new_with_constructor(seconds_histogram),
            puts: Family::default(),
            deletes: Family::default(),
            errors: Family::default(),
            drift: Family::default(),
            sync_seconds: seconds_histogram(),
            sync_last: Gauge::default(),
            objects: Family::default(),
            rejected: Family::default(),
            watch_errors: Family::default(),
            endpoints: Gauge::default(),
            ready: Gauge::default(),
            healthz: Family::default(),
            livez: Family::default(),
            packets: Family::default(),
            bytes: Family::default(),
            map_entries: Family::default(),
            map_capacity: Family::default(),
            events_lost: Counter::default(),
            info: Family::default(),
            leases: LeaseMetrics::default(),
        };
        new.register_loops();
        new.register_rest();
        new.leases.register(&mut new.registry);
        new
    }
}

impl Metrics {
    fn register_loops(&mut self) {
        let r = &mut self.registry;
        let clone = self.passes.clone();
        r.register("towline_reconcile_passes", "Passes of each loop", clone);
        let clone = self.pass_seconds.clone();
        r.register(
            "towline_reconcile_duration_seconds",
            "Time of each loop's passes",
            clone,
        );
        let clone = self.puts.clone();
        r.register(
            "towline_reconcile_puts",
            "Entries written by each loop",
            clone,
        );
        let clone = self.deletes.clone();
        r.register(
            "towline_reconcile_deletes",
            "Entries removed by each loop",
            clone,
        );
        let clone = self.errors.clone();
        r.register(
            "towline_reconcile_errors",
            "Entries that a loop could not apply",
            clone,
        );
        let clone = self.drift.clone();
        let help = "Entries that somebody else had changed and that were put right";
        r.register("towline_drift_repaired", help, clone);
        let clone = self.sync_seconds.clone();
        let help = "Time of each pass over the Services' tables";
        r.register("kubeproxy_sync_proxy_rules_duration_seconds", help, clone);
        let clone = self.sync_last.clone();
        let help = "When the Services' tables were last in order";
        r.register(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            help,
            clone,
        );
    }

    fn register_rest(&mut self) {
        let r = &mut self.registry;
        let clone = self.objects.clone();
        r.register("towline_objects", "Objects in the snapshot", clone);
        let clone = self.rejected.clone();
        let help = "Objects from the API that could not be understood";
        r.register("towline_objects_rejected", help, clone);
        let clone = self.watch_errors.clone();
        r.register("towline_watch_errors", "Failures to list or watch", clone);
        let clone = self.endpoints.clone();
        r.register(
            "towline_endpoints",
            "Pod interfaces registered on this node",
            clone,
        );
        let clone = self.healthz.clone();
        r.register("kubeproxy_proxy_healthz", "Answers of /healthz", clone);
        let clone = self.livez.clone();
        r.register("kubeproxy_proxy_livez", "Answers of /livez", clone);
        let clone = self.packets.clone();
        r.register(
            "towline_packets",
            "What the data path did to packets",
            clone,
        );
        let clone = self.bytes.clone();
        r.register(
            "towline_packet_bytes",
            "Their bytes, link-layer header included",
            clone,
        );
        let clone = self.map_entries.clone();
        r.register("towline_map_entries", "Entries of each eBPF map", clone);
        let clone = self.map_capacity.clone();
        r.register(
            "towline_map_capacity",
            "Most entries of each eBPF map",
            clone,
        );
        let clone = self.events_lost.clone();
        r.register(
            "towline_events_lost",
            "Events no listener was fast enough for",
            clone,
        );
        let clone = self.ready.clone();
        r.register(
            "towline_ready",
            "Whether this node carries pods, as /readyz says",
            clone,
        );
        let clone = self.info.clone();
        r.register("towline_build_info", "Version and node", clone);
    }

    /// Says which node and version these are of.
    pub fn identify(&self, node: &str) {
        let label = InfoLabel {
            version: env!("CARGO_PKG_VERSION"),
            node: node.to_owned(),
        };
        self.info.get_or_create(&label).set(1);
    }

    /// Counts a pass of the loop `table`.
    pub fn pass(&self, table: &'static str, took: Duration, report: &Report) {
        let label = LoopLabel { table };
        self.passes.get_or_create(&label).inc();
        self.pass_seconds
            .get_or_create(&label)
            .observe(took.as_secs_f64());
        self.puts.get_or_create(&label).inc_by(report.puts as u64);
        self.deletes
            .get_or_create(&label)
            .inc_by(report.deletes as u64);
        self.errors
            .get_or_create(&label)
            .inc_by(report.errors.len() as u64);
        if table == SERVICES_LOOP {
            self.sync_seconds.observe(took.as_secs_f64());
            if report.errors.is_empty() {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                self.sync_last.set(now.map_or(0.0, |now| now.as_secs_f64()));
            }
        }
    }

    /// Counts `entries` of `table` that were put right.
    pub fn drift(&self, table: &'static str, entries: usize) {
        self.drift
            .get_or_create(&LoopLabel { table })
            .inc_by(entries as u64);
    }

    /// How many objects of `kind` the snapshot has.
    pub fn objects(&self, kind: impl fmt::Display, count: usize) {
        let label = KindLabel {
            kind: kind.to_string(),
        };
        self.objects.get_or_create(&label).set(count as i64);
    }

    /// Counts an object of `kind` that could not be understood.
    pub fn rejected(&self, kind: impl fmt::Display) {
        self.rejected
            .get_or_create(&KindLabel {
                kind: kind.to_string(),
            })
            .inc();
    }

    /// Counts a failure to list or watch `kind`.
    pub fn watch_error(&self, kind: impl fmt::Display) {
        self.watch_errors
            .get_or_create(&KindLabel {
                kind: kind.to_string(),
            })
            .inc();
    }

    /// How many pod interfaces are registered.
    pub fn endpoints(&self, count: usize) {
        self.endpoints.set(count as i64);
    }

    /// Whether this node carries pods.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Counts an answer of /healthz.
    pub fn healthz(&self, code: u16) {
        self.healthz.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts an answer of /livez.
    pub fn livez(&self, code: u16) {
        self.livez.get_or_create(&CodeLabel { code }).inc();
    }

    /// The data path's own count of packets for one reason and direction.
    pub fn packets(&self, direction: &'static str, reason: &'static str, packets: u64, bytes: u64) {
        let label = PacketLabel { direction, reason };
        let counter = self.packets.get_or_create(&label);
        counter.inner().store(packets, Ordering::Relaxed);
        drop(counter);
        let counter = self.bytes.get_or_create(&label);
        counter.inner().store(bytes, Ordering::Relaxed);
    }

    /// How full a map is.
    pub fn map(&self, map: &str, entries: Option<u64>, capacity: u64) {
        let label = MapLabel {
            map: map.to_owned(),
        };
        if let Some(entries) = entries {
            self.map_entries
                .get_or_create(&label)
                .set(entries.cast_signed());
        }
        self.map_capacity
            .get_or_create(&label)
            .set(capacity.cast_signed());
    }

    /// Counts events that a listener missed.
    pub fn events_lost(&self, count: u64) {
        self.events_lost.inc_by(count);
    }

    /// The metrics as OpenMetrics text.
    ///
    /// # Errors
    /// When a value cannot be written as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_proxys_names_are_there() {
        let metrics = Metrics::default();
        let report = Report {
            drift: 0,
            puts: 2,
            deletes: 1,
            errors: Vec::new(),
        };
        metrics.pass(SERVICES_LOOP, Duration::from_millis(3), &report);
        metrics.healthz(200);
        metrics.drift("routes", 4);
        metrics.packets("ingress", "policy-denied", 7, 700);
        let text = metrics.text().unwrap();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count 1",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
            "towline_drift_repaired_total{table=\"routes\"} 4",
            "towline_reconcile_puts_total{table=\"services\"} 2",
            "towline_packets_total{direction=\"ingress\",reason=\"policy-denied\"} 7",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(text.contains("kubeproxy_sync_proxy_rules_last_timestamp_seconds "));
    }
}
