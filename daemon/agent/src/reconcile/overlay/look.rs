//! Where the overlay differs from what is wanted, without changing anything.

use desired::cluster::Cluster;
use desired::routes::routes;

use super::{OverlayLoop, Planned, forwarding};
use crate::datapath::{Difference, differences};

// === impl OverlayLoop ===

impl OverlayLoop {
    /// Every entry of the loop's tables that is not as it should be, by a look at the kernel now.
    ///
    /// # Errors
    /// When a table cannot be observed.
    pub fn differences(&mut self, cluster: &Cluster) -> anyhow::Result<Vec<Difference>> {
        let cannot = |message| Difference {
            table: super::NAME,
            problem: "not computed",
            key: message,
        };
        let Planned {
            plan,
            doubt,
            former,
        } = match self.plan(cluster) {
            Ok(planned) => planned,
            Err(message) => return Ok(vec![cannot(message)]),
        };
        let lease = &plan.lease;
        let tables = lease.is_up().then(|| routes(cluster, &lease.overlay));
        let mut all: Vec<Difference> = doubt.map(cannot).into_iter().collect();
        all.extend(former.iter().map(|name| Difference {
            table: "overlay-device",
            problem: "unwanted",
            key: format!("{name:?}"),
        }));
        for device in &plan.devices {
            let mut tunnels = self.tunnels.iter_mut();
            let Some(tunnel) = tunnels.find(|tunnel| tunnel.name == device.name) else {
                continue;
            };
            let subnet = lease.subnets.iter().find(|one| one.is_ipv4() == tunnel.v4);
            let filled = subnet.copied().zip(tables.as_ref());
            all.extend(tunnel.differences(device, filled)?);
        }
        if let Some(tables) = tables {
            let wanted = forwarding(&self.settings.net);
            all.extend(differences("sysctl", self.forwarding.inner(), &wanted)?);
            all.extend(differences("routes", self.routes.inner(), &tables.routes)?);
            let wanted = self.subnet_files(lease);
            all.extend(differences("subnet-file", self.files.inner(), &wanted)?);
        }
        Ok(all)
    }
}
