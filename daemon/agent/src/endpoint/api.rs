//! Registration over the socket: `PUT`, `DELETE` and `GET` of `/v1/endpoints`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use desired::cluster::{Cluster, EndpointId, LocalEndpoint};
use netstate::IfName;
use serde::Serialize;
use tokio::sync::watch;

use super::in_force::InForce;
use super::registration::Registration;
use super::registry::Registry;
use crate::admin::ApiError;
use crate::metrics::Metrics;
use crate::store::Store;

/// Looks up an interface's kernel index by its name.
type LookUp = Box<dyn Fn(&IfName) -> Option<u32> + Send + Sync>;

/// What registrations act on.
pub struct Endpoints {
    store: Arc<Store>,
    registry: Registry,
    /// `None` when nothing enforces policy on this node.
    in_force: Option<watch::Receiver<InForce>>,
    ifindex_of: LookUp,
    metrics: Arc<Metrics>,
    /// One change at a time, so that file and store agree.
    changing: Mutex<()>,
}

/// Answer to a registration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    policy_revision: u32,
}

/// One endpoint as `GET /v1/endpoints` shows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointView {
    container_id: String,
    ifname: String,
    pod: String,
    #[serde(rename = "podUID")]
    pod_uid: Option<String>,
    host_interface: String,
    host_ifindex: u32,
    netns_cookie: u64,
    addresses: Vec<String>,
    policy_revision: Option<u32>,
    waiting_for: Option<String>,
}

/// The routes of the registration API.
pub fn router(endpoints: Arc<Endpoints>) -> Router {
    Router::new()
        .route("/v1/endpoints", get(list))
        .route(
            "/v1/endpoints/{container_id}/{ifname}",
            put(register).delete(unregister),
        )
        .with_state(endpoints)
}

async fn list(State(endpoints): State<Arc<Endpoints>>) -> Json<Vec<EndpointView>> {
    Json(endpoints.views())
}

async fn register(
    State(endpoints): State<Arc<Endpoints>>,
    Path((container_id, ifname)): Path<(String, String)>,
    body: Result<Json<Registration>, JsonRejection>,
) -> Result<Json<Registered>, ApiError> {
    let Json(registration) = body.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let id = Registration::id(&container_id, &ifname)?;
    let endpoint = registration.endpoint(id, &endpoints.ifindex_of)?;
    let missing = endpoints.store.missing();
    if !missing.is_empty() {
        let kinds: Vec<String> = missing.iter().map(ToString::to_string).collect();
        return Err(ApiError::not_ready(format!(
            "towlined still waits for the first list of: {}",
            kinds.join(", ")
        )));
    }
    endpoints.add(&endpoint, &registration)?;
    let timeout = Duration::from_secs(registration.policy_timeout_seconds);
    let policy_revision = endpoints.enforced(&endpoint, timeout).await?;
    tracing::info!(
        pod = %endpoint.pod,
        interface = %endpoint.host_interface,
        policy_revision,
        "endpoint is in force"
    );
    Ok(Json(Registered { policy_revision }))
}

async fn unregister(
    State(endpoints): State<Arc<Endpoints>>,
    Path((container_id, ifname)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let id = Registration::id(&container_id, &ifname)?;
    endpoints.remove(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

// === impl Endpoints ===

impl Endpoints {
    /// Endpoints kept in `store` and `registry`; `in_force` is what the policy loop says.
    pub fn new(
        store: Arc<Store>,
        registry: Registry,
        in_force: Option<watch::Receiver<InForce>>,
        ifindex_of: impl Fn(&IfName) -> Option<u32> + Send + Sync + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            registry,
            in_force,
            ifindex_of: Box::new(ifindex_of),
            metrics,
            changing: Mutex::new(()),
        }
    }

    /// Takes over what an earlier daemon registered.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn adopt(&self) -> std::io::Result<usize> {
        let known = self.registry.load(&self.ifindex_of)?;
        let count = known.len();
        for endpoint in known.into_values() {
            self.store.put_endpoint(endpoint);
        }
        self.metrics.endpoints(count);
        Ok(count)
    }

    /// Forgets endpoints whose interface is gone, and says which; called by the policy loop.
    pub fn drop_gone(&self, cluster: &Cluster) -> Vec<EndpointId> {
        let mut gone = Vec::new();
        for endpoint in cluster.local_endpoints.values() {
            if (self.ifindex_of)(&endpoint.host_interface) == Some(endpoint.host_ifindex) {
                continue;
            }
            tracing::info!(
                pod = %endpoint.pod,
                interface = %endpoint.host_interface,
                "interface is gone; endpoint is forgotten"
            );
            if let Err(error) = self.forget(endpoint) {
                tracing::warn!(pod = %endpoint.pod, %error, "endpoint's file stays");
            }
            gone.push(endpoint.id.clone());
        }
        gone
    }

    fn add(&self, endpoint: &LocalEndpoint, registration: &Registration) -> Result<(), ApiError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for other in self.store.snapshot().local_endpoints.values() {
            let reused = other.host_interface == endpoint.host_interface
                || other
                    .addresses
                    .iter()
                    .any(|a| endpoint.addresses.contains(a));
            if other.id != endpoint.id && reused {
                tracing::info!(
                    old = %other.pod,
                    new = %endpoint.pod,
                    interface = %endpoint.host_interface,
                    "address or interface is used again; the old endpoint is forgotten"
                );
                self.registry.remove(&other.id)?;
                self.store.delete_endpoint(&other.id);
            }
        }
        self.registry.save(endpoint, registration)?;
        self.store.put_endpoint(endpoint.clone());
        self.count();
        Ok(())
    }

    fn remove(&self, id: &EndpointId) -> Result<(), ApiError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.registry.remove(id)?;
        if self.store.delete_endpoint(id) {
            tracing::info!(container = id.container_id, ifname = %id.ifname, "endpoint is gone");
        }
        self.count();
        Ok(())
    }

    /// Removes exactly `endpoint`: a newer registration under its id stays.
    fn forget(&self, endpoint: &LocalEndpoint) -> std::io::Result<()> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.store.snapshot();
        if snapshot
            .local_endpoints
            .get(&endpoint.id)
            .is_some_and(|now| **now == *endpoint)
        {
            self.registry.remove(&endpoint.id)?;
            self.store.delete_endpoint(&endpoint.id);
            self.count();
        }
        Ok(())
    }

    fn count(&self) {
        self.metrics
            .endpoints(self.store.snapshot().local_endpoints.len());
    }

    /// Waits until the policy of `endpoint` is in force; on time-out the registration is undone.
    async fn enforced(&self, endpoint: &LocalEndpoint, limit: Duration) -> Result<u32, ApiError> {
        let Some(in_force) = &self.in_force else {
            return Ok(0);
        };
        let mut in_force = in_force.clone();
        let ready = in_force.wait_for(|state| state.revision(endpoint).is_some());
        let timed_out = match tokio::time::timeout(limit, ready).await {
            Ok(Ok(state)) => return Ok(state.revision(endpoint).unwrap_or(0)),
            Ok(Err(_)) => return Err(ApiError::not_ready("towlined is stopping".to_owned())),
            Err(elapsed) => elapsed,
        };
        let reason = in_force.borrow().waiting.get(&endpoint.id).map_or_else(
            || "the policy loop has not come to it".to_owned(),
            ToString::to_string,
        );
        tracing::warn!(pod = %endpoint.pod, %reason, "endpoint is refused: {timed_out}");
        self.forget(endpoint)?;
        Err(ApiError::timed_out(format!(
            "policy of pod {} is not in force after {} s: {reason}",
            endpoint.pod,
            limit.as_secs()
        )))
    }

    fn views(&self) -> Vec<EndpointView> {
        let snapshot = self.store.snapshot();
        let in_force = self.in_force.as_ref().map(|state| state.borrow().clone());
        let view = |endpoint: &LocalEndpoint| EndpointView {
            container_id: endpoint.id.container_id.clone(),
            ifname: endpoint.id.ifname.to_string(),
            pod: endpoint.pod.to_string(),
            pod_uid: endpoint.uid.as_ref().map(ToString::to_string),
            host_interface: endpoint.host_interface.to_string(),
            host_ifindex: endpoint.host_ifindex,
            netns_cookie: endpoint.netns_cookie,
            addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
            policy_revision: in_force.as_ref().and_then(|state| state.revision(endpoint)),
            waiting_for: in_force
                .as_ref()
                .and_then(|state| state.waiting.get(&endpoint.id))
                .map(ToString::to_string),
        };
        snapshot
            .local_endpoints
            .values()
            .map(|endpoint| view(endpoint))
            .collect()
    }
}
