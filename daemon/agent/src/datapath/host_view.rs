//! The part of the kernel's side that is there without any data path: the overlay's tables.

use desired::cluster::Cluster;
use desired::routes::{Carrier, routes};
use hostnet::{FdbTarget, NeighbourTarget, Netlink, RouteTarget};

use super::view::{CounterView, Difference, FlowView, KernelView, MapView, differences};
use crate::lease::Lease;
use crate::reconcile::overlay::peers_of;

/// A node with neither Services nor policy.
#[derive(Clone, Copy, Debug)]
pub struct HostView;

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

    fn differences(
        &self,
        cluster: &Cluster,
        lease: Option<&Lease>,
    ) -> anyhow::Result<Vec<Difference>> {
        let Some(lease) = lease.filter(|lease| lease.is_up()) else {
            return Ok(Vec::new());
        };
        let wanted = routes(cluster, &lease.overlay);
        let mut all = Vec::new();
        for underlay in [&lease.overlay.v4, &lease.overlay.v6].into_iter().flatten() {
            let Carrier::Vxlan { device, .. } = &underlay.carrier else {
                continue;
            };
            let (wanted_neighbours, wanted_fdb) = peers_of(device, &wanted);
            let mut neighbours = NeighbourTarget::new(Netlink::open()?, device.clone());
            let mut fdb = FdbTarget::new(Netlink::open()?, device.clone());
            all.extend(differences(
                "neighbours",
                &mut neighbours,
                &wanted_neighbours,
            )?);
            all.extend(differences("fdb", &mut fdb, &wanted_fdb)?);
        }
        let mut targets = RouteTarget::new(Netlink::open()?);
        all.extend(differences("routes", &mut targets, &wanted.routes)?);
        Ok(all)
    }
}
