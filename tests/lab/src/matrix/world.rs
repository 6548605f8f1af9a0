//! The cluster that checks run on: places and addresses by name.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod as PodObject;
use tokio::process::Command;

use super::{From, Pod, To};
use crate::client::{Kubernetes, pod_ip};
use crate::cluster::Cluster;
use crate::enter::Place;
use crate::layout::NodeId;
use crate::wire::OUTSIDE_ADDRESS;

/// A running cluster and a client of it.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// Its API.
    pub kubernetes: Kubernetes,
}

/// Longest a pod may take to become ready.
pub(super) const POD_LIMIT: Duration = Duration::from_secs(60);

impl World {
    /// Starts the server on the outside host, unless it runs already.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_outside(&mut self) -> Result<()> {
        let running = self
            .cluster
            .process("outside", "netexec")
            .is_ok_and(|p| p.is_running());
        if running {
            return Ok(());
        }
        let agent = self.cluster.agent();
        let argv = [agent.as_os_str(), "applet".as_ref(), "netexec".as_ref()];
        self.cluster
            .start("outside", "netexec", &self.cluster.outside_place(), &argv)?;
        Ok(())
    }

    /// A command that runs an applet at `from`.
    pub(super) async fn applet(&self, from: From, args: &[String]) -> Result<Command> {
        let place = match from {
            From::Node(node) => self.cluster.node_place(NodeId(node)),
            From::Pod(pod) => {
                let object = self.kubernetes.pod(pod.0, pod.1).await?;
                self.pod_place(&object)?
            }
        };
        let place = Place {
            die_with_parent: true,
            pid: None,
            ..place
        };
        let mut command = Command::from(self.cluster.command(&place)?);
        command
            .arg(format!("{}/node-agent", crate::node::BIN_DIR))
            .arg("applet")
            .args(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.kill_on_drop(true);
        Ok(command)
    }

    /// Where a pod's first container runs.
    pub(super) fn pod_place(&self, pod: &PodObject) -> Result<Place> {
        self.cluster.pod_place(pod, None)
    }

    /// The address that attempts from `from` come from.
    pub(super) async fn address_of(&self, from: From) -> Result<IpAddr> {
        match from {
            From::Node(node) => Ok(IpAddr::V4(NodeId(node).address())),
            From::Pod(pod) => self.pod_address(pod).await,
        }
    }

    /// The node that attempts from `from` come from.
    pub(super) async fn node_of(&self, from: From) -> Result<NodeId> {
        match from {
            From::Node(node) => Ok(NodeId(node)),
            From::Pod(pod) => {
                let object = self.kubernetes.pod(pod.0, pod.1).await?;
                let name = object.spec.and_then(|spec| spec.node_name);
                self.cluster
                    .node(&name.with_context(|| format!("pod {pod:?} has no node"))?)
            }
        }
    }

    /// The address and port of a target.
    pub(super) async fn target(&self, to: To) -> Result<SocketAddr> {
        Ok(match to {
            To::Pod(pod, port) => SocketAddr::new(self.pod_address(pod).await?, port),
            To::Service(namespace, name, port) => {
                SocketAddr::new(self.kubernetes.cluster_ip(namespace, name).await?, port)
            }
            To::Outside(port) => SocketAddr::new(OUTSIDE_ADDRESS.parse()?, port),
        })
    }

    /// A pod's address.
    pub(super) async fn pod_address(&self, pod: Pod) -> Result<IpAddr> {
        pod_ip(&self.kubernetes.pod(pod.0, pod.1).await?)
    }
}
