//! The node agent: the lab's kubelet. It registers the node and runs the pods bound to it as real
//! processes in real namespaces, attached by CNI.

pub mod backoff;
pub mod checkpoint;
pub mod cni;
pub mod container;
pub mod environment;
pub mod image;
mod node_object;
mod pods;
pub mod probe;
pub mod sandbox;
pub mod shim;
mod slot;
pub mod status;
mod worker;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::cgroup::Cgroup;
use checkpoint::PodDir;
use cni::Cni;

/// What the node agent is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Name of the Node object.
    #[arg(long)]
    pub node_name: String,
    /// The node's InternalIP.
    #[arg(long)]
    pub node_ip: IpAddr,
    /// Kubeconfig of the API server.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Folder of the CNI plugins.
    #[arg(long, default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// Folder of the CNI configuration.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Folder of the agent's records.
    #[arg(long, default_value = "/var/lib/node-agent")]
    pub root_dir: PathBuf,
    /// The node's cgroup v2 folder; pods go below it.
    #[arg(long, default_value = "/sys/fs/cgroup")]
    pub cgroup_root: PathBuf,
}

/// What all pods of the node share.
pub struct Context {
    pub(crate) client: Client,
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) cni: Cni,
    pub(crate) agent: PathBuf,
    pub(crate) pods_dir: PathBuf,
    cgroup: Cgroup,
    services: Store<Service>,
}

impl Context {
    pub(crate) fn services(&self) -> Vec<Service> {
        self.services
            .state()
            .iter()
            .map(|service| Service::clone(service))
            .collect()
    }

    pub(crate) fn pod_cgroup(&self, pod: &Pod) -> Result<Cgroup> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        // The same check that keeps folders in place.
        PodDir::new(&self.pods_dir, uid)?;
        Ok(self.cgroup.child("kubepods").child(&format!("pod{uid}")))
    }

    /// Tells an Event about a pod, without waiting; a failure is only logged.
    pub(crate) fn event(&self, pod: &Pod, kind: &str, reason: &str, message: &str) {
        let namespace = pod.namespace().unwrap_or_else(|| "default".to_owned());
        let now = Time(Timestamp::now());
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", pod.name_any())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: pod.object_ref(&()),
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.chars().take(1024).collect()),
            source: Some(EventSource {
                component: Some("node-agent".to_owned()),
                host: Some(self.node_name.clone()),
            }),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        tokio::spawn(async move {
            if let Err(error) = events.create(&PostParams::default(), &event).await {
                tracing::warn!(%error, "event not written");
            }
        });
    }
}

/// Runs the node agent until SIGTERM or SIGINT. Pods go on running without it.
///
/// # Errors
/// When it cannot start, or the node cannot be registered.
pub async fn run(options: Options) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)
        .with_context(|| format!("--kubeconfig {}", options.kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("--kubeconfig {}", options.kubeconfig.display()))?;
    let client = Client::try_from(config).context("make the API client")?;
    let pods_dir = options.root_dir.join("pods");
    std::fs::create_dir_all(&pods_dir).with_context(|| format!("create {}", pods_dir.display()))?;
    let context = Arc::new(Context {
        services: watch_services(client.clone()),
        client,
        node_name: options.node_name,
        node_ip: options.node_ip,
        cni: Cni {
            bin_dir: options.cni_bin_dir,
            conf_dir: options.cni_conf_dir,
        },
        agent: std::env::current_exe().context("find the running executable")?,
        pods_dir,
        cgroup: Cgroup::at(options.cgroup_root),
    });
    node_object::register(&context).await?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    tokio::select! {
        ended = node_object::keep(&context) => ended,
        ended = pods::run(&context) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn watch_services(client: Client) -> Store<Service> {
    let (reader, writer) = reflector::store();
    let stream = watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff();
    let stream = reflector::reflector(writer, stream);
    tokio::spawn(stream.for_each(|event| async move {
        if let Err(error) = event {
            tracing::warn!(%error, "watch of services interrupted");
        }
    }));
    reader
}
