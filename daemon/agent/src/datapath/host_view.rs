//! The part of the kernel's side that is there without any data path: the overlay's tables.

use std::sync::{Arc, Mutex, PoisonError};

use desired::cluster::Cluster;

use super::view::{CounterView, Difference, FlowView, KernelView, MapView};
use crate::reconcile::masquerade::MasqueradeLoop;
use crate::reconcile::overlay::OverlayLoop;

/// A node with neither Services nor policy.
#[derive(Clone, Copy, Debug)]
pub struct HostView;

/// Looks at the overlay's tables between the passes of the loops that keep them.
pub struct OverlayView {
    /// Devices, peers, routes, files.
    pub overlay: Arc<Mutex<OverlayLoop>>,
    /// Rules.
    pub masquerade: Arc<Mutex<MasqueradeLoop>>,
}

// === impl OverlayView ===

impl OverlayView {
    /// Entries in which the kernel differs from what is wanted, by a look at the kernel now.
    /// Blocking.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn differences(&self, cluster: &Cluster) -> anyhow::Result<Vec<Difference>> {
        let overlay = self.overlay.lock();
        let mut overlay = overlay.unwrap_or_else(PoisonError::into_inner);
        let mut all = overlay.differences(cluster)?;
        drop(overlay);
        if cluster.own_lease().is_some() {
            let masquerade = self.masquerade.lock();
            let mut masquerade = masquerade.unwrap_or_else(PoisonError::into_inner);
            all.extend(masquerade.differences(cluster)?);
        }
        Ok(all)
    }
}

impl KernelView for HostView {
    fn flows(&self, _: &Cluster) -> anyhow::Result<Vec<FlowView>> {
        Ok(Vec::new())
    }

    fn maps(&self) -> anyhow::Result<Vec<MapView>> {
        Ok(Vec::new())
    }

    fn counters(&self) -> anyhow::Result<Vec<CounterView>> {
        Ok(Vec::new())
    }

    fn differences(&self) -> anyhow::Result<Vec<Difference>> {
        Ok(Vec::new())
    }
}
