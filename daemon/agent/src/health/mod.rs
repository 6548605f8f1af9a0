//! Health and metrics over HTTP.
//!
//! `/livez` is what a supervisor asks: no loop has stopped (a pass within twice the resync).
//! `/healthz` is what load balancers ask: beside that, where Services are programmed here, every
//! loop has had its first pass. `/readyz` says whether this node can carry pods: its lease is held
//! safely and known to the others, the subnet file is written, every loop's last pass was without
//! errors.

mod readiness;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use desired::cluster::Leases;
use desired::routes::routes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use self::readiness::Facts;
pub use self::readiness::Readiness;
use crate::board::Board;
use crate::findings::Findings;
use crate::lease::{Lease, StoreReport, Tenure};
use crate::metrics::{LeaseNumbers, Metrics};
use crate::store::{Kind, Store};

/// What health is judged by.
pub struct Health {
    /// The snapshot: complete or not.
    pub store: Arc<Store>,
    /// What the loops did last.
    pub board: Arc<Board>,
    /// Set once the overlay is up and the subnet file is written.
    pub lease: watch::Receiver<Option<Lease>>,
    /// What the store of leases says.
    pub leases: watch::Receiver<StoreReport>,
    /// What is wrong with what the API server tells.
    pub findings: watch::Receiver<Findings>,
    /// Whether this node is to have a lease.
    pub tenure: watch::Receiver<Tenure>,
    /// Whether load balancers ask here for Services.
    pub services: bool,
    /// Counts the answers.
    pub metrics: Arc<Metrics>,
    /// Time between two observations.
    pub resync: Duration,
    /// Brings the metrics of the data path up to date before they are shown.
    pub refresh: Box<dyn Fn() + Send + Sync>,
}

/// What is not as it should be; empty when nothing is.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacles {
    /// Each with what it waits for.
    pub waiting_for: Vec<String>,
}

// === impl Health ===

impl Health {
    /// Loops that have stopped: whoever judges by this should restart the daemon.
    #[must_use]
    pub fn stalled(&self) -> Obstacles {
        // A pass may take its time on a loaded machine; a loop that ended never comes back.
        let limit = (self.resync * 2).max(Duration::from_secs(20));
        let stalled = self.board.stalled(limit);
        let stalled = stalled
            .iter()
            .map(|name| format!("the {name} loop has stopped"));
        Obstacles {
            waiting_for: stalled.collect(),
        }
    }

    /// Whether this node carries pods, and what else is to be known.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.judged(|facts| Readiness {
            waiting_for: facts.waiting_for(),
            notes: facts.notes(),
        })
    }

    /// The same without what is said of other nodes: cheap enough for every change.
    #[must_use]
    pub fn own_readiness(&self) -> Readiness {
        self.judged(|facts| Readiness {
            waiting_for: facts.waiting_for(),
            notes: facts.store_notes(),
        })
    }

    fn judged<T>(&self, judge: impl FnOnce(&Facts<'_>) -> T) -> T {
        let cluster = self.store.snapshot();
        let (missing, loops) = (self.store.missing(), self.board.last_passes());
        let (lease, report) = (self.lease.borrow().clone(), self.leases.borrow().clone());
        judge(&Facts {
            cluster: &cluster,
            missing: &missing,
            findings: &self.findings.borrow(),
            tenure: *self.tenure.borrow(),
            lease: lease.as_ref(),
            report: &report,
            loops: &loops,
            now: Timestamp::now(),
        })
    }

    /// Brings the metrics of leases up to date.
    fn count_leases(&self) {
        let cluster = self.store.snapshot();
        let lease = self.lease.borrow().clone();
        let report = self.leases.borrow().clone();
        let left_out = lease.map_or(0, |lease| routes(&cluster, &lease.overlay).problems.len());
        self.metrics.leases.set(&LeaseNumbers {
            held: cluster.leases().len(),
            left_out,
            obstacles: self.judged(|facts| facts.lease_obstacles().len()),
            connected: self.is_connected(),
            unreadable: report.unreadable.len(),
            expires: report.expires,
        });
        let ready = self.own_readiness().waiting_for.is_empty();
        self.metrics.ready(ready);
    }

    /// Whether the store of leases is followed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match self.store.snapshot().leases {
            Leases::InStore { .. } => self.leases.borrow().connected,
            Leases::OnNodes => {
                let listed = !self.store.missing().contains(&Kind::Node);
                listed && self.findings.borrow().interruption(Kind::Node).is_none()
            }
        }
    }
}

/// `/healthz`, `/livez` and `/readyz`.
pub fn health_router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health)
}

/// `/metrics`.
pub fn metrics_router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn healthz(State(health): State<Arc<Health>>) -> Response {
    let mut obstacles = health.stalled();
    let silent = health.board.silent();
    let silent = silent.iter().filter(|_| health.services);
    let silent = silent.map(|name| format!("the first pass of the {name} loop"));
    obstacles.waiting_for.extend(silent);
    let status = status_of(&obstacles.waiting_for);
    health.metrics.healthz(status.as_u16());
    (status, Json(obstacles)).into_response()
}

async fn livez(State(health): State<Arc<Health>>) -> Response {
    let obstacles = health.stalled();
    let status = status_of(&obstacles.waiting_for);
    health.metrics.livez(status.as_u16());
    (status, Json(obstacles)).into_response()
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let readiness = health.readiness();
    (status_of(&readiness.waiting_for), Json(readiness)).into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let shown = health.clone();
    let refresh = move || {
        shown.count_leases();
        (shown.refresh)();
    };
    let refreshed = tokio::task::spawn_blocking(refresh).await;
    match refreshed {
        Ok(()) => metrics_text(&health.metrics),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The metrics as they are.
pub(crate) fn metrics_text(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

pub(crate) fn status_of(waiting_for: &[String]) -> StatusCode {
    if waiting_for.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
