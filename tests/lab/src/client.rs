//! The Kubernetes client of the lab: objects as YAML or JSON in, conditions waited for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;

use crate::wait::eventually;

/// A client of a cluster.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

const CLUSTER_SCOPED: &[&str] = &["Namespace", "Node"];

impl Kubernetes {
    /// Connects by a kubeconfig file.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let config = Kubeconfig::read_from(kubeconfig)
            .with_context(|| format!("read {}", kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .context("use the kubeconfig")?;
        Ok(Self {
            client: Client::try_from(config).context("make the API client")?,
        })
    }

    /// The client itself.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Creates the objects of a YAML text, or merges them into those that exist.
    ///
    /// # Errors
    /// When the text is no list of objects, or the API server refuses one; names it.
    pub async fn apply_yaml(&self, text: &str) -> Result<()> {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let value = Value::deserialize(document).context("read the manifest")?;
            if !value.is_null() {
                self.apply(value).await?;
            }
        }
        Ok(())
    }

    /// Creates an object, or merges it into the one that exists.
    ///
    /// # Errors
    /// When the API server refuses; names the object.
    pub async fn apply(&self, object: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(object).context("not an API object")?;
        let types = object
            .types
            .clone()
            .context("the object has no apiVersion and kind")?;
        let name = object.name_any();
        let api = self.dynamic(
            &types.api_version,
            &types.kind,
            object.namespace().as_deref(),
        )?;
        let what = || format!("{} {name}", types.kind);
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let patch = Patch::Merge(&object);
                api.patch(&name, &PatchParams::default(), &patch)
                    .await
                    .with_context(what)?;
                Ok(())
            }
            Err(error) => Err(error).with_context(what),
        }
    }

    /// Deletes an object; an absent one is fine.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<()> {
        let api = self.dynamic(api_version, kind, Some(namespace))?;
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("delete {kind} {namespace}/{name}")),
        }
    }

    /// A pod.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        self.pods(namespace)
            .get(name)
            .await
            .with_context(|| format!("pod {namespace}/{name}"))
    }

    /// The pods API of a namespace.
    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits until a pod is Ready; gives it.
    ///
    /// # Errors
    /// When it is not ready within `limit`; says what its containers wait for.
    pub async fn wait_ready(&self, namespace: &str, name: &str, limit: Duration) -> Result<Pod> {
        let pods = self.pods(namespace);
        eventually(
            &format!("pod {namespace}/{name} is ready"),
            limit,
            || async {
                let Some(pod) = pods.get_opt(name).await.context("get the pod")? else {
                    return Ok(Err("it does not exist".to_owned()));
                };
                Ok(if is_ready(&pod) {
                    Ok(pod)
                } else {
                    Err(why_not_ready(&pod))
                })
            },
        )
        .await
    }

    /// Waits until a pod is gone.
    ///
    /// # Errors
    /// When it still exists after `limit`.
    pub async fn wait_gone(&self, namespace: &str, name: &str, limit: Duration) -> Result<()> {
        let pods = self.pods(namespace);
        eventually(
            &format!("pod {namespace}/{name} is gone"),
            limit,
            || async {
                let pod = pods.get_opt(name).await.context("get the pod")?;
                Ok(if pod.is_some() {
                    Err("it still exists".to_owned())
                } else {
                    Ok(())
                })
            },
        )
        .await
    }

    /// Waits until `count` nodes are Ready.
    ///
    /// # Errors
    /// When they are not within `limit`; says why.
    pub async fn wait_nodes(&self, count: usize, limit: Duration) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        eventually(&format!("{count} nodes are ready"), limit, || async {
            let list = nodes
                .list(&ListParams::default())
                .await
                .context("list the nodes")?;
            let waiting = list
                .items
                .iter()
                .filter_map(node_not_ready)
                .collect::<Vec<_>>();
            Ok(if list.items.len() >= count && waiting.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "{} registered; {}",
                    list.items.len(),
                    waiting.join("; ")
                ))
            })
        })
        .await
    }

    /// Waits until a Service has `count` ready endpoints.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub async fn wait_endpoints(
        &self,
        namespace: &str,
        service: &str,
        count: usize,
        limit: Duration,
    ) -> Result<()> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        eventually(
            &format!("service {namespace}/{service} has {count} endpoints"),
            limit,
            || async {
                let list = slices
                    .list(&params)
                    .await
                    .context("list the endpoint slices")?;
                let endpoints = list.items.iter().flat_map(|slice| &slice.endpoints);
                let ready = endpoints
                    .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true))
                    .count();
                Ok(if ready == count {
                    Ok(())
                } else {
                    Err(format!("{ready} are ready"))
                })
            },
        )
        .await
    }

    /// The first ClusterIP of a Service.
    ///
    /// # Errors
    /// When the Service does not exist or has none.
    pub async fn cluster_ip(&self, namespace: &str, name: &str) -> Result<std::net::IpAddr> {
        let services: Api<k8s_openapi::api::core::v1::Service> =
            Api::namespaced(self.client.clone(), namespace);
        let service = services
            .get(name)
            .await
            .with_context(|| format!("service {namespace}/{name}"))?;
        let ip = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .unwrap_or_default();
        ip.parse()
            .with_context(|| format!("service {namespace}/{name}: clusterIP {ip:?}"))
    }

    fn dynamic(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Api<DynamicObject>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if version.is_empty() || kind.is_empty() {
            bail!("apiVersion {api_version:?}, kind {kind:?}: must both be given");
        }
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Ok(if CLUSTER_SCOPED.contains(&kind) {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(
                self.client.clone(),
                namespace.unwrap_or("default"),
                &resource,
            )
        })
    }
}

/// The pod's first address.
///
/// # Errors
/// When it has none yet.
pub fn pod_ip(pod: &Pod) -> Result<std::net::IpAddr> {
    let ip = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref());
    let ip = ip.ok_or_else(|| anyhow!("pod {} has no address yet", pod.name_any()))?;
    ip.parse().with_context(|| format!("status.podIP {ip:?}"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    pod.metadata.deletion_timestamp.is_none() && ready.any(|ready| ready.status == "True")
}

fn why_not_ready(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "it has no status".to_owned();
    };
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            Some(format!(
                "{}: {:?} {:?}",
                container.name, waiting.reason, waiting.message
            ))
        });
    let conditions = status
        .conditions
        .iter()
        .flatten()
        .filter(|c| c.status != "True");
    let conditions = conditions.map(|c| {
        format!(
            "{} is {} {}",
            c.type_,
            c.status,
            c.message.as_deref().unwrap_or_default()
        )
    });
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or("no node");
    let reasons = waiting.chain(conditions).collect::<Vec<_>>().join("; ");
    format!("phase {:?} on {node}; {reasons}", status.phase)
}

fn node_not_ready(node: &Node) -> Option<String> {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|c| c.type_ == "Ready");
    match ready.next() {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(format!(
            "{}: {}",
            node.name_any(),
            ready.message.as_deref().unwrap_or("not ready")
        )),
        None => Some(format!("{}: no Ready condition", node.name_any())),
    }
}
