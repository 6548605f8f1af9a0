//! `towline node release`: this node leaves the overlay.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use desired::cluster::Cluster;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::api::Admin;
use super::error::ApiError;
use crate::config::NetConf;
use crate::lease::{Lease, StoreReport, Tenure};
use crate::reconcile::Gate;
use crate::reconcile::masquerade::MasqueradeLoop;
use crate::reconcile::overlay::{Removed, remove};
use crate::subnet_file::SubnetFiles;

/// How long the store of leases may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How many pods are named that stand in the way.
const NAMED: usize = 5;

/// What a release needs.
pub struct Release {
    /// Whether this node is to have a lease.
    pub tenure: watch::Sender<Tenure>,
    /// Before the overlay's tables.
    pub gate: Gate,
    /// The network.
    pub net: NetConf,
    /// The subnet files.
    pub subnet_files: SubnetFiles,
    /// The rules; `None` where there are none.
    pub rules: Option<Arc<Mutex<MasqueradeLoop>>>,
    /// What the overlay loop has set up.
    pub overlay: watch::Sender<Option<Lease>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Consent {
    #[serde(default)]
    yes: bool,
}

/// What a release has done.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Released {
    /// The subnets that were given back by this request.
    subnets: Vec<String>,
    removed: Removed,
}

/// Gives the lease back, then takes the overlay off this node; again and again if asked.
pub(super) async fn release(
    State(admin): State<Arc<Admin>>,
    Query(consent): Query<Consent>,
) -> Result<Json<Released>, ApiError> {
    let cluster = admin.health.store.snapshot();
    let pods = pods_here(&cluster);
    if !consent.yes && !pods.is_empty() {
        return Err(ApiError::conflict(in_the_way(&pods)));
    }
    let own = cluster.own_lease().map(|lease| lease.subnets);
    let release = &admin.release;
    let had = *release.tenure.borrow() != Tenure::GivenBack;
    give_back(&release.tenure, &admin.health.leases).await?;
    let (gate, net) = (release.gate.clone(), release.net.clone());
    let files = release.subnet_files.clone();
    let rules = release.rules.clone();
    let rules = rules.ok_or_else(|| ApiError::internal("there are no rules".to_owned()))?;
    let work = move || {
        gate.close_and(|| {
            let mut rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
            remove(&net, files, &mut rules)
        })
    };
    let removed = tokio::task::spawn_blocking(work).await;
    release.overlay.send_replace(None);
    let removed = match removed {
        Ok(Ok(removed)) => removed,
        Ok(Err(error)) => return Err(ApiError::internal(format!("{error:#}"))),
        Err(error) => return Err(ApiError::internal(error.to_string())),
    };
    tracing::warn!(
        ?removed,
        "this node has left the overlay until towlined is restarted"
    );
    let subnets = own.filter(|_| had).unwrap_or_default();
    Ok(Json(Released {
        subnets: subnets.iter().map(ToString::to_string).collect(),
        removed,
    }))
}

/// Asks whoever keeps the lease to give it back, and waits until that is done; otherwise this node
/// keeps it.
async fn give_back(
    tenure: &watch::Sender<Tenure>,
    report: &watch::Receiver<StoreReport>,
) -> Result<(), ApiError> {
    tenure.send_if_modified(|now| {
        let asked = *now == Tenure::Wanted;
        if asked {
            *now = Tenure::GivingBack;
        }
        asked
    });
    let mut done = tenure.subscribe();
    let done = done.wait_for(|now| *now == Tenure::GivenBack);
    if let Ok(Ok(_)) = tokio::time::timeout(LIMIT, done).await {
        return Ok(());
    }
    // From here on nobody tries any more; it may just have been done.
    if tenure.send_if_modified(Tenure::kept) {
        let trouble = report.borrow().trouble.clone();
        let trouble = trouble.unwrap_or_else(|| "the store does not answer".to_owned());
        return Err(ApiError::not_ready(format!(
            "the lease could not be given back within {} s: {trouble}. Nothing was removed, and this node keeps its \
             lease; ask again when the store answers",
            LIMIT.as_secs()
        )));
    }
    Ok(())
}

/// Pods that would lose their network.
fn pods_here(cluster: &Cluster) -> Vec<String> {
    let registered = cluster.local_endpoints.values();
    let registered = registered.map(|endpoint| endpoint.pod.to_string());
    let this_node = Some(&cluster.this_node.name);
    let bound = cluster.pods.values();
    let bound = bound.filter(|pod| pod.node.as_ref() == this_node && pod.has_own_addresses());
    let mut all: Vec<String> = registered
        .chain(bound.map(|pod| pod.name.to_string()))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn in_the_way(pods: &[String]) -> String {
    let named = pods.iter().take(NAMED).map(String::as_str);
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match pods.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{} pods would lose their network: {named}{more}; drain the node first, or say --yes",
        pods.len()
    )
}
