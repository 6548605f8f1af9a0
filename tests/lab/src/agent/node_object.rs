//! The Node object and its Lease: registered at the start, kept fresh after that.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Context;

const LEASE_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How often readiness is looked at; it is written only when it changes, or every five minutes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const REPORT_EVERY: Duration = Duration::from_secs(300);

/// Creates the Node object if it is not there, and writes its first status.
///
/// # Errors
/// When the API server refuses.
pub(super) async fn register(context: &Context) -> Result<()> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let labels = [
        ("kubernetes.io/hostname", context.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let node = Node {
        metadata: ObjectMeta {
            name: Some(context.node_name.clone()),
            labels: Some(BTreeMap::from(labels)),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error).context("register the node"),
    }
    Ok(())
}

/// Keeps status and Lease fresh for ever.
///
/// # Errors
/// Never: what fails is logged and tried again.
pub(super) async fn keep(context: &Context) -> Result<()> {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: Option<NodeStatus> = None;
    let (mut reported, mut renewed) = (None::<Instant>, None::<Instant>);
    loop {
        look.tick().await;
        let old = |since: Option<Instant>, limit| since.is_none_or(|at| at.elapsed() >= limit);
        if old(renewed, RENEW_EVERY) {
            match renew(context).await {
                Ok(()) => renewed = Some(Instant::now()),
                Err(error) => tracing::warn!("lease not renewed: {error:#}"),
            }
        }
        let ready = readiness(context).await;
        let status = status(context, &ready, known.as_ref(), Timestamp::now());
        let changed = known.as_ref().map(ready_of) != Some(ready_of(&status));
        if changed || old(reported, REPORT_EVERY) {
            match report(context, &status).await {
                Ok(()) => {
                    known = Some(status);
                    reported = Some(Instant::now());
                }
                Err(error) => tracing::warn!("node status not written: {error:#}"),
            }
        }
    }
}

/// The network is ready when there is a configuration and its plugins say so.
async fn readiness(context: &Context) -> Result<()> {
    context.cni.status(&context.cni.network()?).await
}

fn ready_of(status: &NodeStatus) -> Option<(String, Option<String>)> {
    let conditions = status.conditions.iter().flatten();
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready
        .next()
        .map(|condition| (condition.status.clone(), condition.message.clone()))
}

fn status(
    context: &Context,
    ready: &Result<()>,
    before: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let condition = |kind: &str, is: bool, reason: &str, message: String| {
        let status = if is { "True" } else { "False" };
        let old = before
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let since = old
            .filter(|old| old.type_ == kind && old.status == status)
            .find_map(|old| old.last_transition_time.clone());
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: since.or(Some(Time(now))),
        }
    };
    let ready = match ready {
        Ok(()) => condition(
            "Ready",
            true,
            "KubeletReady",
            "node agent is posting ready status".into(),
        ),
        Err(error) => condition(
            "Ready",
            false,
            "KubeletNotReady",
            format!("container network is not ready: {error:#}"),
        ),
    };
    let enough =
        |kind: &str, reason: &str, text: &str| condition(kind, false, reason, text.to_owned());
    let capacity = capacity();
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", context.node_ip.to_string()),
            address("Hostname", context.node_name.clone()),
        ]),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(vec![
            enough(
                "MemoryPressure",
                "KubeletHasSufficientMemory",
                "memory is sufficient",
            ),
            enough(
                "DiskPressure",
                "KubeletHasNoDiskPressure",
                "disk space is sufficient",
            ),
            enough(
                "PIDPressure",
                "KubeletHasSufficientPID",
                "process ids are sufficient",
            ),
            ready,
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: 10250 }),
        }),
        node_info: Some(system_info()),
        ..NodeStatus::default()
    }
}

fn address(kind: &str, address: String) -> NodeAddress {
    NodeAddress {
        type_: kind.to_owned(),
        address,
    }
}

fn capacity() -> BTreeMap<String, Quantity> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = first_number("/proc/meminfo").unwrap_or(0);
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpus.to_string())),
        ("memory".to_owned(), Quantity(format!("{memory}Ki"))),
        ("pods".to_owned(), Quantity("110".to_owned())),
        ("ephemeral-storage".to_owned(), Quantity("10Gi".to_owned())),
    ])
}

/// The first number of a file; of /proc/meminfo, the total memory in KiB.
fn first_number(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().find_map(|word| word.parse().ok())
}

fn system_info() -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let version = format!("v{}-towline", env!("CARGO_PKG_VERSION"));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        operating_system: "linux".to_owned(),
        os_image: "towline lab".to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        machine_id: read("/etc/machine-id"),
        container_runtime_version: format!("towline://{}", env!("CARGO_PKG_VERSION")),
        kubelet_version: version.clone(),
        kube_proxy_version: version,
        ..NodeSystemInfo::default()
    }
}

/// Go's name of the processor architecture, as Kubernetes uses it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn report(context: &Context, status: &NodeStatus) -> Result<()> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    // Strategic, so that conditions of others (NetworkUnavailable) stay.
    let patch = Patch::Strategic(json!({"status": status}));
    nodes
        .patch_status(&context.node_name, &PatchParams::default(), &patch)
        .await
        .context("write the node's status")?;
    Ok(())
}

async fn renew(context: &Context) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(context.client.clone(), "kube-node-lease");
    let now = MicroTime(Timestamp::now());
    let name = context.node_name.as_str();
    let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
    match leases.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).context("renew the lease"),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    leases
        .create(&PostParams::default(), &lease)
        .await
        .context("create the lease")?;
    Ok(())
}
