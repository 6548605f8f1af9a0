//! Drops and verdicts as they happen, with names.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use desired::cluster::Cluster;
use desired::policy::PolicyTables;
use ebpf_shared::event::{EVENT_DROP, Event};
use ebpf_shared::policy::INGRESS;
use ebpf_shared::reason::Reason;
use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::api::Admin;
use crate::metrics::Metrics;

/// How many past events are kept for who asks later.
const KEPT: usize = 256;
/// How many events a slow listener may be behind before it misses some.
const BEHIND: usize = 4096;

/// One event with names.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// When it arrived in user space.
    pub time: Timestamp,
    /// `drop` or `verdict`.
    pub kind: &'static str,
    /// What happened.
    pub reason: String,
    /// `ingress` or `egress`, as the pod sees it.
    pub direction: &'static str,
    /// The pod at whose device it happened.
    pub pod: Option<String>,
    /// That device.
    pub interface: Option<String>,
    /// The protocol's name or number.
    pub protocol: String,
    /// Source address and port.
    pub source: String,
    /// The pod with the source address.
    pub source_name: Option<String>,
    /// Destination address and port.
    pub destination: String,
    /// The pod with the destination address.
    pub destination_name: Option<String>,
    /// The policy rule that decided.
    pub rule: Option<String>,
    /// The policies that select the pod, if policy was asked.
    pub policies: Vec<String>,
    /// Packet length in bytes.
    pub length: u32,
}

/// Where events come together and go out.
pub struct EventHub {
    live: broadcast::Sender<Arc<EventView>>,
    recent: Mutex<VecDeque<Arc<EventView>>>,
    metrics: Arc<Metrics>,
}

/// Turns raw events into named ones, by an index that is rebuilt when the snapshot changes.
pub struct Namer {
    cluster: Arc<Cluster>,
    pods: BTreeMap<IpAddr, String>,
    devices: BTreeMap<u32, (String, String)>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    kind: Option<String>,
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

// === impl EventHub ===

impl EventHub {
    /// A hub without listeners.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            live: broadcast::Sender::new(BEHIND),
            recent: Mutex::new(VecDeque::with_capacity(KEPT)),
            metrics,
        }
    }

    /// Gives `event` to all listeners and keeps it for a while.
    pub fn publish(&self, event: EventView) {
        let event = Arc::new(event);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(event.clone());
        drop(recent);
        // Without listeners there is nobody to tell.
        let _ = self.live.send(event);
    }

    fn recent(&self) -> Vec<Arc<EventView>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().cloned().collect()
    }
}

/// `GET /v1/events?kind=drop&follow=true`: one JSON object per line.
pub(super) async fn stream(
    State(admin): State<Arc<Admin>>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let hub = admin.events.clone();
    let kind = wanted.kind;
    let fits = move |event: &EventView| kind.as_deref().is_none_or(|kind| kind == event.kind);
    let body = if wanted.follow {
        Body::from_stream(lines(live(&hub), fits))
    } else {
        Body::from_stream(lines(stream::iter(hub.recent()), fits))
    };
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn live(hub: &Arc<EventHub>) -> impl Stream<Item = Arc<EventView>> + Send + use<> {
    let metrics = hub.metrics.clone();
    BroadcastStream::new(hub.live.subscribe()).filter_map(move |event| {
        let event = match event {
            Ok(event) => Some(event),
            Err(BroadcastStreamRecvError::Lagged(missed)) => {
                metrics.events_lost(missed);
                None
            }
        };
        std::future::ready(event)
    })
}

fn lines(
    events: impl Stream<Item = Arc<EventView>> + Send,
    fits: impl Fn(&EventView) -> bool + Send,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    events.filter_map(move |event| {
        let line = fits(&event).then(|| {
            let mut line = serde_json::to_vec(event.as_ref()).unwrap_or_default();
            line.push(b'\n');
            Ok(Bytes::from(line))
        });
        std::future::ready(line)
    })
}

// === impl Namer ===

impl Namer {
    /// Names by `cluster`.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Self {
        let owners = cluster.pods_by_address();
        let pods = owners
            .into_iter()
            .map(|(address, pod)| (address, pod.name.to_string()));
        let pods = pods.collect();
        let devices = cluster.local_endpoints.values().map(|one| {
            let names = (one.pod.to_string(), one.host_interface.to_string());
            (one.host_ifindex, names)
        });
        let devices = devices.collect();
        Self {
            cluster,
            pods,
            devices,
        }
    }

    /// Follows `cluster`, if it is another snapshot.
    pub fn refresh(&mut self, cluster: Arc<Cluster>) {
        if !Arc::ptr_eq(&self.cluster, &cluster) {
            *self = Self::new(cluster);
        }
    }

    /// The pod that has `address`.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<String> {
        self.pods.get(&address).cloned()
    }

    /// The pod whose device has kernel index `ifindex`.
    #[must_use]
    pub fn pod_of_device(&self, ifindex: u32) -> Option<String> {
        self.devices.get(&ifindex).map(|(pod, _)| pod.clone())
    }

    /// `event` with names; rules are called as `policy` has them.
    #[must_use]
    pub fn view(&self, event: &Event, policy: &PolicyTables, now: Timestamp) -> EventView {
        let (source, destination) = (
            address(event.family, event.src),
            address(event.family, event.dst),
        );
        let device = self.devices.get(&event.ifindex);
        EventView {
            time: Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now),
            kind: if event.kind == EVENT_DROP {
                "drop"
            } else {
                "verdict"
            },
            reason: Reason::from_code(event.reason).map_or_else(
                || format!("reason {}", event.reason),
                |reason| reason.name().to_owned(),
            ),
            direction: if event.direction == INGRESS {
                "ingress"
            } else {
                "egress"
            },
            pod: device.map(|(pod, _)| pod.clone()),
            interface: device
                .map(|(_, interface)| interface.clone())
                .or_else(|| Some(format!("#{}", event.ifindex))),
            protocol: protocol_name(event.proto),
            source: side(source, event.src_port),
            source_name: source.and_then(|ip| self.pod_at(ip)),
            destination: side(destination, event.dst_port),
            destination_name: destination.and_then(|ip| self.pod_at(ip)),
            rule: policy.rules.get(&event.rule).map(ToString::to_string),
            policies: policy
                .policy_sets
                .get(&event.policy_set)
                .map(|names| names.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            length: event.len,
        }
    }
}

fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    let [a, b, c, d, ..] = bytes;
    match family {
        4 => Some(Ipv4Addr::new(a, b, c, d).into()),
        6 => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// Address and port as text; a port of 0 is left out.
fn side(address: Option<IpAddr>, port: [u8; 2]) -> String {
    match (address, u16::from_be_bytes(port)) {
        (None, _) => "?".to_owned(),
        (Some(address), 0) => address.to_string(),
        (Some(address), port) => SocketAddr::new(address, port).to_string(),
    }
}

/// The usual name of an IP protocol number.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    use ebpf_shared::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
    match number {
        TCP => "TCP".to_owned(),
        UDP => "UDP".to_owned(),
        SCTP => "SCTP".to_owned(),
        ICMP => "ICMP".to_owned(),
        ICMPV6 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}
