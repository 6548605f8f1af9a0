//! Health and metrics over HTTP.
//!
//! `/healthz` is what load balancers ask: the loops are alive (a pass within twice the resync)
//! and have had their first one. `/livez` is the same for a supervisor. `/readyz` says whether
//! this node can carry pods: its lease is held safely and known to the others, the subnet file is
//! written, every loop's last pass was without errors.

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

use crate::board::Board;
use crate::lease::etcd::StoreReport;
use crate::lease::{Lease, Tenure};
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
    /// What a lease store of its own says.
    pub leases: watch::Receiver<StoreReport>,
    /// Whether this node is to have a lease.
    pub tenure: watch::Receiver<Tenure>,
    /// Counts the answers.
    pub metrics: Arc<Metrics>,
    /// Time between two observations.
    pub resync: Duration,
    /// Brings the metrics of the data path up to date before they are shown.
    pub refresh: Box<dyn Fn() + Send + Sync>,
}

/// What stands in the way; empty when nothing does.
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

    /// Why this node does not carry pods (yet).
    #[must_use]
    pub fn unready(&self) -> Obstacles {
        let missing = self.store.missing();
        let lists = missing
            .iter()
            .map(|kind| format!("the first list of {kind}"));
        let mut waiting_for: Vec<String> = lists.collect();
        waiting_for.extend(self.lease_obstacles());
        let loops = self.board.unready();
        waiting_for.extend(
            loops
                .iter()
                .map(|name| format!("a pass of the {name} loop without errors")),
        );
        Obstacles { waiting_for }
    }

    /// Why this node holds no lease, or not safely.
    fn lease_obstacles(&self) -> Vec<String> {
        if *self.tenure.borrow() != Tenure::Wanted {
            let why =
                "a restart of towlined: this node's lease was given back by `towline node release`";
            return vec![why.to_owned()];
        }
        let mut obstacles = Vec::new();
        let cluster = self.store.snapshot();
        match &*self.lease.borrow() {
            Some(lease) if lease.is_up() => {
                let shown = cluster.own_lease().and_then(|own| own.announced);
                if shown != Some(&lease.announced) {
                    obstacles
                        .push("its lease in the store, by which other nodes reach it".to_owned());
                }
            }
            _ => obstacles.push("a pod subnet and the overlay device".to_owned()),
        }
        let report = self.leases.borrow();
        obstacles.extend(report.obstacle.iter().map(|why| format!("a lease: {why}")));
        if report
            .expires
            .is_some_and(|expires| expires < Timestamp::now())
        {
            obstacles.push("etcd: this node's lease has expired meanwhile".to_owned());
        }
        obstacles
    }

    /// Brings the metrics of leases up to date.
    fn count_leases(&self) {
        let cluster = self.store.snapshot();
        let lease = self.lease.borrow().clone();
        let report = self.leases.borrow().clone();
        let in_etcd = matches!(cluster.leases, Leases::InStore { .. });
        let left_out = lease.map_or(0, |lease| routes(&cluster, &lease.overlay).problems.len());
        self.metrics.leases.set(&LeaseNumbers {
            held: cluster.leases().len(),
            left_out,
            obstacles: self.lease_obstacles().len(),
            connected: match in_etcd {
                true => report.connected,
                false => !self.store.missing().contains(&Kind::Node),
            },
            unreadable: report.unreadable.len(),
            expires: report.expires,
        });
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
    let silent = silent
        .iter()
        .map(|name| format!("the first pass of the {name} loop"));
    obstacles.waiting_for.extend(silent);
    let status = status_of(&obstacles);
    health.metrics.healthz(status.as_u16());
    (status, Json(obstacles)).into_response()
}

async fn livez(State(health): State<Arc<Health>>) -> Response {
    let obstacles = health.stalled();
    let status = status_of(&obstacles);
    health.metrics.livez(status.as_u16());
    (status, Json(obstacles)).into_response()
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let obstacles = health.unready();
    (status_of(&obstacles), Json(obstacles)).into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let shown = health.clone();
    let refresh = move || {
        shown.count_leases();
        (shown.refresh)();
    };
    let refreshed = tokio::task::spawn_blocking(refresh).await;
    match (refreshed, health.metrics.text()) {
        (Ok(()), Ok(text)) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn status_of(obstacles: &Obstacles) -> StatusCode {
    if obstacles.waiting_for.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
