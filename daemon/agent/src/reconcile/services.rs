//! Services: frontends, slots and backends of both families.

use std::collections::BTreeMap;
use std::sync::Arc;

use desired::cluster::Cluster;
use desired::services::{ServiceProblem, ServiceTables, services};
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

/// The key of the one entry that stands for the programs at the cgroup.
pub const SOCKET_PROGRAMS: &str = "socket-programs";

/// The maps of one family.
pub struct FamilyMaps<A: Ord + Clone> {
    /// `towline_backend_*`.
    pub backends: Map<BackendKey, BackendValue<A>>,
    /// `towline_slot_*`.
    pub slots: Map<SlotKey, SlotValue>,
    /// `towline_frontend_*`.
    pub frontends: Map<FrontendKey<A>, FrontendValue>,
}

/// Everything that the services loop keeps.
pub struct ServiceMaps {
    /// IPv4.
    pub v4: FamilyMaps<V4>,
    /// IPv6.
    pub v6: FamilyMaps<V6>,
    /// [`SOCKET_PROGRAMS`]: last, when there is something to look up.
    pub sockets: Map<&'static str, ()>,
}

/// The loop that keeps the service maps.
pub struct ServicesLoop {
    maps: ServiceMaps,
    tables: watch::Sender<Arc<ServiceTables>>,
    problems: Vec<ServiceProblem>,
}

// === impl ServicesLoop ===

impl ServicesLoop {
    /// Keeps `maps`; tells `tables` what was last computed.
    #[must_use]
    pub fn new(maps: ServiceMaps, tables: watch::Sender<Arc<ServiceTables>>) -> Self {
        Self {
            maps,
            tables,
            problems: Vec::new(),
        }
    }

    fn apply(&mut self, tables: &ServiceTables, look: bool) -> Report {
        let ServiceMaps { v4, v6, sockets } = &mut self.maps;
        v4.begin(look);
        v6.begin(look);
        sockets.begin(look);
        let programs = BTreeMap::from([(SOCKET_PROGRAMS, ())]);
        let mut backends4 = Wanted::new("backend-v4", &mut v4.backends, &tables.v4.backends);
        let mut slots4 = Wanted::new("slot-v4", &mut v4.slots, &tables.v4.slots);
        let mut frontends4 = Wanted::new("frontend-v4", &mut v4.frontends, &tables.v4.frontends);
        let mut backends6 = Wanted::new("backend-v6", &mut v6.backends, &tables.v6.backends);
        let mut slots6 = Wanted::new("slot-v6", &mut v6.slots, &tables.v6.slots);
        let mut frontends6 = Wanted::new("frontend-v6", &mut v6.frontends, &tables.v6.frontends);
        let mut sockets = Wanted::new("socket-program", sockets, &programs);
        reconcile(&mut [
            &mut backends4,
            &mut slots4,
            &mut frontends4,
            &mut backends6,
            &mut slots6,
            &mut frontends6,
            &mut sockets,
        ])
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
        let report = self.apply(&tables, pass.look);
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
