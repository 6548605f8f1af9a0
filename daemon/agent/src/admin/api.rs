//! The API for people on the Unix socket: what is wanted, what is there, and why; and what takes
//! this node out of the overlay.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use desired::explain::{Destination, Explanation, Place, why};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;

use super::error::ApiError;
use super::events::{EventHub, stream};
use super::lease_views::{self, Known, LeasesView, NodeView, RoutesView};
use super::release::{Release, release};
use super::views::{self, Features, PodView, PolicyView, ServiceView, StatusView};
use crate::config::{Config, LeaseSource};
use crate::datapath::{CounterView, Difference, FlowView, KernelView, MapView, OverlayView};
use crate::health::Health;
use crate::lease::{Ages, Lease, etcd};
use crate::store::Kind;

/// What the API shows.
pub struct Admin {
    /// The configuration in use.
    pub config: Arc<Config>,
    /// Store, loops and readiness.
    pub health: Arc<Health>,
    /// This node's lease.
    pub lease: watch::Receiver<Option<Lease>>,
    /// The kernel's side.
    pub kernel: Arc<dyn KernelView>,
    /// The overlay's tables; `None` where there are none to be looked at.
    pub overlay: Option<OverlayView>,
    /// What takes this node out of the overlay.
    pub release: Release,
    /// When leases came.
    pub ages: Arc<Ages>,
    /// What the data path tells of packets.
    pub events: Arc<EventHub>,
    /// When the daemon started.
    pub started: Timestamp,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WantedFlows {
    #[serde(default)]
    closed: bool,
}

#[derive(Debug, Deserialize)]
struct Question {
    src: String,
    dst: String,
}

// === impl Admin ===

impl Admin {
    fn known(&self) -> Known {
        Known {
            cluster: self.health.store.snapshot(),
            lease: self.lease.borrow().clone(),
            findings: self.health.findings.borrow().clone(),
            ages: self.ages.clone(),
        }
    }
}

/// The routes of the API for people.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/nodes", get(nodes))
        .route("/v1/leases", get(leases))
        .route("/v1/routes", get(routes))
        .route("/v1/services", get(services))
        .route("/v1/pods", get(pods))
        .route("/v1/policies", get(policies))
        .route("/v1/why", get(explain))
        .route("/v1/flows", get(flows))
        .route("/v1/maps", get(maps))
        .route("/v1/counters", get(counters))
        .route("/v1/drift", get(drift))
        .route("/v1/events", get(stream))
        .route("/v1/node/release", post(release))
        .with_state(admin)
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<StatusView> {
    let cluster = admin.health.store.snapshot();
    let lease = admin.lease.borrow().clone();
    let readiness = admin.health.readiness();
    Json(StatusView {
        version: env!("CARGO_PKG_VERSION"),
        node: cluster.this_node.name.to_string(),
        started: admin.started,
        ready: readiness.waiting_for.is_empty(),
        readiness,
        features: Features::of(&admin.config),
        lease: lease.map(|lease| lease_views::own_lease(&cluster, &lease)),
        objects: views::objects(&cluster),
        loops: admin.health.board.loops(),
    })
}

async fn nodes(State(admin): State<Arc<Admin>>) -> Json<Vec<NodeView>> {
    Json(lease_views::nodes(&admin.known()))
}

async fn leases(State(admin): State<Arc<Admin>>) -> Json<LeasesView> {
    let known = admin.known();
    let report = admin.health.leases.borrow().clone();
    let mut view = LeasesView {
        store: "kube",
        connected: admin.health.is_connected(),
        trouble: report.trouble,
        trouble_since: report.since,
        obstacle: report.obstacle,
        own_expires: report.expires,
        expiry_unknown: None,
        unreadable: report.unreadable,
        leases: lease_views::leases(&known),
    };
    match &admin.config.leases {
        LeaseSource::Kube(_) => {
            view.unreadable = lease_views::unreadable(&known);
            if let Some(one) = known.findings.interruption(Kind::Node) {
                view.trouble = Some(one.why.clone());
                view.trouble_since = Some(one.since);
            }
        }
        LeaseSource::Etcd(settings) => {
            view.store = "etcd";
            // Who does not answer is not asked again.
            if view.connected {
                match etcd::expiries(settings).await {
                    Ok(known) => lease_views::expire(&mut view.leases, &known),
                    Err(error) => view.expiry_unknown = Some(format!("{error:#}")),
                }
            }
        }
    }
    Json(view)
}

async fn routes(State(admin): State<Arc<Admin>>) -> Json<RoutesView> {
    let lease = admin.lease.borrow().clone();
    Json(lease_views::routes(
        &admin.health.store.snapshot(),
        lease.as_ref(),
    ))
}

async fn services(
    State(admin): State<Arc<Admin>>,
    Query(named): Query<Named>,
) -> Result<Json<Vec<ServiceView>>, ApiError> {
    let only = parsed(named)?;
    let found = views::services(&admin.health.store.snapshot(), only.as_ref());
    match only {
        Some(name) if found.is_empty() => {
            Err(ApiError::not_found(format!("there is no Service {name}")))
        }
        _ => Ok(Json(found)),
    }
}

async fn pods(
    State(admin): State<Arc<Admin>>,
    Query(named): Query<Named>,
) -> Result<Json<Vec<PodView>>, ApiError> {
    let only = parsed(named)?;
    let found = views::pods(&admin.health.store.snapshot(), only.as_ref());
    match only {
        Some(name) if found.is_empty() => {
            Err(ApiError::not_found(format!("there is no Pod {name}")))
        }
        _ => Ok(Json(found)),
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    named: Named,
) -> Result<Option<T>, ApiError> {
    let parse = |name: String| {
        name.parse()
            .map_err(|error: T::Err| ApiError::bad_request(format!("name: {error}")))
    };
    named.name.map(parse).transpose()
}

async fn policies(State(admin): State<Arc<Admin>>) -> Json<Vec<PolicyView>> {
    Json(views::policies(&admin.health.store.snapshot()))
}

async fn explain(
    State(admin): State<Arc<Admin>>,
    Query(question): Query<Question>,
) -> Result<Json<Explanation>, ApiError> {
    let source: Place = question.src.parse().map_err(|error| bad(&error))?;
    let destination: Destination = question.dst.parse().map_err(|error| bad(&error))?;
    let cluster = admin.health.store.snapshot();
    why(&cluster, &source, &destination)
        .map(Json)
        .map_err(|error| ApiError::not_found(error.to_string()))
}

fn bad(error: &impl ToString) -> ApiError {
    ApiError::bad_request(error.to_string())
}

async fn flows(
    State(admin): State<Arc<Admin>>,
    Query(wanted): Query<WantedFlows>,
) -> Result<Json<Vec<FlowView>>, ApiError> {
    let cluster = admin.health.store.snapshot();
    let Json(mut flows) = read(&admin, move |kernel| kernel.flows(&cluster)).await?;
    flows.retain(|flow| wanted.closed || flow.state != "closed");
    Ok(Json(flows))
}

async fn maps(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<MapView>>, ApiError> {
    read(&admin, |kernel| kernel.maps()).await
}

async fn counters(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<CounterView>>, ApiError> {
    read(&admin, |kernel| kernel.counters()).await
}

async fn drift(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<Difference>>, ApiError> {
    let cluster = admin.health.store.snapshot();
    let shown = admin.clone();
    read(&admin, move |kernel| {
        let overlay = shown.overlay.as_ref();
        let overlay = overlay.map(|overlay| overlay.differences(&cluster));
        let mut all = overlay.transpose()?.unwrap_or_default();
        all.extend(kernel.differences()?);
        Ok(all)
    })
    .await
}

/// Reads from the kernel on a thread that may block.
async fn read<T: Send + 'static>(
    admin: &Arc<Admin>,
    what: impl FnOnce(&dyn KernelView) -> anyhow::Result<T> + Send + 'static,
) -> Result<Json<T>, ApiError> {
    let kernel = admin.kernel.clone();
    match tokio::task::spawn_blocking(move || what(kernel.as_ref())).await {
        Ok(Ok(value)) => Ok(Json(value)),
        Ok(Err(error)) => Err(ApiError::internal(format!("{error:#}"))),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}
