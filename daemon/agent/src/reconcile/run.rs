//! The one loop: wait for a change or the timer, compute, observe, diff, apply, report.
//!
//! Every table that the daemon keeps is kept by an instance of [`run`]; nothing edits the kernel
//! in answer to an event. Changes that arrive during a pass are coalesced into the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use desired::cluster::Cluster;
use netstate::Report;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Outcome};

/// How long after a pass with errors the next one comes, at first; it doubles up to the resync.
const RETRY: Duration = Duration::from_millis(500);
/// For each moment that a pass takes, so many without one that only news asks for: however much news
/// there is, it costs a twentieth of a processor.
const REST: u32 = 19;

/// Why a pass runs, and what it may trust.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pass {
    /// The snapshot is another one than in the pass before.
    pub changed: bool,
    /// The kernel is to be observed; otherwise the tables as last applied are good enough.
    pub look: bool,
}

/// A pure computation with the ordered Targets which hold its result.
pub trait Reconciler: Send + 'static {
    /// What logs, metrics and `towline status` call it.
    fn name(&self) -> &'static str;

    /// Makes the Targets equal what `cluster` asks for. Blocking.
    fn pass(&mut self, cluster: &Arc<Cluster>, pass: Pass) -> Report;

    /// Whether what is wanted can have changed from one snapshot to the next.
    fn concerned_by(_before: &Cluster, _now: &Cluster) -> bool
    where
        Self: Sized,
    {
        true
    }
}

/// A reconciler panicked; its tables stay as they are and nobody keeps them any more.
#[derive(Debug, thiserror::Error)]
#[error("the {0} loop ended in a panic; this is a defect, please report it with the log")]
pub struct Panicked(pub &'static str);

/// Runs `reconciler` until `stop`; the first pass waits for the first complete snapshot, so that
/// nothing is ever deleted for want of knowledge. It looks often enough that whatever somebody has
/// changed is put right within `resync`, and whenever `nudges` has news of a change.
///
/// # Errors
/// [`Panicked`], and never for what the kernel refuses: that is reported and tried again.
pub async fn run<R: Reconciler>(
    mut reconciler: R,
    mut clusters: watch::Receiver<Arc<Cluster>>,
    resync: Duration,
    board: Arc<Board>,
    stop: CancellationToken,
    mut nudges: Option<watch::Receiver<()>>,
) -> Result<(), Panicked> {
    let name = reconciler.name();
    // So that the look itself, and putting right what it finds, are within the time.
    let resync = resync * 9 / 10;
    let complete = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        complete = clusters.wait_for(|cluster| cluster.complete) => complete.is_ok(),
    };
    if !complete {
        return Ok(());
    }
    let mut pass = Pass {
        changed: true,
        look: true,
    };
    let mut looked = Instant::now();
    let mut failures = 0;
    loop {
        let cluster = clusters.borrow_and_update().clone();
        let mut seen = cluster.clone();
        let started = Instant::now();
        let done = tokio::task::spawn_blocking(move || {
            let report = reconciler.pass(&cluster, pass);
            (reconciler, report)
        });
        let Ok((back, report)) = done.await else {
            return Err(Panicked(name));
        };
        reconciler = back;
        let took = started.elapsed();
        if pass.look {
            looked = started;
        }
        failures = if report.errors.is_empty() {
            0
        } else {
            failures + 1
        };
        board.record(name, Outcome { pass, took, report });
        let next = wake_at(looked, resync, failures);
        let rested = Instant::now() + took * REST;
        pass = loop {
            let Some(next_pass) = wait(&mut clusters, &mut nudges, (rested, next), &stop).await
            else {
                return Ok(());
            };
            let look = next_pass.look || looked.elapsed() >= resync;
            let now = clusters.borrow().clone();
            if look || failures > 0 || R::concerned_by(&seen, &now) {
                break Pass { look, ..next_pass };
            }
            seen = now;
        };
    }
}

/// When the next pass is due without a change: at the resync, or sooner after failures.
fn wake_at(looked: Instant, resync: Duration, failures: u32) -> Instant {
    let resync_at = looked + resync;
    match failures {
        0 => resync_at,
        _ => resync_at.min(Instant::now() + RETRY * 2_u32.saturating_pow(failures.min(8) - 1)),
    }
}

/// The next pass, or `None` when it is time to stop: for news not before the loop is `rested`, and
/// at `next` in any case.
async fn wait(
    clusters: &mut watch::Receiver<Arc<Cluster>>,
    nudges: &mut Option<watch::Receiver<()>>,
    (rested, next): (Instant, Instant),
    stop: &CancellationToken,
) -> Option<Pass> {
    tokio::select! {
        () = stop.cancelled() => None,
        changed = clusters.changed() => changed.ok().map(|()| Pass { changed: true, look: false }),
        () = nudged(nudges, rested) => Some(Pass { changed: false, look: true }),
        () = tokio::time::sleep_until(next.into()) => Some(Pass { changed: false, look: true }),
    }
}

/// Until there is news, and it is `rested`; forever if nobody is left to tell any.
async fn nudged(nudges: &mut Option<watch::Receiver<()>>, rested: Instant) {
    // First, so that no news is taken that another reason for a pass then outruns.
    tokio::time::sleep_until(rested.into()).await;
    let told = match nudges {
        Some(news) => news.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

/// Adds what a further step of the same pass did.
pub(super) fn merge(into: &mut Report, from: Report) {
    into.puts += from.puts;
    into.deletes += from.deletes;
    into.drift += from.drift;
    into.errors.extend(from.errors);
}
