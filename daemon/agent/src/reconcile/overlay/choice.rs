//! Which interface the overlay is on, pass by pass.

use std::net::IpAddr;

use desired::cluster::{Announced, Cluster};

use super::OverlayLoop;
use super::plan::{asked, asked_choice};
use crate::host;
use crate::uplink::{Families, Host, Interface, Uplink, choose, kernel_source_to};

// === impl OverlayLoop ===

impl OverlayLoop {
    /// The interface towards other nodes. As long as it is there, what was chosen before does where
    /// nothing can be chosen now (it is down, or has lost its address of one family): peers come and go
    /// meanwhile, and what drifts is put right.
    pub(super) fn uplink(
        &mut self,
        cluster: &Cluster,
        interfaces: &[Interface],
    ) -> Result<(Uplink, Option<String>), String> {
        let asked = asked(cluster);
        // An address that was asked for and is not any more is not clung to.
        let is_asked_anew = self.asked.is_some_and(|before| before != asked);
        let node = cluster.own_node().map(|node| node.addresses.as_slice());
        let announced = cluster.own_lease().and_then(|lease| lease.announced);
        let announced = announced.filter(|_| !is_asked_anew);
        let announced: Vec<IpAddr> = announced
            .into_iter()
            .flat_map(Announced::addresses)
            .collect();
        let families = Families {
            v4: self.settings.net.v4.is_some(),
            v6: self.settings.net.v6.is_some(),
        };
        let host = Host {
            interfaces,
            node: node.unwrap_or_default(),
            families,
            held: self.uplink.as_ref().filter(|_| !is_asked_anew),
            announced: &announced,
            source_to: &kernel_source_to,
            default_device: &|| host::default_device(families.v4),
        };
        let choice = asked_choice(&self.settings.uplink, &asked);
        let error = match choose(&choice, &host) {
            Ok(uplink) => {
                self.uplink = Some(uplink.clone());
                self.asked = Some(asked);
                return Ok((uplink, None));
            }
            Err(error) => error.to_string(),
        };
        let held = self.uplink.clone().ok_or_else(|| error.clone())?;
        match interfaces.iter().find(|one| one.name == held.device) {
            Some(found) => Ok((
                Uplink {
                    mtu: found.mtu.unwrap_or(held.mtu),
                    ..held
                },
                Some(error),
            )),
            None => Err(error),
        }
    }
}
