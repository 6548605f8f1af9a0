//! Where the overlay differs from what is wanted, without changing anything.

use desired::cluster::Cluster;
use desired::routes::routes;

use super::{OverlayLoop, forwarding};
use crate::datapath::{Difference, differences};
use crate::subnet_file::SubnetEnv;

// === impl OverlayLoop ===

impl OverlayLoop {
    /// Every entry of the loop's tables that is not as it should be, by a look at the kernel now.
    ///
    /// # Errors
    /// When a table cannot be observed.
    pub fn differences(&mut self, cluster: &Cluster) -> anyhow::Result<Vec<Difference>> {
        let plan = match self.plan(cluster) {
            Ok(plan) => plan,
            Err(message) => {
                let cannot = Difference {
                    table: super::NAME,
                    problem: "not computed",
                    key: message,
                };
                return Ok(vec![cannot]);
            }
        };
        let lease = &plan.lease;
        let tables = lease.is_up().then(|| routes(cluster, &lease.overlay));
        let mut all = Vec::new();
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
            all.extend(differences("sysctl", &mut self.forwarding, &wanted)?);
            all.extend(differences("routes", &mut self.routes, &tables.routes)?);
            let env = SubnetEnv {
                networks: self.settings.net.networks().collect(),
                subnets: lease.subnets.clone(),
                mtu: lease.mtu,
                ip_masq: self.settings.options.rules.masquerade,
            };
            let files = &mut self.settings.subnet_files;
            let wanted = files.wanted(&env);
            all.extend(differences("subnet-file", files, &wanted)?);
        }
        Ok(all)
    }
}
