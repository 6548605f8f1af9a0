//! Controllers: what brings the cluster from what it is to what its objects ask for.
//!
//! Each controller is a pure function from the snapshot of all objects to a list of actions; one
//! runtime watches, queues and executes for all of them. Read [`controller`] first, then
//! [`runtime`].

pub(crate) mod action;
mod bootstrap;
mod cache;
pub(crate) mod controller;
mod deployment;
mod endpoint_slice;
pub(crate) mod events;
mod execute;
mod identities;
mod informer;
pub(crate) mod labels;
mod namespace;
mod node_ipam;
pub(crate) mod object;
mod ownership;
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

/// Runs all controllers until `shutdown`.
///
/// # Errors
/// When the API does not serve a kind that the controllers need, or an internal task fails.
pub async fn run(
    client: Client,
    config: ClusterConfig,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pool = Pool {
        cluster: config.cluster_cidr,
        node_prefix: config.node_cidr_mask,
    };
    let controllers: Vec<Box<dyn Controller>> = vec![
        Box::new(bootstrap::Bootstrap::new(config.service_cidr, config.advertise)),
        Box::new(deployment::Deployments),
        Box::new(endpoint_slice::EndpointSlices),
        Box::new(namespace::Namespaces::new(None)),
        Box::new(node_ipam::NodeIpam::new(vec![pool])),
        Box::new(replica_set::ReplicaSets),
    ];
    let resources = informer::kept_types(&client);
    runtime::run(client, controllers, resources, shutdown).await
}
