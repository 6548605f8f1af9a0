//! The part of the kernel's side that is there without any data path: the overlay's tables.

use desired::cluster::Cluster;
use hostnet::{FdbTarget, NeighbourTarget, Netlink, RouteTarget};

use super::view::{CounterView, Difference, FlowView, KernelView, MapView, differences};
use crate::lease::Lease;
use crate::reconcile::overlay::PeerTables;

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
        let Some(lease) = lease else {
            return Ok(Vec::new());
        };
        let device = lease.overlay.name.clone();
        let wanted = PeerTables::of(cluster, lease);
        let mut neighbours = NeighbourTarget::new(Netlink::open()?, device.clone());
        let mut fdb = FdbTarget::new(Netlink::open()?, device);
        let mut routes = RouteTarget::new(Netlink::open()?);
        let mut all = differences("neighbours", &mut neighbours, &wanted.neighbours)?;
        all.extend(differences("fdb", &mut fdb, &wanted.fdb)?);
        all.extend(differences("routes", &mut routes, &wanted.routes)?);
        Ok(all)
    }
}
