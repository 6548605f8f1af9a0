//! Where a pod's container runs, found from the node agent's records.

use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::agent::checkpoint::{PodDir, read_json};
use crate::agent::shim::{ContainerSpec, PID_FILE, SPEC_FILE};
use crate::cluster::Cluster;
use crate::enter::Place;
use crate::node;
use crate::process::Process;

impl Cluster {
    /// Namespaces and cgroup of a running container of `pod`, by default the first.
    ///
    /// # Errors
    /// When the pod is on no node of this cluster or the container does not run.
    pub fn pod_place(&self, pod: &Pod, container: Option<&str>) -> Result<Place> {
        let spec = pod.spec.as_ref().context("the pod has no spec")?;
        let name = pod.name_any();
        let node = spec
            .node_name
            .as_deref()
            .with_context(|| format!("pod {name} has no node yet"))?;
        let node = self.node(node)?;
        let first = spec
            .containers
            .first()
            .map(|container| container.name.as_str());
        let container = container.or(first).context("the pod has no container")?;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let (process, record) = node::run_in(self.layout(), node, || {
            let dir = PodDir::new(Path::new("/var/lib/node-agent/pods"), uid)?;
            let run = dir.last_run(container)?;
            let run = run.with_context(|| format!("{name}: container {container} has not run"))?;
            let dir = dir.run_dir(container, run)?;
            let process: Option<Process> = read_json(&dir.join(PID_FILE))?;
            let record: Option<ContainerSpec> = read_json(&dir.join(SPEC_FILE))?;
            Ok((process, record))
        })?;
        let process = process.filter(Process::is_running);
        let (Some(process), Some(record)) = (process, record) else {
            bail!("pod {name}: container {container} is not running");
        };
        // The record names the cgroup as the node sees it.
        let inside = record.place.cgroup.context("the container has no cgroup")?;
        let below = inside
            .strip_prefix(node::CGROUP)
            .context("the container's cgroup")?;
        let cgroup = self.node_cgroup(node).path().join(below);
        Ok(Place {
            cgroup: Some(cgroup),
            ..Place::of_process(process.pid)
        })
    }
}
