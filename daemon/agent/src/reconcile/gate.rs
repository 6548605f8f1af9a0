//! A stop for loops whose tables an administrator has taken away.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use desired::cluster::Cluster;
use netstate::Report;

use super::run::{Pass, Reconciler};

/// Whether tables are kept.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<RwLock<bool>>);

/// A reconciler that does nothing behind a closed gate, and that others may look at between passes.
pub struct Gated<R> {
    name: &'static str,
    inner: Arc<Mutex<R>>,
    gate: Gate,
}

// === impl Gate ===

impl Gate {
    /// `reconciler` behind this gate.
    #[must_use]
    pub fn before<R: Reconciler>(&self, reconciler: R) -> Gated<R> {
        Gated {
            name: reconciler.name(),
            inner: Arc::new(Mutex::new(reconciler)),
            gate: self.clone(),
        }
    }

    /// Closes it for good and does `work`, after the passes that are under way.
    pub fn close_and<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut closed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *closed = true;
        work()
    }
}

// === impl Gated ===

impl<R> Gated<R> {
    /// The reconciler itself.
    #[must_use]
    pub fn inner(&self) -> Arc<Mutex<R>> {
        self.inner.clone()
    }
}

impl<R: Reconciler> Reconciler for Gated<R> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pass(&mut self, cluster: &Arc<Cluster>, pass: Pass) -> Report {
        let closed = self.gate.0.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Report::default();
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.pass(cluster, pass)
    }

    fn concerned_by(before: &Cluster, now: &Cluster) -> bool {
        R::concerned_by(before, now)
    }
}
