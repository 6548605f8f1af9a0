//! Services: frontends, slots and backends of both families.

use std::sync::Arc;

use desired::cluster::Cluster;
use desired::services::{FamilyTables, ServiceProblem, ServiceTables, services};
use ebpf_shared::service::{
    BackendKey, BackendValue, FrontendKey, FrontendValue, SlotKey, SlotValue,
};
use ebpf_shared::{V4, V6};
use netstate::{Report, Wanted, reconcile};
use tokio::sync::watch;

use super::map::Map;
use super::run::{Pass, Reconciler};
use crate::metrics::SERVICES_LOOP;

/// Name of the loop.
pub const NAME: &str = SERVICES_LOOP;

/// The maps of one family.
pub struct FamilyMaps<A: Ord + Clone> {
    /// `towline_backend_*`.
    pub backends: Map<BackendKey, BackendValue<A>>,
    /// `towline_slot_*`.
    pub slots: Map<SlotKey, SlotValue>,
    /// `towline_frontend_*`.
    pub frontends: Map<FrontendKey<A>, FrontendValue>,
}

/// The loop that keeps the service maps.
pub struct ServicesLoop {
    v4: FamilyMaps<V4>,
    v6: FamilyMaps<V6>,
    tables: watch::Sender<Arc<ServiceTables>>,
    problems: Vec<ServiceProblem>,
}

// === impl ServicesLoop ===

impl ServicesLoop {
    /// Keeps `v4` and `v6`; tells `tables` what was last computed.
    #[must_use]
    pub fn new(
        v4: FamilyMaps<V4>,
        v6: FamilyMaps<V6>,
        tables: watch::Sender<Arc<ServiceTables>>,
    ) -> Self {
        Self {
            v4,
            v6,
            tables,
            problems: Vec::new(),
        }
    }
}

impl Reconciler for ServicesLoop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pass(&mut self, cluster: &Arc<Cluster>, pass: Pass) -> Report {
        let tables = Arc::new(services(cluster));
        if tables.problems != self.problems {
            for problem in &tables.problems {
                tracing::warn!(%problem, "service is not programmed as written");
            }
            self.problems.clone_from(&tables.problems);
        }
        self.v4.begin(pass.look);
        self.v6.begin(pass.look);
        let FamilyTables {
            backends,
            slots,
            frontends,
        } = &tables.v4;
        let mut backends4 = Wanted::new("backend-v4", &mut self.v4.backends, backends);
        let mut slots4 = Wanted::new("slot-v4", &mut self.v4.slots, slots);
        let mut frontends4 = Wanted::new("frontend-v4", &mut self.v4.frontends, frontends);
        let FamilyTables {
            backends,
            slots,
            frontends,
        } = &tables.v6;
        let mut backends6 = Wanted::new("backend-v6", &mut self.v6.backends, backends);
        let mut slots6 = Wanted::new("slot-v6", &mut self.v6.slots, slots);
        let mut frontends6 = Wanted::new("frontend-v6", &mut self.v6.frontends, frontends);
        let report = reconcile(&mut [
            &mut backends4,
            &mut slots4,
            &mut frontends4,
            &mut backends6,
            &mut slots6,
            &mut frontends6,
        ]);
        self.tables.send_replace(tables);
        report
    }
}

// === impl FamilyMaps ===

impl<A: Ord + Clone + 'static> FamilyMaps<A> {
    fn begin(&mut self, look: bool) {
        self.backends.begin(look);
        self.slots.begin(look);
        self.frontends.begin(look);
    }
}
