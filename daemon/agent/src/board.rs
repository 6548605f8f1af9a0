//! What the loops did last, for `towline status`, health and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use netstate::Report;
use serde::Serialize;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::reconcile::Pass;

/// What one pass of a loop did.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ran.
    pub pass: Pass,
    /// How long it took.
    pub took: Duration,
    /// What it put, deleted and could not do.
    pub report: Report,
}

/// The state of one loop.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoopStatus {
    /// Passes since the start of the daemon.
    pub passes: u64,
    /// When the last pass ended.
    pub last_pass: Option<Timestamp>,
    /// How long the last pass took, in microseconds.
    pub last_micros: u64,
    /// Entries written since the start.
    pub puts: u64,
    /// Entries removed since the start.
    pub deletes: u64,
    /// Entries that somebody else had changed and that were put right.
    pub drift_repaired: u64,
    /// What the last pass could not do.
    pub errors: Vec<String>,
}

/// All loops' states.
#[derive(Debug)]
pub struct Board {
    expected: Vec<&'static str>,
    loops: Mutex<BTreeMap<&'static str, (LoopStatus, Instant)>>,
    metrics: Arc<Metrics>,
    recorded: watch::Sender<()>,
}

// === impl Board ===

impl Board {
    /// A board for the loops named in `expected`, none of which has run.
    #[must_use]
    pub fn new(expected: Vec<&'static str>, metrics: Arc<Metrics>) -> Self {
        Self {
            expected,
            loops: Mutex::new(BTreeMap::new()),
            metrics,
            recorded: watch::Sender::new(()),
        }
    }

    /// Told of every pass from now on.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.recorded.subscribe()
    }

    /// Notes what a pass of the loop `name` did; logs what went wrong and what drifted.
    pub fn record(&self, name: &'static str, outcome: Outcome) {
        let Outcome { took, report, .. } = outcome;
        self.metrics.pass(name, took, &report);
        let repaired = report.drift;
        if repaired > 0 {
            self.metrics.drift(name, repaired);
            tracing::warn!(
                table = name,
                entries = repaired,
                "put right what had drifted"
            );
        } else if report.puts + report.deletes > 0 {
            tracing::debug!(
                table = name,
                puts = report.puts,
                deletes = report.deletes,
                micros = took.as_micros(),
                "applied"
            );
        }
        let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        let mut loops = self.lock();
        let (status, at) = loops
            .entry(name)
            .or_insert_with(|| (LoopStatus::default(), Instant::now()));
        for error in errors.iter().filter(|error| !status.errors.contains(error)) {
            tracing::warn!(table = name, error, "not applied; it is tried again");
        }
        *at = Instant::now();
        status.passes += 1;
        status.last_pass = Timestamp::from_second(Timestamp::now().as_second()).ok();
        status.last_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        status.puts += report.puts as u64;
        status.deletes += report.deletes as u64;
        status.drift_repaired += repaired as u64;
        status.errors = errors;
        drop(loops);
        self.recorded.send_replace(());
    }

    /// The state of every loop that has run.
    pub fn loops(&self) -> BTreeMap<&'static str, LoopStatus> {
        self.lock()
            .iter()
            .map(|(name, (status, _))| (*name, status.clone()))
            .collect()
    }

    /// Of each loop that is expected what its last pass could not do; `None` before the first.
    pub fn last_passes(&self) -> Vec<(&'static str, Option<Vec<String>>)> {
        let loops = self.lock();
        let errors = |name| loops.get(name).map(|(status, _)| status.errors.clone());
        let expected = self.expected.iter();
        expected.map(|name| (*name, errors(name))).collect()
    }

    /// The loops that have not had a pass at all.
    pub fn silent(&self) -> Vec<&'static str> {
        let loops = self.lock();
        let expected = self.expected.iter().copied();
        expected.filter(|name| !loops.contains_key(name)).collect()
    }

    /// The loops that have run before, but not within `limit`.
    pub fn stalled(&self, limit: Duration) -> Vec<&'static str> {
        self.lock()
            .iter()
            .filter(|(_, (_, at))| at.elapsed() > limit)
            .map(|(name, _)| *name)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, (LoopStatus, Instant)>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
