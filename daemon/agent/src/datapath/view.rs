//! What can be read from the kernel, as plain values.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use desired::cluster::Cluster;
use netstate::{Target, diff};
use serde::Serialize;

use crate::metrics::Metrics;

/// The kernel's side of the API. Blocking.
pub trait KernelView: Send + Sync {
    /// Flows that the data path tracks.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn flows(&self, cluster: &Cluster) -> anyhow::Result<Vec<FlowView>>;

    /// eBPF maps and how full they are.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn maps(&self) -> anyhow::Result<Vec<MapView>>;

    /// What the data path did to packets.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn counters(&self) -> anyhow::Result<Vec<CounterView>>;

    /// Brings `metrics` of packets and maps up to date; what cannot be read stays as it was.
    fn refresh(&self, metrics: &Metrics) {
        for counter in self.counters().unwrap_or_default() {
            metrics.packets(
                counter.direction,
                counter.reason,
                counter.packets,
                counter.bytes,
            );
        }
        for map in self.maps().unwrap_or_default() {
            metrics.map(&map.name, map.entries, map.capacity);
        }
    }

    /// Entries of the data path's maps in which the kernel differs from what is wanted, by a look
    /// at the kernel now.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn differences(&self) -> anyhow::Result<Vec<Difference>>;
}

/// One tracked flow, seen from the pod of this node that it belongs to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowView {
    /// The pod, `namespace/name`, if its device is known.
    pub pod: Option<String>,
    /// `in` if the remote side opened it, else `out`.
    pub direction: &'static str,
    /// The protocol's name or number.
    pub protocol: String,
    /// The pod's address and port.
    pub pod_side: String,
    /// The other side's address and port.
    pub remote_side: String,
    /// The other side's pod, if it is one.
    pub remote_name: Option<String>,
    /// The frontend that was dialled, for flows through a Service.
    pub via: Option<String>,
    /// `new`, `established` or `closed`.
    pub state: &'static str,
    /// The policy rule that allowed it.
    pub rule: Option<String>,
    /// Seconds since its last packet.
    pub idle_seconds: u64,
}

/// One eBPF map.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapView {
    /// Its name.
    pub name: String,
    /// The kernel's kind of map.
    pub kind: String,
    /// How many entries it has, where they can be counted.
    pub entries: Option<u64>,
    /// How many it can have.
    pub capacity: u64,
}

/// Packets of one reason and direction.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterView {
    /// `ingress` (to pods) or `egress` (from pods).
    pub direction: &'static str,
    /// What happened to them.
    pub reason: &'static str,
    /// Whether that means they were dropped.
    pub drop: bool,
    /// How many.
    pub packets: u64,
    /// Their bytes, link-layer header included.
    pub bytes: u64,
}

/// One entry in which the kernel differs from what is wanted.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// `missing`, `differs` or `unwanted`.
    pub problem: &'static str,
    /// The entry's key.
    pub key: String,
}

/// Where `target` differs from `wanted`, without changing anything.
///
/// # Errors
/// When the target cannot be observed.
pub fn differences<T>(
    table: &'static str,
    target: &mut T,
    wanted: &BTreeMap<T::Key, T::Value>,
) -> anyhow::Result<Vec<Difference>>
where
    T: Target<Key: Debug, Error: Display>,
{
    let actual = target
        .observe()
        .map_err(|error| anyhow::anyhow!("{table}: {error}"))?;
    let change = diff(wanted, &actual);
    let named = |problem, key: &T::Key| Difference {
        table,
        problem,
        key: format!("{key:?}"),
    };
    let puts = change.puts.keys().map(|key| {
        let problem = if actual.contains_key(key) {
            "differs"
        } else {
            "missing"
        };
        named(problem, key)
    });
    let deletes = change.deletes.iter().map(|key| named("unwanted", key));
    Ok(puts.chain(deletes).collect())
}
