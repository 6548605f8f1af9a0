//! What is asked from the first moment on: health, metrics and the socket answer also while the
//! daemon cannot work yet, because the network configuration is not there or the data path is being
//! loaded. Whoever kept a connection sees the daemon itself from then on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::listeners::Listeners;
use crate::admin::{ApiError, Features, StatusView};
use crate::config::Config;
use crate::endpoint::{Registration, Registry};
use crate::health::{Readiness, metrics_text, status_of};
use crate::metrics::{LeaseNumbers, Metrics};
use crate::server::{serve_socket, serve_tcp};

/// What answers once the daemon works.
pub(super) struct Inside {
    pub(super) socket: Router,
    pub(super) health: Router,
    pub(super) metrics: Router,
}

/// What answers.
pub(super) struct Front {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    pub(super) started: Timestamp,
    waits_for: Mutex<String>,
    inside: OnceLock<Inside>,
}

// === impl Front ===

impl Front {
    pub(super) fn new(config: Arc<Config>, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.leases.set(&LeaseNumbers {
            obstacles: 1,
            ..LeaseNumbers::default()
        });
        Arc::new(Self {
            config,
            metrics,
            started: Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default(),
            waits_for: Mutex::default(),
            inside: OnceLock::new(),
        })
    }

    /// Answers on `listeners` until `stop`.
    pub(super) fn serve(
        self: &Arc<Self>,
        listeners: Listeners,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        let socket = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/endpoints/{container_id}/{ifname}", delete(unregister))
            .fallback(not_yet);
        let socket = self.router(socket, |inside| &inside.socket);
        tasks.spawn(serve_socket(listeners.socket, socket, stop.clone()));
        let health = Router::new()
            .route("/healthz", get(healthz))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz));
        let health = self.router(health, |inside| &inside.health);
        for listener in listeners.health {
            tasks.spawn(serve_tcp(listener, health.clone(), stop.clone()));
        }
        if let Some(listener) = listeners.metrics {
            let metrics = Router::new().route("/metrics", get(metrics));
            let metrics = self.router(metrics, |inside| &inside.metrics);
            tasks.spawn(serve_tcp(listener, metrics, stop.clone()));
        }
    }

    /// `waiting` at first, then what `inside` has.
    fn router(
        self: &Arc<Self>,
        waiting: Router<Arc<Self>>,
        inside: fn(&Inside) -> &Router,
    ) -> Router {
        let waiting = waiting.with_state(self.clone());
        let front = self.clone();
        Router::new().fallback(move |request: Request| async move {
            let open = front.inside.get().map(inside);
            open.cloned().unwrap_or(waiting).oneshot(request).await
        })
    }

    /// What cannot be done without.
    pub(super) fn waits_for(&self, what: &str) {
        let mut waits_for = self
            .waits_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        what.clone_into(&mut waits_for);
    }

    /// From now on the daemon itself answers.
    pub(super) fn open(&self, inside: Inside) {
        let _ = self.inside.set(inside);
    }

    fn readiness(&self) -> Readiness {
        let waits_for = self
            .waits_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Readiness {
            waiting_for: vec![waits_for.clone()],
            notes: Vec::new(),
        }
    }
}

/// Nothing has stopped; but where Services are programmed here, load balancers must wait.
async fn healthz(State(front): State<Arc<Front>>) -> Response {
    let mut readiness = front.readiness();
    if !Features::of(&front.config).services {
        readiness.waiting_for.clear();
    }
    let status = status_of(&readiness.waiting_for);
    front.metrics.healthz(status.as_u16());
    (status, Json(readiness)).into_response()
}

async fn livez(State(front): State<Arc<Front>>) -> Response {
    front.metrics.livez(StatusCode::OK.as_u16());
    Json(Readiness::default()).into_response()
}

async fn readyz(State(front): State<Arc<Front>>) -> Response {
    let readiness = front.readiness();
    (status_of(&readiness.waiting_for), Json(readiness)).into_response()
}

async fn metrics(State(front): State<Arc<Front>>) -> Response {
    metrics_text(&front.metrics)
}

async fn status(State(front): State<Arc<Front>>) -> Json<StatusView> {
    Json(StatusView {
        version: env!("CARGO_PKG_VERSION"),
        node: front.config.node_name.clone(),
        started: front.started,
        ready: false,
        readiness: front.readiness(),
        features: Features::of(&front.config),
        lease: None,
        objects: BTreeMap::new(),
        loops: BTreeMap::new(),
    })
}

/// A pod goes whether or not this daemon can work: the next one must not take over its endpoint.
async fn unregister(
    State(front): State<Arc<Front>>,
    Path((container_id, ifname)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let id = Registration::id(&container_id, &ifname)?;
    Registry::open(&front.config.state_dir)?.remove(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn not_yet(State(front): State<Arc<Front>>) -> ApiError {
    let waiting_for = front.readiness().waiting_for.concat();
    ApiError::not_ready(format!("towlined still waits for {waiting_for}"))
}
