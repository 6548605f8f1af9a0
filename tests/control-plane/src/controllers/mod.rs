//! Controllers: what brings the cluster from what it is to what its objects ask for.
//!
//! Each controller is a pure function from the snapshot of all objects to a list of actions; one
//! runtime watches, queues and executes for all of them. Read `controller` first, then
//! `runtime`.

pub(crate) mod action;
mod bootstrap;
mod cache;
pub(crate) mod controller;
mod deployment;
mod endpoint_slice;
mod endpoints;
pub(crate) mod events;
mod execute;
mod garbage_collector;
mod identities;
mod informer;
pub(crate) mod labels;
mod namespace;
mod node_ipam;
mod node_lifecycle;
pub(crate) mod object;
mod ownership;
mod pod_gc;
pub(crate) mod pod_state;
mod pod_template;
mod replica_set;
pub(crate) mod runtime;
pub(crate) mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
mod workqueue;

use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::config::ClusterConfig;
use controller::Controller;
use node_ipam::Pool;

/// Runs all controllers until `shutdown`. `root_certificate` (PEM) is what namespaces publish as
/// `kube-root-ca.crt`.
///
/// # Errors
/// When the API does not serve a kind that the controllers need, or an internal task fails.
pub async fn run(
    client: Client,
    config: ClusterConfig,
    root_certificate: Option<String>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pool = Pool {
        cluster: config.cluster_cidr,
        node_prefix: config.node_cidr_mask,
    };
    let resources = informer::kept_types(&client);
    let controllers: Vec<Box<dyn Controller>> = vec![
        Box::new(bootstrap::Bootstrap::new(
            config.service_cidr,
            config.advertise,
        )),
        Box::new(deployment::Deployments),
        Box::new(endpoint_slice::EndpointSlices),
        Box::new(endpoints::LegacyEndpoints),
        Box::new(garbage_collector::GarbageCollector::new(resources.clone())),
        Box::new(namespace::Namespaces::new(root_certificate)),
        Box::new(node_ipam::NodeIpam::new(vec![pool])),
        Box::new(node_lifecycle::NodeLifecycle),
        Box::new(pod_gc::PodGc),
        Box::new(replica_set::ReplicaSets),
    ];
    runtime::run(client, controllers, resources, shutdown).await
}
