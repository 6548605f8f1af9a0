//! Leases as every place has them that must know: the store, the node's file, its condition, its pods.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;

use super::World;
use crate::client::pod_ip;
use crate::etcd::PREFIX;
use crate::layout::NodeId;
use crate::node;
use crate::overlay::LeaseStore;

/// Compares them for every node.
pub(super) async fn check(world: &World) -> Result<String> {
    let pods = Api::<Pod>::all(world.kubernetes.client());
    let pods = pods
        .list(&ListParams::default())
        .await
        .context("list pods")?;
    let mut inside = 0;
    for node in world.cluster.nodes() {
        let subnet = subnet_of(world, *node)?;
        leased(world, *node, subnet)
            .await
            .with_context(|| format!("{}, which has {subnet}", node.name()))?;
        for pod in pods.items.iter().filter(|pod| is_on(pod, *node)) {
            let ip = pod_ip(pod)?;
            ensure!(subnet.contains(ip), "a pod of {} has {ip}", node.name());
            inside += 1;
        }
    }
    ensure!(inside > 0, "there are no pods to look at");
    Ok(format!("{inside} pods"))
}

/// What the CNI plugins are told.
fn subnet_of(world: &World, node: NodeId) -> Result<IpNetwork> {
    let text = node::run_in(world.cluster.layout(), node, || {
        std::fs::read_to_string("/run/towline/subnet.env").context("read subnet.env")
    })?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("FLANNEL_SUBNET="));
    let gateway: IpNetwork = line.context("no FLANNEL_SUBNET")?.parse()?;
    Ok(IpNetwork::new(gateway.network(), gateway.prefix())?)
}

/// The store has the subnet, with the node's address; kubelet and scheduler know the network is there.
async fn leased(world: &World, node: NodeId, subnet: IpNetwork) -> Result<()> {
    let nodes = Api::<Node>::all(world.kubernetes.client());
    let object = nodes.get(&node.name()).await.context("get the Node")?;
    let conditions = object.status.and_then(|status| status.conditions);
    let network = conditions.into_iter().flatten();
    let network = network.filter(|condition| condition.type_ == "NetworkUnavailable");
    let network: Vec<String> = network.map(|condition| condition.status).collect();
    ensure!(network == ["False"], "NetworkUnavailable is {network:?}");
    match world.cluster.state().overlay.leases {
        LeaseStore::Kube => {
            let cidrs = object.spec.and_then(|spec| spec.pod_cidrs);
            ensure!(
                cidrs.as_deref() == Some(&[subnet.to_string()]),
                "spec.podCIDRs is {cidrs:?}"
            );
        }
        LeaseStore::Etcd => {
            let key = format!("{PREFIX}/subnets/{}-{}", subnet.network(), subnet.prefix());
            let value = world
                .cluster
                .etcdctl(&["get", "--print-value-only", &key])?;
            let value: serde_json::Value = serde_json::from_str(&value)
                .with_context(|| format!("etcd's {key} is {value:?}"))?;
            let holder = value["PublicIP"].as_str().map(str::parse::<IpAddr>);
            if holder != Some(Ok(node.address().into())) {
                bail!("etcd's {key} is {value}");
            }
        }
    }
    Ok(())
}

fn is_on(pod: &Pod, node: NodeId) -> bool {
    let spec = pod.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.node_name.as_deref() == Some(&node.name()) && spec.host_network != Some(true)
    })
}
